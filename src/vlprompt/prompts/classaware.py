"""Tokens made of each class's own frozen feature, deep in the text tower: TCP (arXiv 2311.18231).

Letters: M context tokens, C classes, D text width, E joint embedding, H hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.prompts.layers import AUTO, NORMAL, STD, checked_depth, first_values, linear, require_tokens, text_place
from vlprompt.types import ModelFacts, Prompted, Reach, Splice, TextLayout

SHRINK = 4
"""The hidden width of the network is E / 4, as published."""


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
        checked_depth(layer + 1, {"text": facts.text_layers})
        ctx_MD = first_values(self.init, (self.n_ctx, facts.text_width), facts, generator, STD)
        hidden = max(1, facts.embed_dim // SHRINK)
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
        names = (f"{layer}.{kind}" for layer in ("linear1", "linear2") for kind in ("weight", "bias"))
        return {"ctx": text_place(0)} | dict.fromkeys(names, network)
