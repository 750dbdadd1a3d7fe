"""A context that learns from each test image alone: TPT (arXiv 2209.07511).

Letters: V views of an image, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError, require_least


@dataclass(frozen=True, slots=True, kw_only=True)
class TptOptions:
    """What may be chosen about TPT."""

    views: int = 63
    """Random views of the test image, in addition to its test view."""
    share: float = 0.1
    """The share of the views that count: the most certain ones."""
    steps: int = 1
    """Steps for each image."""
    rate: float = 0.005
    """Learning rate of AdamW."""

    def __post_init__(self) -> None:
        require_least(self, 1, "views", "steps")
        require_least(self, 0, "rate")
        if not 0 < self.share <= 1 or int((self.views + 1) * self.share) < 1:
            raise UserError(
                f"share={self.share}: it must leave one of {self.views + 1} views at least, and be at most 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpt:
    """A `types.AtTest`: AdamW from the same start for each image; which views count is chosen once, before the first step."""

    options: TptOptions

    @property
    def views(self) -> int:
        return self.options.views

    def adapt(self, module: nn.Module, answers: Callable[[], Tensor]) -> None:
        parameters = list(module.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=self.options.rate, foreach=False)
        chosen = None
        for _ in range(self.options.steps):
            logits_VC = answers()
            if chosen is None:
                number = int(len(logits_VC) * self.options.share)
                chosen = entropy(logits_VC.log_softmax(-1)).argsort()[:number]
            found = torch.autograd.grad(mean_entropy(logits_VC[chosen]), parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            optimiser.step()


def entropy(logs_VC: Tensor) -> Tensor:
    """Of log-probabilities over classes, (V,)."""
    return -(logs_VC.exp() * logs_VC).sum(dim=-1)


def mean_entropy(logits_VC: Tensor) -> Tensor:
    """The entropy of the mean of the views' probabilities, a scalar."""
    logs_VC = logits_VC.log_softmax(dim=-1)
    mean_C = logs_VC.logsumexp(dim=0) - math.log(len(logs_VC))
    return entropy(mean_C.clamp(min=torch.finfo(mean_C.dtype).min))
