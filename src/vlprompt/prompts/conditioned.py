"""A text context that depends on the image: CoCoOp (arXiv 2203.05557).

Letters: B images, M context tokens, D text width, E joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprompt.prompts.layers import STD, first_values
from vlprompt.types import ModelFacts, Prompted, Reach, Splice, TextLayout

SHRINK = 16
"""The hidden width of the network is E / 16, as published."""


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
        ctx_MD = first_values(self.init, (self.n_ctx, facts.text_width), facts, generator, STD)
        hidden = max(1, facts.embed_dim // SHRINK)
        return ConditionedPrompt(ctx_MD, MetaNet(facts.embed_dim, hidden, facts.text_width, generator), self.layout)


class MetaNet(nn.Module):
    """Linear(E -> E / 16), ReLU, Linear(E / 16 -> D)."""

    def __init__(self, embed_dim: int, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden), nn.Linear(hidden, width)
        with torch.no_grad():
            for layer in (self.linear1, self.linear2):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x_BE: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.linear1(x_BE).relu())
        return out


class ConditionedPrompt(nn.Module):
    """``p_i(x) = p_i + net(x / |x|)``: one shift per image for all context tokens."""

    def __init__(self, values: Tensor, meta_net: MetaNet, layout: TextLayout) -> None:
        super().__init__()
        self.ctx = nn.Parameter(values)
        self.meta_net = meta_net
        self.layout = layout

    def forward(self, image: Tensor) -> Prompted:
        shift_BD = self.meta_net(image.to(self.ctx.dtype))
        return Prompted(text={0: Splice(q=self.ctx + shift_BD[:, None], axis="image")}, layout=self.layout)

    def places(self) -> dict[str, str]:
        network = "shift of every context token, from the normalised image feature"
        names = (f"meta_net.{layer}.{kind}" for layer in ("linear1", "linear2") for kind in ("weight", "bias"))
        return {"ctx": "text tower, layer 0, before the class name, shared by all classes"} | dict.fromkeys(
            names, network
        )
