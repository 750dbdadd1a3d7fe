"""A frozen convolutional trunk before a ViT: EfficientNet-Lite's inverted residuals (arXiv 1905.11946, 1801.04381).

Pixels -> cells of its last map, which the ViT reads as patches. A cell depends on pixels alone, so cells are computed once and kept;
a prompt enters after them. Batch norms are folded into the convolutions.
Letters: B images, C channels, H and W of a map, L = H * W cells.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.config import Stage, TrunkConfig


class Convolution(nn.Module):
    """A convolution with zeros around the map as TensorFlow pads it: at stride 2 what is left over comes after, not before."""

    def __init__(self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out))
        self.kernel, self.stride, self.groups = kernel, stride, groups

    def forward(self, x_BCHW: Tensor) -> Tensor:
        sides = [v for side in (x_BCHW.shape[-1], x_BCHW.shape[-2]) for v in self._around(side)]
        padded = F.pad(x_BCHW, sides) if any(sides) else x_BCHW
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)

    def _around(self, side: int) -> tuple[int, int]:
        need = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return need // 2, need - need // 2


class Inverted(nn.Module):
    """1x1 out, depthwise, 1x1 back; a shortcut where the map keeps its size and channels."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = channels * stage.expansion
        self.expand = Convolution(channels, inside) if stage.expansion > 1 else None
        self.depthwise = Convolution(inside, inside, stage.kernel, stride=stride, groups=inside)
        self.project = Convolution(inside, stage.channels)
        self.shortcut = stride == 1 and channels == stage.channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW if self.expand is None else F.relu6(self.expand(x_BCHW))
        y = self.project(F.relu6(self.depthwise(y)))
        return x_BCHW + y if self.shortcut else cast(Tensor, y)


class Trunk(nn.Module):
    """Normalised pixels -> cells."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.stem = Convolution(3, config.stem, 3, stride=2)
        blocks, channels = [], config.stem
        for stage in config.stages:
            for i in range(stage.blocks):
                blocks.append(Inverted(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)

    @torch.no_grad()
    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, C), row by row.

        Each image is run alone, so its cells do not depend on its neighbours; in a program that is written out all are run at once.
        """
        pixels_B3HW = pixels_B3HW.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        parts = [pixels_B3HW] if torch.compiler.is_exporting() else torch.split(pixels_B3HW, 1)
        maps = [self.blocks(F.relu6(self.stem(one))) for one in parts]
        return torch.cat(maps).flatten(2).transpose(1, 2).contiguous()
