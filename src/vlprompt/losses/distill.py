"""Distillation: the prompted model keeps near frozen CLIP's own answer (RPP's second remedy), or imitates a teacher's (PromptKD).

Source: RPP, arXiv 2409.06166: soft labels are the zero-shot probabilities of a frozen CLIP, as a regularisation loss with weight
lambda. Direction, temperature, its square and the mean over the batch are the project's choice (docs/methods/rpp.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import require, require_least
from vlprompt.losses.sampled import Correction, SamplingOptions, sampled_terms
from vlprompt.types import ClassSampling, Term, View

UNSEEN = -1e9
"""Logit of a class that is out of view: its probability is 0, and unlike with -inf its share of the divergence too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """What may be chosen about distillation."""

    weight: float = field(default=1.0, metadata={"alias": "lambda"})
    """lambda, the weight of the distillation; cross-entropy has 1. 0: no distillation."""
    temperature: float = 1.0
    """T, which divides both sides' logits; the loss is multiplied by its square."""
    classes: int = field(default=0, metadata={"words": {"all": 0}})
    """K, the classes that an image is compared with in a step, its own among them, in both losses; "all": no sampling."""
    correction: Correction = "natural"
    """What is added to every drawn class's logit in cross-entropy (not in the distillation), as in POMP: natural, log10 or none."""

    def __post_init__(self) -> None:
        require_least(self, 0, "weight")
        require(self.temperature > 0, f"temperature={self.temperature}", "a number above 0")
        SamplingOptions(classes=self.classes)

    @property
    def sampling(self) -> ClassSampling | None:
        return SamplingOptions(classes=self.classes).sampling


def divergence(teacher_BC: Tensor, student_BC: Tensor) -> Tensor:
    """``KL(softmax teacher || softmax student)`` of logits, summed over images and classes, a scalar."""
    return F.kl_div(student_BC.log_softmax(-1), teacher_BC.log_softmax(-1), reduction="sum", log_target=True)


def distillation(view: View, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(teacher_b / T) || softmax(logits_b / T))``, over the classes that an image is compared with."""
    assert view.teacher is not None
    assert view.teacher.logits is not None
    teacher_BC, student_BC = view.teacher.logits / temperature, view.logits / temperature
    if view.sampled is not None:
        teacher_BC, student_BC = (one.masked_fill(~view.sampled.seen, UNSEEN) for one in (teacher_BC, student_BC))
    total = divergence(teacher_BC, student_BC)
    return temperature**2 * total / len(view.logits)


def distill_terms(options: DistillOptions) -> tuple[Term, ...]:
    """Cross-entropy, over the sampled classes where there are such, and the distillation where its weight is not 0."""
    first = sampled_terms(SamplingOptions(classes=options.classes, correction=options.correction))
    if options.weight == 0:
        return first
    t = f"{options.temperature:g}"
    return (
        *first,
        Term(
            name="distillation",
            score=lambda view: distillation(view, options.temperature),
            weight=options.weight,
            needs=frozenset({"teacher_logits"}),
            formula=f"L_KD = {t}^2 (1/B) sum_b KL(softmax(zero-shot logits_b / {t}) || softmax(logits_b / {t}))",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledOptions:
    """What may be chosen about PromptKD's distillation."""

    weight: float = 1000.0
    """Of the distillation, which is divided by images times classes."""
    temperature: float = 1.0
    """T, which divides both sides' logits; the loss is multiplied by its square."""
    images: int = field(default=0, metadata={"words": {"all": 0}})
    """Training images that are learned from, drawn without a look at their labels; "all": every one."""

    def __post_init__(self) -> None:
        require(self.weight > 0, f"weight={self.weight}", "a number above 0")
        require(self.temperature > 0, f"temperature={self.temperature}", "a number above 0")
        require(self.images >= 0, f"images={self.images}", "a whole number of at least 1, or all")


def unlabelled_terms(options: UnlabelledOptions) -> tuple[Term, ...]:
    """The distillation alone: no label is read. Source: PromptKD, arXiv 2403.02781, eq. 5, divided as its code divides it."""
    t = f"{options.temperature:g}"
    return (
        Term(
            name="distillation",
            score=lambda view: distillation(view, options.temperature) / view.logits.shape[-1],
            weight=options.weight,
            needs=frozenset({"teacher_logits"}),
            formula=f"L_KD = {t}^2 1/(B C) sum_b KL(softmax(teacher's logits_b / {t}) || softmax(logits_b / {t}))",
        ),
    )
