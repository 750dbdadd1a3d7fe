"""Networks after the image tower.

CLIP-Adapter (arXiv 2110.04544): a small network after the frozen tower. PromptKD (arXiv 2403.02781; zhengli97/PromptKD,
trainers/promptkd.py): image tokens, and a projector into the teacher's space, where the teacher's class features are.
Letters: B images, E joint embedding, F the teacher's, H hidden width, N prompt tokens, D image width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.errors import require, require_least
from vlprompt.prompts.layers import (
    AUTO,
    depths,
    linear,
    normal,
    numbered,
    places,
    require_image_prompts,
    require_tokens,
    spliced,
    uniform,
)
from vlprompt.types import ModelFacts, Prompted, Reach

MOMENTUM = 0.1
"""Share of a step in the running mean and variance."""


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
        require_least(self, 1, "reduction")
        require(0 < self.ratio <= 1, f"ratio={self.ratio}", "a number above 0, at most 1")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedSpec:
    """PromptKD's student. `width` is the teacher's, not an option; 0: no teacher yet, the model's own."""

    n_image: int = 4
    """N, the number of image tokens."""
    depth: int = field(default=AUTO, metadata={"words": {"auto": AUTO}})
    """How many layers of the image tower are prompted; "auto": three quarters (9 of 12)."""
    width: int = 0

    layout = None
    reach = Reach(image_tower=True, sees=frozenset({"chance"}), teachers_text=True)

    def __post_init__(self) -> None:
        require_tokens("n_image", self.n_image)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Projected:
        """N(0, 0.02) tokens, then the projector as PyTorch starts it. UserError: a ResNet, or a depth above the tower's layers."""
        require_image_prompts(facts, "coop")
        deep = depths(self.depth, {"image": facts.image_layers})
        layers = [normal((self.n_image, facts.image_width), generator) for _ in range(deep["image"])]
        width = self.width or facts.embed_dim
        return Projected(layers, uniform(width, facts.embed_dim, generator), linear(width, width, generator))


class Projected(nn.Module):
    """`image.L` (N, D) of each prompted layer L; `first` (F, E), batch normalisation, ReLU, `second` (F, F).

    The published first layer has a bias, which the normalisation takes away again: it is left out.
    """

    def __init__(self, layers: list[Tensor], first_FE: Tensor, second: nn.Linear) -> None:
        super().__init__()
        width = len(first_FE)
        self.image = numbered(layers)
        self.first = nn.Parameter(first_FE)
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.mean, self.variance = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.ones(width))
        self.second = second

    def forward(self, chance: int | None) -> Prompted:
        return Prompted(image=spliced(self.image), after_image=partial(self.projected, learning=chance is not None))

    def projected(self, image_BE: Tensor, *, learning: bool) -> Tensor:
        """(B, F). learning: by the mean and variance of these images, which the running ones then follow; one image is not enough."""
        running = self.mean.detach(), self.variance.detach()
        own = learning and len(image_BE) > 1
        hidden_BF = F.batch_norm(
            image_BE @ self.first.T, *running, self.scale, self.shift, training=own, momentum=MOMENTUM
        )
        out: Tensor = self.second(hidden_BF.relu())
        return out

    def places(self) -> dict[str, str]:
        normalised = "batch normalisation"
        parts = {"first": "first layer", "scale": normalised, "shift": normalised}
        parts |= {one: f"{normalised}: the running {one}, not learned by gradient" for one in ("mean", "variance")}
        parts |= dict.fromkeys(("second.weight", "second.bias"), "second layer")
        return places("image", self.image) | {name: f"after the image tower, {part}" for name, part in parts.items()}
