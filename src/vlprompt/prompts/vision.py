"""Image tokens after the patches; the text side is the template, frozen (the VPT baseline of the CLIP literature).

Letters: N prompt tokens, D image width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vlprompt.prompts.layers import (
    ALL,
    checked_depth,
    image_place,
    normal,
    numbered,
    require_image_prompts,
    require_tokens,
)
from vlprompt.types import ModelFacts, Prompted, Reach, Splice, TextLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSpec:
    """VPT's image tokens."""

    n_image: int = 8
    """N, the number of image tokens."""
    depth: int = field(default=ALL, metadata={"words": {"all": ALL}})
    """How many layers of the image tower are prompted, counted from the first: 1 is shallow, "all" deep."""

    def __post_init__(self) -> None:
        require_tokens("n_image", self.n_image)

    @property
    def layout(self) -> TextLayout | None:
        return None

    reach = Reach(image_tower=True)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> VisionPrompt:
        """N(0, 0.02) tokens for each prompted layer. UserError: a ResNet, or a depth above the tower's layers."""
        require_image_prompts(facts, "coop")
        depth = self.depth or facts.image_layers
        checked_depth(depth, {"image": facts.image_layers})
        return VisionPrompt([normal((self.n_image, facts.image_width), generator) for _ in range(depth)])


class VisionPrompt(nn.Module):
    """`image.L` (N, D) for each prompted layer L."""

    def __init__(self, layers: list[Tensor]) -> None:
        super().__init__()
        self.image = numbered(layers)

    def forward(self) -> Prompted:
        return Prompted(image={int(layer): Splice(q=tokens) for layer, tokens in self.image.items()})

    def places(self) -> dict[str, str]:
        return {f"image.{layer}": image_place(int(layer)) for layer in self.image}
