"""A small network after the frozen image tower: CLIP-Adapter (arXiv 2110.04544).

Letters: B images, E joint embedding, H hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.prompts.layers import uniform
from vlprompt.types import ModelFacts, Prompted, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """CLIP-Adapter's network."""

    reduction: int = 4
    """The hidden width is E divided by this."""
    ratio: float = 0.2
    """The network's share of the image feature; the rest is the frozen tower's."""

    layout = None
    reach = Reach()

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise UserError(f"reduction={self.reduction}: it must be a whole number of at least 1.")
        if not 0 < self.ratio <= 1:
            raise UserError(f"ratio={self.ratio}: it must be a number above 0, at most 1.")

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Adapter:
        """Both layers as PyTorch starts them, without biases (as published)."""
        width, hidden = facts.embed_dim, max(1, facts.embed_dim // self.reduction)
        return Adapter(uniform(hidden, width, generator), uniform(width, hidden, generator), self.ratio)


class Adapter(nn.Module):
    """``ratio relu(up relu(down x)) + (1 - ratio) x`` of the un-normalised image feature x."""

    def __init__(self, down_HE: Tensor, up_EH: Tensor, ratio: float) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down_HE), nn.Parameter(up_EH)
        self.ratio = ratio

    def forward(self) -> Prompted:
        return Prompted(after_image=self.adapted)

    def adapted(self, image_BE: Tensor) -> Tensor:
        """The mixture."""
        hidden_BH = (image_BE @ self.down.T).relu()
        return self.ratio * (hidden_BH @ self.up.T).relu() + (1 - self.ratio) * image_BE

    def places(self) -> dict[str, str]:
        return {"down": "after the image tower, first layer", "up": "after the image tower, second layer"}
