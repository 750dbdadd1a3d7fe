"""The numbers that fix a CLIP architecture, read from a checkpoint and never typed by hand."""

from __future__ import annotations

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
    """Side of a patch, in pixels; of a ResNet, the 32 pixels that one cell of its last feature map stands for."""

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2
