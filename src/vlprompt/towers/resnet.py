"""CLIP's ModifiedResNet image tower: three-convolution stem, average pools before strided steps, attention pooling (arXiv 2103.00020).

It has no rows that prompts could join, so it takes none. Batch norms are frozen statistics. Parameter names are OpenAI's.
Letters: B images, C channels, H and W of a feature map, L = H * W cells, D = 32 * stem channels of the last map, E joint embedding.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.towers.block import Entering, full, heads_first, heads_last
from vlprompt.towers.config import ClipConfig, ResNetConfig

_EXPANSION = 4


class BatchNorm(nn.Module):
    """Batch norm with the statistics of training, computed in float32, whatever the tower's dtype; eps is PyTorch's 1e-5."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scale_C = self.weight * torch.rsqrt(self.running_var + 1e-5)
        shift_C = self.bias - self.running_mean * scale_C
        y_BCHW = torch.addcmul(shift_C[:, None, None], full(x_BCHW), scale_C[:, None, None])
        return y_BCHW.to(x_BCHW.dtype)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; a stride is an average pool, after the second and on the shortcut."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = BatchNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(planes)
        self.conv3 = nn.Conv2d(planes, planes * _EXPANSION, 1, bias=False)
        self.bn3 = BatchNorm(planes * _EXPANSION)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != planes * _EXPANSION:
            conv = nn.Conv2d(channels, planes * _EXPANSION, 1, bias=False)
            self.downsample = nn.Sequential(conv, BatchNorm(planes * _EXPANSION))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x_BCHW)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        y = self.bn3(self.conv3(self._pool(y)))
        shortcut = x_BCHW if self.downsample is None else self.downsample(self._pool(x_BCHW))
        return cast(Tensor, y.add_(shortcut).relu_())

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """One attention whose only query is the mean cell; its cells carry position embeddings, the mean's first."""

    def __init__(self, num_cells: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(num_cells + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, E)."""
        x_BLD = x_BCHW.flatten(2).transpose(1, 2)
        x_BLD = torch.cat([x_BLD.mean(1, keepdim=True), x_BLD], dim=1) + self.positional_embedding
        rows = (self.q_proj(x_BLD[:, :1]), self.k_proj(x_BLD), self.v_proj(x_BLD))
        q, k, v = (heads_first(t, self.heads) for t in rows)
        pooled = heads_last(F.scaled_dot_product_attention(q, k, v))[:, 0]
        return cast(Tensor, self.c_proj(pooled))

    def each(self, x_BCHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, L, E): each cell by the value path alone (MaskCLIP, arXiv 2112.01071, sec. 3.2)."""
        x_BLD = x_BCHW.flatten(2).transpose(1, 2) + self.positional_embedding[1:]
        return cast(Tensor, self.c_proj(self.v_proj(x_BLD)))


class ResNetTower(nn.Module):
    """Pixels -> image embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        tower = config.image
        assert isinstance(tower, ResNetConfig), "a ViT's configuration"
        stem = tower.stem
        self.conv1 = nn.Conv2d(3, stem // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm(stem // 2)
        self.conv2 = nn.Conv2d(stem // 2, stem // 2, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(stem // 2)
        self.conv3 = nn.Conv2d(stem // 2, stem, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(stem)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(stem if i == 0 else stem * 2 ** (i + 1), stem * 2**i, blocks, 1 if i == 0 else 2)
            for i, blocks in enumerate(tower.blocks)
        )
        self.attnpool = AttentionPool(config.num_patches, tower.width, tower.heads, config.embed_dim)

    def forward(self, pixels_B3HW: Tensor, entered: Entering) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> un-normalised embeddings (B, E), float32; nothing may enter."""
        assert not entered.tensors(), "a ResNet has no rows for prompts"
        return full(self.attnpool(self._map(pixels_B3HW)))

    def patches(self, pixels_B3HW: Tensor, entered: Entering) -> Tensor:
        """Each cell's own embedding (B, L, E), float32."""
        assert not entered.tensors(), "a ResNet has no rows for prompts"
        return full(self.attnpool.each(self._map(pixels_B3HW)))

    def _map(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, D, H, W): the last map."""
        x = pixels_B3HW.to(self.conv1.weight.dtype)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu_()
        x = F.avg_pool2d(x, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x


def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Bottlenecks of one size; the first changes the number of channels and halves the map."""
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(planes * _EXPANSION, planes, 1) for _ in range(1, blocks)))
