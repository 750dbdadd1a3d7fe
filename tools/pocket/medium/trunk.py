"""EfficientNet-Lite0 in plain torch: the frozen trunk of pocket-m and the teacher of its image tower.

Letters: B images, C channels, H and W of a feature map, L = H * W cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

STAGES = (
    # expansion, channels, blocks, stride, kernel: Table 1 of arXiv 1905.11946 at width and depth 1, as Lite0 has them
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
EPS = 1e-3  # of the batch norms, as in the published network
SIDE = 128
TOKENS = (SIDE // 32) ** 2
CHANNELS = 320


@dataclass(frozen=True)
class Folded:
    """A convolution with its batch norm folded in."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    groups: int = 1
    clip: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        if size > 1:
            # As TensorFlow pads "same": at stride 2 one row less before than after, by the size of the map.
            need = max((-(-x.shape[-1] // self.stride) - 1) * self.stride + size - x.shape[-1], 0)
            x = F.pad(x, (need // 2, need - need // 2) * 2)
        x = F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)
        return F.relu6(x) if self.clip else x


class Lite0:
    """The published weights; `cells` is what pocket-m's ViT reads, `feature` and `logits` what it learns from."""

    @classmethod
    def read(cls, path: Path) -> Lite0:
        """From the package's state dict."""
        return cls(torch.load(path, map_location="cpu", weights_only=True))

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.stem = self._fold("_conv_stem", "_bn0", stride=2)
        self.blocks: list[tuple[list[Folded], bool]] = []
        channels, number = 32, 0
        for expansion, out, count, stride, _ in STAGES:
            for i in range(count):
                name, step = f"_blocks.{number}.", stride if i == 0 else 1
                parts = []
                if expansion > 1:
                    parts.append(self._fold(name + "_expand_conv", name + "_bn0"))
                parts.append(
                    self._fold(name + "_depthwise_conv", name + "_bn1", stride=step, groups=channels * expansion)
                )
                parts.append(self._fold(name + "_project_conv", name + "_bn2", clip=False))
                self.blocks.append((parts, step == 1 and channels == out))
                channels, number = out, number + 1
        self.head = self._fold("_conv_head", "_bn1")
        self.classifier, self.offset = self.state["_fc.weight"], self.state["_fc.bias"]

    def _fold(self, conv: str, norm: str, *, stride: int = 1, groups: int = 1, clip: bool = True) -> Folded:
        kernel = self.state[conv + ".weight"]
        weight, bias, mean, var = (self.state[f"{norm}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        scale = weight / torch.sqrt(var + EPS)
        folded = (kernel * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
        return Folded(folded, bias - mean * scale, stride, groups, clip)

    @torch.no_grad()
    def cells(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, L, 320), row by row."""
        x = ((pixels * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for parts, shortcut in self.blocks:
            y = x
            for part in parts:
                y = part(y)
            x = x + y if shortcut else y
        return x.flatten(2).transpose(1, 2).contiguous()

    def feature(self, cells: Tensor) -> Tensor:
        """(B, L, 320) -> (B, 1280): the mean cell after the last convolution."""
        return F.relu6(F.linear(cells, self.head.weight[:, :, 0, 0].to(cells), self.head.bias.to(cells))).mean(1)

    def logits(self, feature: Tensor) -> Tensor:
        """(B, 1280) -> (B, 1000)."""
        return F.linear(feature, self.classifier.to(feature), self.offset.to(feature))
