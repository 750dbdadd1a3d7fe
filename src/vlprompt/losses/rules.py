"""How several losses become one gradient (ProGrad, arXiv 2205.14865), and the prompts of all epochs one (PromptSRC)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import UserError, require, require_least
from vlprompt.types import Term, View

TEACHER = "teacher"
"""The name of the term whose gradient says the general direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProGradOptions:
    """What may be chosen about ProGrad."""

    strength: float = 1.0
    """lambda, how much of the part that works against the teacher's direction is taken away; 0: nothing."""
    temperature: float = 1.0
    """T, of the teacher's and the learned answers in the teacher's loss."""

    def __post_init__(self) -> None:
        require_least(self, 0, "strength")
        require(self.temperature > 0, f"temperature={self.temperature}", "a number above 0")


def teacher_term(temperature: float) -> Term:
    """Cross-entropy against zero-shot CLIP's answers, times T^2; its gradient is the KL divergence's.

    ``-(T^2/B) sum_b sum_c softmax(teacher_b / T)_c log softmax(logits_b / T)_c``. Source: BeierZhu/Prompt-align,
    ProGrad.public/trainers/prograd.py.
    """

    def score(view: View) -> Tensor:
        assert view.teacher is not None
        assert view.teacher.logits is not None
        soft_BC = (view.teacher.logits / temperature).softmax(dim=-1)
        return F.cross_entropy(view.logits / temperature, soft_BC) * temperature**2

    return Term(
        name=TEACHER,
        score=score,
        needs=frozenset({"teacher_logits"}),
        formula=f"L_teacher = -(T^2/B) sum_b sum_c softmax(zero-shot_b / T)_c log softmax(logits_b / T)_c, T = {temperature:g}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A `types.Rule`: the gradient of all other losses, without its part against the teacher's direction.

    Per learned tensor, g of the others' sum and h of the teacher's: ``g - lambda <g, u> u`` with ``u = h / |h|`` where
    ``<g, h> < 0``, else g. h itself is never added. Source: ProGrad, arXiv 2205.14865, eq. 4, and its code.
    """

    strength: float = 1.0

    def groups(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The sum of all other terms (cross-entropy, and an overlay's), and the teacher's."""
        others = [loss for name, loss in losses.items() if name != TEACHER]
        return torch.stack(others).sum(), losses[TEACHER]

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        own, general = gradients
        along = (own * general).sum()
        projected = own - self.strength * along / general.square().sum() * general
        return torch.where(along >= 0, own, projected)  # own also where either is zero; no answer is waited for

    def __str__(self) -> str:
        return (
            f"per tensor, of all terms but L_teacher, without its part against L_teacher's (lambda = {self.strength:g})"
        )


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
        of = f"of {self.epochs} epochs, scaled to the run's"
        return f"the mean of the prompts after each epoch t, weighted by N(t; {self.mean:g}, {self.std:g}) {of}"

    def weights(self, epochs: int) -> Sequence[float]:
        """One per epoch, summing to 1; taken in log space, so no choice of mean and std divides by 0."""
        scale = epochs / self.epochs
        mean, std = self.mean * scale, self.std * scale
        logs = [-0.5 * ((t - mean) / std) ** 2 for t in range(1, epochs + 1)]
        most = max(logs)
        parts = [math.exp(one - most) for one in logs]
        total = sum(parts)
        return tuple(part / total for part in parts)
