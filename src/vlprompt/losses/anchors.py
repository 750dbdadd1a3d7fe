"""Terms that hold the learned text near the frozen one's.

Letters: B images, C classes, E joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from vlprompt.errors import require_least
from vlprompt.types import Term, View


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
    assert view.teacher is not None
    assert view.teacher.text is not None
    return 1 - F.cosine_similarity(view.text.pooled, view.teacher.text.pooled, dim=-1).mean()


def anchor_terms(options: AnchorOptions) -> tuple[Term, ...]:
    """The anchor with its weight; none with weight 0."""
    if options.weight == 0:
        return ()
    term = Term(
        name="text-anchor",
        score=text_anchor,
        weight=options.weight,
        needs=frozenset({"teacher_text"}),
        formula="L_text = 1 - (1/C) sum_c cos(text_c, zero-shot text_c)",
        over_images=False,
    )
    return (term,)
