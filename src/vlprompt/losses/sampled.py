"""Cross-entropy over some of the classes, with local correction: POMP (arXiv 2304.04704).

Letters: B images, C classes in view, N all classes, m negatives of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import require
from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.types import ClassSampling, Sampled, Term, View

Correction = Literal["natural", "log10", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """What may be chosen about sampled classes."""

    classes: int = field(default=1000, metadata={"words": {"all": 0}})
    """K, the classes that an image is compared with in a step, its own among them; "all": no sampling."""
    correction: Correction = "log10"
    """What is added to every drawn class's logit: "natural" is ln((N-1)/m), the importance correction; "log10" is the published
    code's; "none"."""

    def __post_init__(self) -> None:
        allowed = self.classes == 0 or self.classes >= 2
        require(allowed, f"classes={self.classes}", 'a whole number of at least 2, or "all"')

    @property
    def sampling(self) -> ClassSampling | None:
        return ClassSampling(num=self.classes) if self.classes else None


def corrected(logits_BC: Tensor, labels_B: Tensor, sampled: Sampled | None, correction: Correction) -> Tensor:
    """Logits with the correction on every negative that an image is compared with, and minus infinity on classes that it is not.

    An image's m negatives are the drawn classes but its own; the correction is ``log((N - 1) / m)``. Without sampling the logits
    are as they were, since m = N - 1. Source: POMP, arXiv 2304.04704, and amazon-science/prompt-pretraining: trainers/pomp.py.
    """
    if sampled is None:
        return logits_BC
    own_BC = torch.zeros_like(sampled.seen).scatter(1, labels_B[:, None], True)
    if correction != "none":
        negatives_B1 = (sampled.seen & ~own_BC).sum(dim=1, keepdim=True).clamp(min=1)
        added_B1 = torch.log((sampled.num_classes - 1) / negatives_B1.to(logits_BC.dtype))
        added_B1 = added_B1 / math.log(10) if correction == "log10" else added_B1
        logits_BC = torch.where(own_BC, logits_BC, logits_BC + added_B1)
    return logits_BC.masked_fill(~sampled.seen, float("-inf"))


def sampled_terms(options: SamplingOptions) -> tuple[Term, ...]:
    """Cross-entropy, over the sampled classes where there are such."""
    return (CROSS_ENTROPY if options.sampling is None else sampled_cross_entropy(options.correction),)


def sampled_cross_entropy(correction: Correction) -> Term:
    """Cross-entropy over each image's own class and the drawn ones. It stands in cross-entropy's place, and has its name."""

    def score(view: View) -> Tensor:
        return F.cross_entropy(corrected(view.logits, view.labels, view.sampled, correction), view.labels)

    added = {"natural": " + ln((N-1)/m_b) off the label", "log10": " + log10((N-1)/m_b) off the label", "none": ""}
    formula = (
        "L_CE = -(1/B) sum_b log softmax over label_b and m_b drawn classes c "
        f"(s cos(image_b, text_c){added[correction]})[label_b]"
    )
    return Term(name=CROSS_ENTROPY.name, score=score, formula=formula)
