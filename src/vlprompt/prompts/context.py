"""Prompts of the text tower: none (frozen CLIP), or a context of M learned tokens in the token-embedding space.

The context may stand for all classes or each have its own (CoOp, arXiv 2109.01134), be shifted for every image (CoCoOp, arXiv 2203.05557),
or be followed by tokens of each class deeper in the tower (TCP, arXiv 2311.18231). Letters: B images, M context tokens, C classes, D text
width, E joint embedding, H hidden width.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.prompts.layers import AUTO, NORMAL, depths, first_values, linear, place, require_tokens
from vlprompt.types import BARE, Axis, ModelFacts, Position, Prompted, Reach, Splice, TextLayout

NETWORK = tuple(f"{layer}.{kind}" for layer in ("linear1", "linear2") for kind in ("weight", "bias"))
"""The parameters of a network of two layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareSpec:
    """Zero-shot's prompt, which has no options."""

    layout = None
    reach = Reach()

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Bare:
        return Bare()


class Bare(nn.Module):
    """A module without parameters."""

    def forward(self) -> Prompted:
        return BARE

    def places(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSpec:
    """CoOp's context."""

    n_ctx: int = 16
    """M, the number of context tokens."""
    init: str = NORMAL
    """`normal`: N(0, 0.02); `zeros + WORDS`: the words last, zeros before; else words that are `n_ctx` tokens long."""
    position: Position = "end"
    """Where the class name stands: end, middle or front."""
    per_class: bool = False
    """A context for each class (CoOp's class-specific context) instead of one for all."""
    words: str = ""
    """Fixed words between the context and a class name at the end (ProGrad's where its template has a comma)."""

    def __post_init__(self) -> None:
        if self.words and self.position != "end":
            raise UserError(
                f"words={self.words!r} stand before the class name, and position is {self.position}. Use position=end."
            )

    @property
    def reach(self) -> Reach:
        return Reach(own_classes=self.per_class)

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=self.n_ctx, position=self.position, words=self.words, shared=not self.per_class)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> ContextPrompt:
        """The module: (M, D) or (C, M, D) values from the generator, or the words' embeddings."""
        shape = (num_classes, self.n_ctx, facts.text_width) if self.per_class else (self.n_ctx, facts.text_width)
        return ContextPrompt(first_values(self.init, shape, facts, generator), self.layout)


class ContextPrompt(nn.Module):
    """One tensor, `ctx`."""

    def __init__(self, values: Tensor, layout: TextLayout) -> None:
        super().__init__()
        self.ctx = nn.Parameter(values)
        self.layout = layout

    def forward(self) -> Prompted:
        axis: Axis = "class" if self.ctx.dim() == 3 else "shared"
        return Prompted(text={0: Splice(q=self.ctx, axis=axis)}, layout=self.layout)

    def places(self) -> dict[str, str]:
        where = {"end": "before the class name", "middle": "around the class name", "front": "after the class name"}
        each = "one per class" if self.ctx.dim() == 3 else "shared by all classes"
        return {"ctx": f"text tower, layer 0, {where[self.layout.position]}, {each}"}


CONDITIONED, CLASS_AWARE = 16, 4
"""The hidden width of a network is E divided by this, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionedSpec:
    """CoCoOp's context and its network."""

    n_ctx: int = 4
    """M, the number of context tokens."""
    init: str = "a photo of a"
    """`normal`: N(0, 0.02); `zeros + WORDS`: the words last, zeros before; else words that are `n_ctx` tokens long."""

    reach = Reach(sees=frozenset({"image"}))

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=self.n_ctx)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> ConditionedPrompt:
        """The module: the context's first values, then the network's, drawn as PyTorch's `Linear` does."""
        ctx_MD = first_values(self.init, (self.n_ctx, facts.text_width), facts, generator)
        hidden = max(1, facts.embed_dim // CONDITIONED)
        layers = linear(facts.embed_dim, hidden, generator), nn.ReLU(), linear(hidden, facts.text_width, generator)
        named = OrderedDict(zip(("linear1", "relu", "linear2"), layers, strict=True))
        return ConditionedPrompt(ctx_MD, nn.Sequential(named), self.layout)


class ConditionedPrompt(nn.Module):
    """``p_i(x) = p_i + net(x / |x|)``: one shift per image for all context tokens."""

    def __init__(self, values: Tensor, meta_net: nn.Sequential, layout: TextLayout) -> None:
        super().__init__()
        self.ctx = nn.Parameter(values)
        self.meta_net = meta_net
        self.layout = layout

    def forward(self, image: Tensor) -> Prompted:
        shift_BD = self.meta_net(image.to(self.ctx.dtype))
        return Prompted(text={0: Splice(q=self.ctx + shift_BD[:, None], axis="image")}, layout=self.layout)

    def places(self) -> dict[str, str]:
        network = "shift of every context token, from the normalised image feature"
        return {"ctx": f"{place('text', 0)}, shared by all classes"} | {f"meta_net.{one}": network for one in NETWORK}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAwareSpec:
    """TCP's context and its network."""

    n_ctx: int = 4
    """M, the number of context tokens, and of each class's tokens."""
    init: str = NORMAL
    """`normal`: N(0, 0.02); `zeros + WORDS`: the words last, zeros before; else words that are `n_ctx` tokens long."""
    layer: int = field(default=AUTO, metadata={"words": {"auto": AUTO}})
    """How many layers run before a class's own tokens replace the context; "auto": two thirds of the tower (8 of 12)."""

    reach = Reach(sees=frozenset({"classes"}), deep_text=True)

    def __post_init__(self) -> None:
        require_tokens("n_ctx", self.n_ctx)

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=self.n_ctx, shared=False)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> ClassAwarePrompt:
        """The context's first values, then the network's, as PyTorch starts linear layers. UserError: a layer that is not there."""
        layer = self.layer or max(1, min(2 * facts.text_layers // 3, facts.text_layers - 1))
        depths(layer + 1, {"text": facts.text_layers})
        ctx_MD = first_values(self.init, (self.n_ctx, facts.text_width), facts, generator)
        hidden = max(1, facts.embed_dim // CLASS_AWARE)
        first = linear(facts.embed_dim, hidden, generator)
        return ClassAwarePrompt(ctx_MD, first, linear(hidden, self.n_ctx * facts.text_width, generator), layer)


class ClassAwarePrompt(nn.Module):
    """`ctx` (M, D), and the network `linear1`, QuickGELU, `linear2` from a class feature (E) to its tokens (M, D)."""

    def __init__(self, ctx_MD: Tensor, linear1: nn.Linear, linear2: nn.Linear, layer: int) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx_MD)
        self.linear1, self.linear2, self.layer = linear1, linear2, layer

    def forward(self, classes: Tensor) -> Prompted:
        hidden_CH = self.linear1(classes.to(self.ctx.dtype))
        own_CMD = self.linear2(hidden_CH * (1.702 * hidden_CH).sigmoid()).reshape(len(classes), *self.ctx.shape)
        text = {0: Splice(q=self.ctx), self.layer: Splice(q=own_CMD, axis="class")}
        return Prompted(text=text, layout=TextLayout(num_tokens=len(self.ctx), shared=False))

    def places(self) -> dict[str, str]:
        network = f"text tower, layer {self.layer}, each class's tokens in place of the layer before's, from its frozen feature"
        return {"ctx": place("text", 0)} | dict.fromkeys(NETWORK, network)
