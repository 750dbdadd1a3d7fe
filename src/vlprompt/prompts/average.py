"""Which average of the prompts after each epoch is the result (PromptSRC, arXiv 2307.06948, section 3.3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlprompt.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianAverage:
    """Weights ``w_t = N(t; mean, std) / sum``, t = 1 .. epochs; mean and std are scaled where a run has other `epochs`."""

    mean: float
    """In epochs, of `epochs`."""
    std: float
    epochs: int
    """The number of epochs that mean and std are given for."""

    def __post_init__(self) -> None:
        if self.std <= 0 or self.epochs < 1:
            raise UserError(
                f"average_std={self.std}, average_epochs={self.epochs}: std must be above 0, and epochs at least 1."
            )

    def __str__(self) -> str:
        """For people."""
        of = f"of {self.epochs} epochs, scaled to the run's"
        return f"the mean of the prompts after each epoch t, weighted by N(t; {self.mean:g}, {self.std:g}) {of}"

    def weights(self, epochs: int) -> Sequence[float]:
        """One per epoch, summing to 1; taken in log space, so that no choice of mean and std divides by 0."""
        scale = epochs / self.epochs
        mean, std = self.mean * scale, self.std * scale
        logs = [-0.5 * ((t - mean) / std) ** 2 for t in range(1, epochs + 1)]
        most = max(logs)
        parts = [math.exp(one - most) for one in logs]
        total = sum(parts)
        return tuple(part / total for part in parts)
