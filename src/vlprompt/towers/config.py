"""The numbers that fix a CLIP architecture, read from a checkpoint and never typed by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu"]
RESNET_STRIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """One transformer: its width, depth, heads, hidden size of the MLP, activation and LayerNorm epsilon."""

    width: int
    layers: int
    heads: int
    hidden: int
    activation: Activation
    eps: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """CLIP's modified ResNet: bottlenecks per stage, channels after the stem, heads of the attention pool."""

    blocks: tuple[int, int, int, int]
    stem: int
    heads: int

    @property
    def width(self) -> int:
        """Channels of the last feature map, which the attention pool reads."""
        return 32 * self.stem

    @property
    def layers(self) -> int:
        """Bottlenecks in all."""
        return sum(self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Inverted residual blocks of one size; the first has the stride."""

    expansion: int
    """How many times as many channels a block has inside."""
    channels: int
    blocks: int
    stride: int
    kernel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """A convolutional network whose last map's cells a ViT reads as patches."""

    stem: int
    """Channels after the first convolution, which has stride 2."""
    stages: tuple[Stage, ...]
    head: int
    """Channels of the 1x1 convolution between a cell and its patch embedding."""

    @property
    def channels(self) -> int:
        """Of a cell."""
        return self.stages[-1].channels

    @property
    def stride(self) -> int:
        """Pixels that a cell stands for, on a side."""
        return 2 * math.prod(stage.stride for stage in self.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Both towers and what joins them."""

    embed_dim: int
    text: TowerConfig
    image: TowerConfig | ResNetConfig
    vocab_size: int
    context_length: int
    """Rows of the text tower's position embedding, [SOS] and [EOT] included."""
    image_size: int
    """Side of the image, in pixels."""
    patch_size: int
    """Side of a patch, in pixels; of a ResNet or a trunk, the pixels that one cell of its last feature map stands for."""
    trunk: TrunkConfig | None = None
    """What stands before the ViT in the place of one convolution; None: nothing."""

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2
