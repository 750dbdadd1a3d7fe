"""Tokens in the image tower (VPT), or in both: independent (IVLP), or the image's a linear image of the text's (MaPLe).

Letters: M text tokens, N image tokens, D width of a tower.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.prompts.layers import (
    ALL,
    AUTO,
    WORDS,
    depths,
    fixed_words,
    linear,
    normal,
    numbered,
    place,
    places,
    require_image_prompts,
    require_tokens,
    spliced,
    start_context,
)
from vlprompt.types import ModelFacts, Prompted, Reach, Splice, TextLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSpec:
    """VPT's image tokens after the patches; the text side is the template, frozen (the VPT baseline of the CLIP literature)."""

    n_image: int = 8
    """N, the number of image tokens."""
    depth: int = field(default=ALL, metadata={"words": {"all": ALL}})
    """How many layers of the image tower are prompted, counted from the first: 1 is shallow, "all" deep."""

    layout = None
    reach = Reach(image_tower=True)

    def __post_init__(self) -> None:
        require_tokens("n_image", self.n_image)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> IndependentPrompt:
        """N(0, 0.02) tokens for each prompted layer. UserError: a ResNet, or a depth above the tower's layers."""
        require_image_prompts(facts, "coop")
        deep = depths(self.depth or facts.image_layers, {"image": facts.image_layers})
        image = [normal((self.n_image, facts.image_width), generator) for _ in range(deep["image"])]
        return IndependentPrompt(None, [], image, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndependentSpec:
    """IVLP's independent tokens in both towers; PromptSRC's too."""

    n_ctx: int = 4
    """M, the number of text tokens."""
    n_image: int = 4
    """N, the number of image tokens."""
    depth: int = field(default=AUTO, metadata={"words": {"auto": AUTO}})
    """How many layers of each tower are prompted; "auto": three quarters of each tower (9 of 12)."""
    init: str = WORDS
    """`normal`: N(0, 0.02); anything else: words whose first `n_ctx` start the text context, the rest staying fixed behind it."""

    def __post_init__(self) -> None:
        require_tokens("n_ctx", self.n_ctx)
        require_tokens("n_image", self.n_image)

    @property
    def reach(self) -> Reach:
        return Reach(image_tower=True, deep_text=self.depth != 1)

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=self.n_ctx, words=fixed_words(self.init, self.n_ctx))

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> IndependentPrompt:
        """The context from its words, all else N(0, 0.02). UserError: a ResNet, or a depth above a tower's layers."""
        require_image_prompts(facts, "coop")
        deep = depths(self.depth, {"text": facts.text_layers, "image": facts.image_layers})
        return IndependentPrompt(
            start_context(self.init, self.n_ctx, facts, generator),
            [normal((self.n_ctx, facts.text_width), generator) for _ in range(1, deep["text"])],
            [normal((self.n_image, facts.image_width), generator) for _ in range(deep["image"])],
            self.layout,
        )


class IndependentPrompt(nn.Module):
    """`ctx` (M, D) for text layer 0 (None: a frozen template), `text.L` (M, D) for deeper ones, `image.L` (N, D) for image layers."""

    def __init__(self, ctx: Tensor | None, text: list[Tensor], image: list[Tensor], layout: TextLayout | None) -> None:
        super().__init__()
        self.ctx = None if ctx is None else nn.Parameter(ctx)
        self.text = numbered(text, start=1)
        self.image = numbered(image)
        self.layout = layout

    def forward(self) -> Prompted:
        first = {} if self.ctx is None else {0: Splice(q=self.ctx)}
        return Prompted(text=first | spliced(self.text), image=spliced(self.image), layout=self.layout)

    def places(self) -> dict[str, str]:
        first = {} if self.ctx is None else {"ctx": place("text", 0)}
        return first | places("text", self.text) | places("image", self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledSpec:
    """MaPLe's text tokens and their linear images."""

    n_ctx: int = 2
    """M, the number of text tokens, and of image tokens."""
    depth: int = field(default=AUTO, metadata={"words": {"auto": AUTO}})
    """How many layers of both towers are prompted; "auto": three quarters of the smaller tower (9 of 12)."""
    init: str = WORDS
    """`normal`: N(0, 0.02); anything else: words whose first `n_ctx` start the text context, the rest staying fixed behind it."""

    def __post_init__(self) -> None:
        require_tokens("n_ctx", self.n_ctx)

    @property
    def reach(self) -> Reach:
        return Reach(image_tower=True, deep_text=self.depth != 1)

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=self.n_ctx, words=fixed_words(self.init, self.n_ctx))

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> CoupledPrompt:
        """The context from its words, deeper tokens N(0, 0.02), projections as PyTorch starts linear layers; those of the deeper
        layers start as copies of one (MaPLe's code). UserError: a ResNet, or a depth above the smaller tower's layers."""
        require_image_prompts(facts, "coop")
        depth = min(depths(self.depth, {"text": facts.text_layers, "image": facts.image_layers}).values())
        ctx_MD = start_context(self.init, self.n_ctx, facts, generator)
        text = [normal((self.n_ctx, facts.text_width), generator) for _ in range(1, depth)]
        first, deeper = (linear(facts.text_width, facts.image_width, generator) for _ in range(2))
        return CoupledPrompt(ctx_MD, text, [first, *(copy.deepcopy(deeper) for _ in text)], self.layout)


class CoupledPrompt(nn.Module):
    """`ctx` (M, D) for layer 0, `text.L` (M, D) for deeper ones, and `proj.L`, the linear layer to the image tokens of layer L."""

    def __init__(self, ctx_MD: Tensor, text: list[Tensor], proj: list[nn.Linear], layout: TextLayout) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx_MD)
        self.text = numbered(text, start=1)
        self.proj = nn.ModuleList(proj)
        self.layout = layout

    def forward(self) -> Prompted:
        text = {0: Splice(q=self.ctx)} | spliced(self.text)
        image = {layer: Splice(q=self.proj[layer](one.q)) for layer, one in text.items()}
        return Prompted(text=text, image=image, layout=self.layout)

    def places(self) -> dict[str, str]:
        found = {"ctx": place("text", 0)} | places("text", self.text)
        for layer in range(len(self.proj)):
            source = "ctx" if layer == 0 else f"text.{layer}"
            found |= {f"proj.{layer}.{part}": f"{source} -> {place('image', layer)}" for part in ("weight", "bias")}
        return found
