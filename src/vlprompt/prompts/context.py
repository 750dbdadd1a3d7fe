"""The text context: M learned tokens in the token-embedding space (CoOp, arXiv 2109.01134).

Letters: M context tokens, C classes, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.prompts.layers import NORMAL, STD, first_values
from vlprompt.types import Axis, ModelFacts, Position, Prompted, Reach, Splice, TextLayout


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
        return ContextPrompt(first_values(self.init, shape, facts, generator, STD), self.layout)


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
