"""Nothing learned: frozen CLIP, whose class features come from sentences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vlprompt.types import BARE, ModelFacts, Prompted, Reach


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
