"""Images with several labels each: what is learned from, what is answered, and what the answers are worth.

Letters: N images, C classes. The loss is `losses.classify.binary`. Bias and thresholds are found on validation images, else on
training images; all of it is the project's choice, with the literature's measure (mAP).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprompt.artifact import Learned
from vlprompt.data import Sample
from vlprompt.errors import UserError
from vlprompt.losses.classify import CROSS_ENTROPY, bias_of
from vlprompt.types import Fit, Method, Steps

DRAWS = 400
"""Bootstrap samples (project's choice)."""
EVEN = 0.5
"""The threshold of a class that no validation image has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """How a prompt's scores become a set of classes: every class whose ``sigmoid(logit - bias)`` reaches its threshold."""

    bias: float
    thresholds: Mapping[str, float]
    """By class name; a class that was not learned has `EVEN`."""

    @property
    def facts(self) -> dict[str, object]:
        """What an artifact keeps of it."""
        return {"bias": self.bias, "thresholds": dict(self.thresholds)}

    def probabilities(self, logits_NC: Tensor) -> NDArray[np.float32]:
        """(N, C): of every class by itself; a row does not add up to 1."""
        out: NDArray[np.float32] = torch.sigmoid(logits_NC.float() - self.bias).numpy()
        return out

    def chosen(self, probability_NC: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.bool_]:
        """(N, C): the classes of every image."""
        return probability_NC >= np.array([self.thresholds.get(name, EVEN) for name in names])

    def measured(self, logits_NC: Tensor, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, Any]:
        """Fields of a record, percent: `per_class` and `mean_ap` (average precision), `macro_f1` at the thresholds, `top1`."""
        truth_NC = targets(samples, len(names), several=True).numpy().astype(bool)
        chosen_NC = self.chosen(self.probabilities(logits_NC), names)
        each = average_precision(logits_NC, truth_NC)
        both_C, either_C = (truth_NC & chosen_NC).sum(0), truth_NC.sum(0) + chosen_NC.sum(0)
        there = list(each)
        return {
            "mean_ap": float(np.mean(list(each.values()))),
            "per_class": {names[label]: value for label, value in each.items()},
            "macro_f1": float(100 * np.mean(2 * both_C[there] / either_C[there])),
            "top1": float(100 * right_of(logits_NC, samples).mean()),
        }

    def against(
        self, words_NC: Tensor, logits_NC: Tensor, samples: Sequence[Sample], names: Sequence[str]
    ) -> dict[str, Any]:
        """Fields of a record: `hand_written_ap`, and `ap_gain_error`, the error of the gain over it."""
        truth_NC = targets(samples, len(names), several=True).numpy().astype(bool)
        words_ap = self.measured(words_NC, samples, names)["mean_ap"]
        return {"hand_written_ap": words_ap, "ap_gain_error": gain_error(logits_NC, words_NC, truth_NC)}


def of(learned: Learned) -> Several | None:
    """None: the prompt was learned from images of one class each."""
    thresholds = learned.facts.get("thresholds")
    return None if thresholds is None else Several(bias=float(learned.facts["bias"]), thresholds=thresholds)


def targets(samples: Sequence[Sample], num_classes: int, *, several: bool) -> Tensor:
    """What the losses read: (N,) int64, an index each; several: (N, C) float32, 1 for every class of the image."""
    if not several:
        return torch.tensor([sample.label for sample in samples])
    out_NC = torch.zeros(len(samples), num_classes)
    for row, sample in zip(out_NC, samples, strict=True):
        row[list(sample.labels)] = 1
    return out_NC


def right_of(logits_NC: Tensor, samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """(N,) whether the first answer is the image's class, or one of its classes."""
    pairs = zip(logits_NC.argmax(1).tolist(), samples, strict=True)
    return np.array([first in sample.labels for first, sample in pairs], dtype=bool)


def average_precision(logits_NC: Tensor, truth_NC: NDArray[np.bool_]) -> dict[int, float]:
    """Class -> average precision, percent, of the classes that some image has (the sum over recall steps of precision)."""
    from sklearn.metrics import average_precision_score  # here, since it takes a second and `predict` does not need it

    score_NC = logits_NC.double().numpy()
    there = np.flatnonzero(truth_NC.any(0)).tolist()
    return {label: float(100 * average_precision_score(truth_NC[:, label], score_NC[:, label])) for label in there}


def gain_error(logits_NC: Tensor, against_NC: Tensor, truth_NC: NDArray[np.bool_]) -> float:
    """The standard error of the gain in mean average precision, points: its standard deviation over `DRAWS` bootstrap samples of the
    images, the same ones for both (Efron and Tibshirani 1993, chapter 6). A class that a sample lacks is left out of its mean."""
    weights_BN = np.random.default_rng(0).multinomial(len(truth_NC), np.full(len(truth_NC), 1 / len(truth_NC)), DRAWS)
    gains_CB = [
        _precision(logits_NC[:, label], truth_NC[:, label], weights_BN)
        - _precision(against_NC[:, label], truth_NC[:, label], weights_BN)
        for label in np.flatnonzero(truth_NC.any(0)).tolist()
    ]
    return float(100 * np.nanmean(gains_CB, axis=0).std(ddof=1))


def _precision(score_N: Tensor, truth_N: NDArray[np.bool_], weights_BN: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) average precision where image n counts `weights_BN[b, n]` times; NaN where no image of weight has the class."""
    order = torch.argsort(-score_N.double(), stable=True).numpy()
    ordered_N = score_N.double().numpy()[order]
    ends = np.flatnonzero(np.append(ordered_N[1:] < ordered_N[:-1], True))  # images of one score are taken together
    taken_BN = weights_BN[:, order]
    hits_BE = (taken_BN * truth_N[order]).cumsum(1)[:, ends].astype(np.float64)
    all_BE = np.maximum(taken_BN.cumsum(1)[:, ends], 1)
    steps_BE = np.diff(hits_BE, axis=1, prepend=0.0)
    total_B = hits_BE[:, -1]
    sums_B = (steps_BE * hits_BE / all_BE).sum(1)
    out: NDArray[np.float64] = np.where(total_B > 0, sums_B / np.maximum(total_B, 1), np.nan)
    return out


def fitted(logits_NC: Tensor, samples: Sequence[Sample], names: Sequence[str]) -> Several:
    """The bias of `losses.classify.binary`, and for each class the threshold of the best F1 on these images."""
    truth_NC = targets(samples, len(names), several=True)
    bias = float(bias_of(logits_NC.double(), truth_NC.double()))
    probability_NC = torch.sigmoid(logits_NC.double() - bias).numpy()
    columns = zip(names, probability_NC.T, truth_NC.numpy().T, strict=True)
    return Several(bias=bias, thresholds={name: best_threshold(p_N, y_N) for name, p_N, y_N in columns})


def best_threshold(p_N: NDArray[np.float64], y_N: NDArray[Any]) -> float:
    """Between two probabilities, where F1 is best; the highest of several; `EVEN` where no image has the class."""
    if not y_N.any():
        return EVEN
    order = np.argsort(-p_N, kind="stable")
    p_N, hits_N = p_N[order], np.cumsum(y_N[order])
    f1_N = 2 * hits_N / (np.arange(1, len(p_N) + 1) + hits_N[-1])
    ends_N = np.append(p_N[1:] < p_N[:-1], True)  # images of one probability are taken together
    best = int(np.argmax(np.where(ends_N, f1_N, -1.0)))
    lower = p_N[best + 1] if best + 1 < len(p_N) else p_N[best]
    return float((p_N[best] + lower) / 2)


def require_able(method: Method, subset: str, *, several: bool) -> None:
    """UserError: images have several labels, and the method cannot learn from them."""
    if not several:
        return
    learner, why = method.learner, ""
    if isinstance(learner, Fit):
        why = "is fitted to one label for each image"
    elif isinstance(learner, Steps) and [one.name for one in learner.terms if one.over_images] != [CROSS_ENTROPY.name]:
        why = "has losses that take each image for one class"
    elif isinstance(learner, Steps) and any((learner.classes, learner.rule, learner.first, learner.last)):
        why = "compares each image with its one class, or weighs the losses of one label"
    elif method.at_test is not None or method.unlabelled is not None or method.prompt.reach.teachers_text:
        why = "learns from answers of one class"
    if why:
        raise UserError(
            f"{method.name} {why}, and these images have several. Use coop, cocoop, kgcoop, vpt, maple, PLPP on them, or zero-shot."
        )
    if subset != "all":
        raise UserError(
            f"--subset {subset}: images with several labels belong to both halves of the classes. Leave it out."
        )


def require_one_label(learned: Learned, what: str) -> None:
    """UserError: a prompt of several labels, where probabilities of one class are wanted."""
    if of(learned) is not None:
        raise UserError(
            f"{what} answers with one class for each picture, and this prompt was learned from pictures with several. Use `vlprompt "
            "predict RUN PICTURES --json`, or PromptClassifier.predict in Python."
        )
