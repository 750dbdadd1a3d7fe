"""Low-rank changes of the towers' weights: CLIP-LoRA (arXiv 2405.18541).

Letters: R rank, D width of a tower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vlprompt.errors import require, require_least
from vlprompt.prompts.layers import require_image_prompts, uniform
from vlprompt.types import LowRank, ModelFacts, Prompted, Reach, WeightPart

NAMES: dict[str, WeightPart] = {"q": "q", "k": "k", "v": "v", "o": "o"}
WORDS = {"q": "queries", "k": "keys", "v": "values", "o": "output"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankSpec:
    """CLIP-LoRA's changes of attention."""

    rank: int = 2
    """R, the rank of each change."""
    alpha: float = 1.0
    """Each change is multiplied by alpha / sqrt(R)."""
    dropout: float = 0.25
    """The share of a change's inputs that is dropped in a step of learning."""
    matrices: str = "qkv"
    """The matrices of attention that are changed: letters of q, k, v and o."""
    towers: Literal["both", "text", "image"] = "both"
    """The towers whose layers are changed, all of them."""

    layout = None

    def __post_init__(self) -> None:
        require_least(self, 1, "rank")
        require(0 <= self.dropout < 1, f"dropout={self.dropout}", "a number from 0 to below 1")
        letters = set(self.matrices)
        allowed = bool(letters) and letters <= set(NAMES) and len(letters) == len(self.matrices)
        require(allowed, f"matrices={self.matrices}", "some of the letters q, k, v, o, each once, for example qkv")

    @property
    def reach(self) -> Reach:
        image, text = self.towers != "text", self.towers != "image"
        return Reach(sees=frozenset({"chance"}), image_tower=image, text_tower=text)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> LowRankPrompt:
        """`down` as PyTorch starts a linear layer, `up` of zeros (as published): frozen CLIP, to begin with. UserError: a ResNet."""
        if self.towers != "text":
            require_image_prompts(facts, "clip-lora with --set towers=text")
        sizes = {"text": (facts.text_layers, facts.text_width), "image": (facts.image_layers, facts.image_width)}
        return LowRankPrompt(self, {one: sizes[one] for one in sizes if self.towers in ("both", one)}, generator)


class LowRankPrompt(nn.Module):
    """`TOWER.L.PART.down` (R, D) and `.up` (D, R) for each layer L and matrix PART of a tower."""

    def __init__(self, spec: LowRankSpec, sizes: dict[str, tuple[int, int]], generator: torch.Generator) -> None:
        super().__init__()
        self.scale, self.dropout = spec.alpha / spec.rank**0.5, spec.dropout
        self.text, self.image = nn.ModuleDict(), nn.ModuleDict()
        for tower, (layers, width) in sizes.items():
            for layer in range(layers):
                parts = getattr(self, tower)[str(layer)] = nn.ModuleDict()
                for part in spec.matrices:
                    pair = parts[part] = nn.ParameterDict()
                    pair["down"] = nn.Parameter(uniform(spec.rank, width, generator))
                    pair["up"] = nn.Parameter(torch.zeros(width, spec.rank))

    def forward(self, chance: int | None) -> Prompted:
        weights: dict[tuple[Literal["text", "image"], int, WeightPart], LowRank] = {}
        towers: tuple[Literal["text", "image"], ...] = ("text", "image")
        for tower in towers:
            for layer, parts in getattr(self, tower).items():
                for part, pair in parts.items():
                    number = len(weights)  # no two changes drop the same numbers
                    drop = 0.0 if chance is None else self.dropout
                    seed = 0 if chance is None else (chance + number) % 2**63
                    weights[tower, int(layer), NAMES[part]] = LowRank(
                        down=pair["down"], up=pair["up"], scale=self.scale, drop=drop, seed=seed
                    )
        return Prompted(weights=weights)

    def places(self) -> dict[str, str]:
        found = {}
        for name, _ in self.named_parameters():
            tower, layer, part, side = name.split(".")
            found[name] = f"{tower} tower, layer {layer}, weights of attention's {WORDS[part]}, {side}"
        return found
