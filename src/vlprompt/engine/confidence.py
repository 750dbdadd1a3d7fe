"""How sure an answer is: a temperature that makes probabilities honest, and a threshold below which a picture is of none of the classes.

Both are found on validation images. Letters: N images, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEWEST = 10
"""Validation images from which something is fitted (project's choice)."""
COLDEST, HOTTEST = 0.2, 20.0
"""Bounds of the temperature: a few images that are all answered rightly ask for no end of certainty (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What validation images say of a prompt's probabilities."""

    temperature: float = 1.0
    """Logits are divided by it before the softmax."""
    reject_below: float | None = None
    """The suggested threshold of the highest probability; None: not measured."""
    reject_auroc: float | None = None
    """Percent: how well it tells images of the classes from images of a left-out one; 50 is chance."""

    @property
    def facts(self) -> dict[str, float]:
        """What an artifact keeps of it."""
        values = {
            "temperature": self.temperature if self.temperature != 1.0 else None,
            "reject_below": self.reject_below,
        }
        return {name: value for name, value in values.items() if value is not None}


def confidence_of(logits_NC: Tensor, label_N: NDArray[np.int64]) -> Confidence:
    """The temperature, and the threshold at that temperature. Nothing is fitted on fewer than `FEWEST` images."""
    if len(label_N) < FEWEST or logits_NC.shape[1] < 2:
        return Confidence()
    temperature = fit_temperature(logits_NC, label_N)
    below, auroc = rejection(logits_NC / temperature, label_N)
    return Confidence(temperature=temperature, reject_below=below, reject_auroc=auroc)


def fit_temperature(logits_NC: Tensor, label_N: NDArray[np.int64]) -> float:
    """The temperature of the least negative log-likelihood, within `COLDEST` and `HOTTEST`.

    Source: Guo et al., arXiv 1706.04599, sec. 4.2. The loss is convex in 1 / T, so its slope, the mean of E_p[z] - z_label, is bisected.
    """
    z_NC = logits_NC.double()
    own_N = z_NC[torch.arange(len(z_NC)), torch.from_numpy(label_N)]

    def slope(inverse: float) -> float:
        return float(((torch.softmax(inverse * z_NC, -1) * z_NC).sum(-1) - own_N).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def rejection(logits_NC: Tensor, label_N: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """(threshold of the highest probability, AUROC in percent) for images of a class that is not in the list.

    Each class in turn is taken out of the list: its images are then of none of the classes, the others are not. The prompt has learned
    from the class that is taken out, so the AUROC is a little too good. The threshold has the largest sum of both rates of right
    decisions (Youden's J; project's choice). (None, None) where fewer than three classes, or images of one class alone, are there.
    """
    from sklearn.metrics import roc_curve  # here, since it takes a second and `predict` does not need it

    p_NC = torch.softmax(logits_NC.double(), -1).numpy()
    count, classes = p_NC.shape
    if classes < 3 or len(np.unique(label_N)) < 2:
        return None, None
    top = np.sort(p_NC, axis=1)[:, -2:]
    best_NC = np.where(np.arange(classes) == p_NC.argmax(1)[:, None], top[:, :1], top[:, 1:])  # of the other classes
    surest_NC = best_NC / np.maximum(1 - p_NC, 1e-12)  # the highest probability once a class is left out
    own_NC = np.arange(classes) == label_N[:, None]
    left_out = np.isin(np.arange(classes), label_N)
    known_NC = ~own_NC & left_out
    score = np.concatenate([surest_NC[known_NC], surest_NC[own_NC]])
    truth = np.concatenate([np.ones(known_NC.sum(), dtype=bool), np.zeros(count, dtype=bool)])
    wrong, right, threshold = roc_curve(truth, score)
    found = threshold[int(np.argmax(right - wrong))]
    return float(np.clip(found, 0.0, 1.0)), float(100 * np.trapezoid(right, wrong))
