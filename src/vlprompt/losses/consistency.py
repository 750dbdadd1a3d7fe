"""Terms that hold the prompted model near a teacher: frozen CLIP, or another model where one is named.

Text anchors (KgCoOp, TCP), features and logits (PromptSRC), distillation (RPP, PromptKD). Letters: B images, C classes, E joint embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import require, require_least
from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.losses.sampled import Correction, SamplingOptions, sampled_terms
from vlprompt.types import ClassSampling, Features, Need, Term, View

UNSEEN = -1e9
"""Logit of a class that is out of view: its probability is 0, and unlike with -inf its share of the divergence too."""


def _text(view: View) -> Features:
    assert view.teacher is not None
    assert view.teacher.text is not None
    return view.teacher.text


def _logits(view: View, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The teacher's and the prompted model's, divided by T, of the classes that an image is compared with."""
    assert view.teacher is not None
    assert view.teacher.logits is not None
    both = view.teacher.logits / temperature, view.logits / temperature
    if view.sampled is not None:
        both = both[0].masked_fill(~view.sampled.seen, UNSEEN), both[1].masked_fill(~view.sampled.seen, UNSEEN)
    return both


def divergence(teacher_BC: Tensor, student_BC: Tensor) -> Tensor:
    """``KL(softmax teacher || softmax student)`` of logits, summed over images and classes, a scalar."""
    return F.kl_div(student_BC.log_softmax(-1), teacher_BC.log_softmax(-1), reduction="sum", log_target=True)


def _term(name: str, score: Callable[[View], Tensor], weight: float, need: Need, formula: str) -> Term:
    return Term(
        name=name,
        score=score,
        weight=weight,
        needs=frozenset({need}),
        formula=formula,
        over_images=need != "teacher_text",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorOptions:
    """What may be chosen about KgCoOp."""

    weight: float = 8.0
    """Of the distance between the learned and the hand-written class features; cross-entropy has 1."""

    def __post_init__(self) -> None:
        require_least(self, 0, "weight")


def text_anchor(view: View) -> Tensor:
    """``1 - (1/C) sum_c cos(text_c, teacher_c)``, also the mean over images where the text depends on them.

    Source: KgCoOp, arXiv 2303.13283, eq. 4, as its code computes it (htyao89/KgCoOp: trainers/kgcoop.py).
    """
    return 1 - F.cosine_similarity(view.text.pooled, _text(view).pooled, dim=-1).mean()


def anchor_terms(options: AnchorOptions) -> tuple[Term, ...]:
    """The anchor with its weight; none with weight 0."""
    formula = "L_text = 1 - (1/C) sum_c cos(text_c, zero-shot text_c)"
    return (_term("text-anchor", text_anchor, options.weight, "teacher_text", formula),) if options.weight else ()


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
    return F.l1_loss(view.text.unit, _text(view).unit)


def image_distance(view: View) -> Tensor:
    """``mean_{b,e} |unit image - unit teacher image|``, on the same crops."""
    assert view.teacher is not None
    assert view.teacher.image is not None
    return F.l1_loss(view.image.unit, view.teacher.image.unit)


def logits_divergence(view: View) -> Tensor:
    """``KL(teacher || student)`` of the logits, summed and divided by B times C.

    Where a step sees some of the classes, each image counts those that it is compared with, and C is their number.
    """
    teacher_BC, student_BC = _logits(view)
    if view.sampled is None:
        return divergence(teacher_BC, student_BC) / view.logits.numel()
    each_BC = F.kl_div(student_BC.log_softmax(-1), teacher_BC.log_softmax(-1), reduction="none", log_target=True)
    return (each_BC.sum(1) / view.sampled.seen.sum(1)).mean()


def consistency_terms(options: ConsistencyOptions) -> tuple[Term, ...]:
    """Cross-entropy, and the three consistency terms whose weight is not 0.

    Source: PromptSRC, arXiv 2307.06948, eq. 3 to 6, weights and normalisation by its code (muzairkhattak/PromptSRC:
    trainers/promptsrc.py).
    """
    text = "L_text = mean_ce |unit text_c - unit frozen text_c|"
    image = "L_image = mean_be |unit image_b - unit frozen image_b|"
    logits = "L_logits = 1/(B C) sum_b KL(softmax(zero-shot logits_b) || softmax(logits_b))"
    found = (
        _term("consistency-text", text_distance, options.text_weight, "teacher_text", text),
        _term("consistency-image", image_distance, options.image_weight, "teacher_image", image),
        _term("consistency-logits", logits_divergence, options.logits_weight, "teacher_logits", logits),
    )
    return (CROSS_ENTROPY, *(term for term in found if term.weight))


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


def distillation(view: View, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(teacher_b / T) || softmax(logits_b / T))``, over the classes that an image is compared with."""
    return temperature**2 * divergence(*_logits(view, temperature)) / len(view.logits)


def distill_terms(options: DistillOptions) -> tuple[Term, ...]:
    """Cross-entropy, over the sampled classes where there are such, and the distillation where its weight is not 0.

    Source: RPP, arXiv 2409.06166: soft labels are the zero-shot probabilities of a frozen CLIP, as a regularisation loss with weight
    lambda. Direction, temperature, its square and the mean over the batch are the project's choice (docs/methods/rpp.md).
    """
    first = sampled_terms(SamplingOptions(classes=options.classes, correction=options.correction))
    if options.weight == 0:
        return first
    t = f"{options.temperature:g}"
    formula = f"L_KD = {t}^2 (1/B) sum_b KL(softmax(zero-shot logits_b / {t}) || softmax(logits_b / {t}))"

    def score(view: View) -> Tensor:
        return distillation(view, options.temperature)

    return (*first, _term("distillation", score, options.weight, "teacher_logits", formula))


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
    formula = f"L_KD = {t}^2 1/(B C) sum_b KL(softmax(teacher's logits_b / {t}) || softmax(logits_b / {t}))"

    def score(view: View) -> Tensor:
        return distillation(view, options.temperature) / view.logits.shape[-1]

    return (_term("distillation", score, options.weight, "teacher_logits", formula),)
