"""The linear probe: logistic regression on the frozen, un-normalised image features, as CoOp's comparison runs it.

Source: CLIP, arXiv 2103.00020; KaiyangZhou/CoOp, lpclip/linear_probe.py. Letters: N images, C classes, E joint embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vlprompt.errors import data_error, require, require_least
from vlprompt.types import Given, ModelFacts, Prompted, Reach

COARSE = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
"""The first values of C that are tried; a tie goes to the one that comes first."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """What may be chosen about the linear probe."""

    C: float = field(default=0.0, metadata={"words": {"search": 0.0}})
    """The inverse weight of the L2 penalty, or "search": by accuracy on the few-shot validation images."""
    steps: int = 8
    """Halvings of the interval of log10 C after the coarse search."""

    def __post_init__(self) -> None:
        require(self.C >= 0, f"C={self.C}", '"search" or a number above 0')
        require_least(self, 0, "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSpec:
    """The linear classifier, which compares with no class features."""

    layout = None
    reach = Reach(own_classes=True, reads_text=False)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> Linear:
        return Linear(facts.embed_dim, num_classes)


class Linear(nn.Module):
    """Un-normalised image features (B, E) -> logits (B, C)."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes, embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self) -> Prompted:
        return Prompted(score=lambda image, text, scale: self.logits(image.pooled))

    def logits(self, features_BE: Tensor) -> Tensor:
        return nn.functional.linear(features_BE.float(), self.weight, self.bias)

    def places(self) -> dict[str, str]:
        return {
            "weight": "after the image tower, one row per class, on the un-normalised feature",
            "bias": "after the image tower, one number per class",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A `types.Solver`."""

    options: ProbeOptions

    @property
    def formula(self) -> str:
        return "min_(W, b) |W|^2 / 2 + C sum_n -log softmax(W x_n + b)[label_n], x un-normalised"

    def solve(self, module: Linear, given: Given) -> str:
        """Fit by scikit-learn's L-BFGS in float64 (at most 1000 iterations), C given or searched. UserError: C is to be
        searched without validation images."""
        train, val = given.train, given.val
        if not self.options.C and len(val[1]) == 0:
            raise data_error("linear-probe chooses C on validation images, and there are none. Give C: --set C=1.")

        @cache
        def fit(strength: float) -> tuple[float, Any]:
            """The accuracy on the validation images and the classifier."""
            fitted = _fit(train, strength)
            return (float(fitted.score(*_arrays(val))) if len(val[1]) else 0.0), fitted

        found = (self.options.C, *fit(self.options.C)) if self.options.C else search(fit, self.options.steps)
        strength, accuracy, fitted = found
        _fill(module, fitted)
        how = f", by accuracy on {len(val[1])} validation images ({100 * accuracy:.1f} %)" if not self.options.C else ""
        return f"linear probe: C = {strength:.3g}{how}."


def search(fit: Callable[[float], tuple[float, Any]], steps: int) -> tuple[float, float, Any]:
    """C, its accuracy and its classifier: the best of `COARSE`, then `steps` halvings of log10 C.

    The halvings start from a tenth and ten times the best. Each keeps the better end (the smaller C if they are equal) and the
    half of the interval next to it. What the last one kept is the answer, as published; without steps the coarse one's.
    """
    tried = [(strength, *fit(strength)) for strength in COARSE]
    best = max(tried, key=lambda one: one[1])
    low, high = best[0] / 10, best[0] * 10
    for _ in range(steps):
        left, right = (low, *fit(low)), (high, *fit(high))
        middle = (low * high) ** 0.5
        if left[1] < right[1]:
            best, low = right, middle
        else:
            best, high = left, middle
    return best


def _arrays(part: tuple[Tensor, Tensor]) -> tuple[Any, Any]:
    """In float64, as published: in float32 scikit-learn's L-BFGS stops long before the minimum where C is small."""
    return part[0].cpu().double().numpy(), part[1].cpu().numpy()


def _fit(train: tuple[Tensor, Tensor], strength: float) -> Any:
    """A fitted scikit-learn classifier (imported here: it takes longer to import than the commands that need it not)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published limit of iterations is part of the method
        return LogisticRegression(solver="lbfgs", max_iter=MAX_ITERATIONS, C=strength).fit(*_arrays(train))


def _fill(module: Linear, fitted: Any) -> None:
    """Two classes have one row in scikit-learn: the logit of the second; the first's is 0."""
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    assert weight.shape == module.weight.shape, "a class without training images"
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)
