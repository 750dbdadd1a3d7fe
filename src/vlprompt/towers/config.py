"""The numbers that fix a CLIP architecture, read from a checkpoint and never typed by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "swiglu"]
"""Of the MLP; ``swiglu`` has two products into the hidden layer, silu(one) times the other."""
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
    inner_norm: bool = False
    """Whether a LayerNorm stands before the last product of attention and of the MLP (EVA's sub-LN)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextForm:
    """How a text tower reads a sentence; the defaults are CLIP's."""

    causal: bool = True
    """False: every row sees every other one, so no row is the same for two classes (SigLIP)."""
    pad: int | None = None
    """The token that fills a sentence up to the context length; None: nothing does, because no row sees what comes after it."""
    pool: Literal["end", "last"] = "end"
    """The row that becomes the embedding: that of [EOT], or the last one, padding or not."""
    affine: bool = False
    """Whether the projection has a bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """What stands before and behind the blocks of a ViT; the defaults are CLIP's."""

    class_row: bool = True
    pre_norm: bool = True
    """Whether ln_pre stands before the first block."""
    patch_bias: bool = False
    pool: Literal["class", "attention", "mean"] = "class"
    """The class row, one query's attention to all patches with an MLP behind it (SigLIP), or the mean of the patches (CLIPA)."""
    projection: Literal["matrix", "affine", "none"] = "matrix"
    rotary: int = 0
    """Side of the grid that rotary positions of the patches were learned on (EVA-02); 0: there are none."""


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
    stem: tuple[tuple[int, int], ...] = ()
    """Convolutions in the place of one, each with (stride, channels) and without overlap (MobileCLIP-B); none: one convolution."""
    text_form: TextForm = TextForm()
    image_form: ImageForm = ImageForm()

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2
