"""Consistency with frozen CLIP: features and logits of the prompted model stay near the bare one's (PromptSRC).

Source: PromptSRC, arXiv 2307.06948, eq. 3 to 6, weights and normalisation by its code (muzairkhattak/PromptSRC:trainers/promptsrc.py).
Letters: B images, C classes, E joint embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import require_least
from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.losses.distill import UNSEEN, divergence
from vlprompt.types import Need, Term, View


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyOptions:
    """PromptSRC's options, apart from its prompt."""

    text_weight: float = 25.0
    """Weight of the L1 distance of text features; 0: without."""
    image_weight: float = 10.0
    """Weight of the L1 distance of image features; 0: without."""
    logits_weight: float = 1.0
    """Weight of the divergence of logits, which is divided by images times classes; 0: without."""
    teacher: Literal["ensemble", "template"] = "ensemble"
    """Sentences of the frozen text features: the mean over 60 templates, or the data set's template alone."""
    average_mean: float = 15.0
    """Gaussian average of the prompts after each epoch: the mean, in epochs of `average_epochs`."""
    average_std: float = 1.0
    """Its standard deviation, in epochs of `average_epochs`."""
    average_epochs: int = 20
    """The number of epochs that mean and deviation are given for; they are scaled to the run's own."""

    def __post_init__(self) -> None:
        require_least(self, 0, "text_weight", "image_weight", "logits_weight")


def text_distance(view: View) -> Tensor:
    """``mean_{c,e} |unit text - unit teacher text|``."""
    assert view.teacher is not None
    assert view.teacher.text is not None
    return F.l1_loss(view.text.unit, view.teacher.text.unit)


def image_distance(view: View) -> Tensor:
    """``mean_{b,e} |unit image - unit teacher image|``, on the same crops."""
    assert view.teacher is not None
    assert view.teacher.image is not None
    return F.l1_loss(view.image.unit, view.teacher.image.unit)


def logits_divergence(view: View) -> Tensor:
    """``KL(teacher || student)`` of the logits, summed and divided by B times C.

    Where a step sees some of the classes, each image counts those that it is compared with, and C is their number.
    """
    assert view.teacher is not None
    assert view.teacher.logits is not None
    if view.sampled is None:
        return divergence(view.teacher.logits, view.logits) / view.logits.numel()
    seen_BC = view.sampled.seen
    teacher_BC, student_BC = (one.masked_fill(~seen_BC, UNSEEN) for one in (view.teacher.logits, view.logits))
    each_BC = F.kl_div(student_BC.log_softmax(-1), teacher_BC.log_softmax(-1), reduction="none", log_target=True)
    return (each_BC.sum(1) / seen_BC.sum(1)).mean()


def consistency_terms(options: ConsistencyOptions) -> tuple[Term, ...]:
    """Cross-entropy, and the three consistency terms whose weight is not 0."""
    found = [
        _term("text", text_distance, options.text_weight, "teacher_text", "mean_ce |unit text_c - unit frozen text_c|"),
        _term(
            "image",
            image_distance,
            options.image_weight,
            "teacher_image",
            "mean_be |unit image_b - unit frozen image_b|",
        ),
        _term(
            "logits",
            logits_divergence,
            options.logits_weight,
            "teacher_logits",
            "1/(B C) sum_b KL(softmax(zero-shot logits_b) || softmax(logits_b))",
        ),
    ]
    return (CROSS_ENTROPY, *(term for term in found if term.weight))


def _term(what: str, score: Callable[[View], Tensor], weight: float, need: Need, formula: str) -> Term:
    return Term(
        name=f"consistency-{what}",
        score=score,
        weight=weight,
        needs=frozenset({need}),
        formula=f"L_{what} = {formula}",
        over_images=what != "text",
    )
