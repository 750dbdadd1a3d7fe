"""Losses over sampled classes: a class that is in view for another image only changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from vlprompt.engine.classes import in_view
from vlprompt.engine.step import weighted
from vlprompt.losses.consistency import distillation, logits_divergence
from vlprompt.losses.sampled import sampled_cross_entropy
from vlprompt.methods.resolve import resolve
from vlprompt.types import Features, Prompted, Sampled, TeacherAnswer, Term, View, Vocabulary


def view(seen: torch.Tensor, seed: int = 0) -> View:
    """Random logits of three images on five classes; labels 0, 1, 1."""
    rng = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(3, 5, generator=rng) for _ in range(2))
    words = Vocabulary(weight_VD=torch.zeros(1, 1), word_ids=torch.zeros(1, dtype=torch.int64), words=str)
    blank = Features(pooled=torch.randn(5, 4, generator=rng).requires_grad_())
    return View(
        labels=torch.tensor([0, 1, 1]),
        logits=student.requires_grad_(),
        text=blank,
        image=blank,
        prompted=Prompted(),
        vocabulary=words,
        teacher=TeacherAnswer(logits=teacher),
        sampled=Sampled(seen=seen, num_classes=50),
    )


def test_classes_in_view_are_every_processes_images_own_and_the_drawn_ones() -> None:
    labels, others, drawn = torch.tensor([7, 3]), torch.tensor([9, 3]), torch.tensor([1, 7])
    found = in_view(labels, drawn, 10, [labels, others])
    assert found.classes_C.tolist() == [1, 3, 7, 9]
    assert found.labels_B.tolist() == [2, 1]
    assert found.sampled.seen.tolist() == [[True, False, True, False], [True, True, True, False]]


SEEN = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    "score", [logits_divergence, lambda v: distillation(v, 2.0), sampled_cross_entropy("natural").score]
)
def test_unseen_classes_change_nothing(score: object) -> None:
    one, other = view(SEEN), view(SEEN)
    assert other.teacher is not None
    assert other.teacher.logits is not None
    with torch.no_grad():
        other.logits[~SEEN] += 40.0
        other.teacher.logits[~SEEN] -= 30.0
    assert torch.equal(score(one), score(other))  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(score(one), [one.logits])  # type: ignore[operator]
    assert (gradient[~SEEN] == 0).all()
    assert (gradient[SEEN] != 0).all()


def test_the_divergence_over_seen_classes_by_hand() -> None:
    one = view(SEEN)
    assert one.teacher is not None
    assert one.teacher.logits is not None
    each = []
    for student, teacher, seen in zip(one.logits, one.teacher.logits, SEEN, strict=True):
        p, q = teacher[seen].softmax(0), student[seen].softmax(0)
        each.append((p * (p / q).log()).sum() / seen.sum())
    wanted = float(torch.stack(each).detach().mean())
    assert float(logits_divergence(one).detach()) == pytest.approx(wanted, rel=1e-5)


def test_a_process_without_images_gives_nothing_but_what_needs_none() -> None:
    empty = dataclasses.replace(view(SEEN), labels=torch.empty(0, dtype=torch.int64), logits=torch.empty(0, 5))
    mean = Term(name="mean", score=lambda v: F.cross_entropy(v.logits, v.labels))
    free = Term(name="free", score=lambda v: v.text.pooled.square().sum(), weight=0.5, over_images=False)
    losses = weighted((mean, free), empty, share=0.0)
    assert float(losses["mean"].detach()) == 0
    assert losses["mean"].requires_grad, "the class features are exchanged by every process"
    assert losses["free"] == weighted((free,), empty, share=1.0)["free"]
    assert weighted((mean,), view(SEEN), share=1.5)["mean"] == 1.5 * weighted((mean,), view(SEEN))["mean"]


def test_which_terms_are_means_over_images() -> None:
    found = {
        term.name: term.over_images
        for name in ("plpp+promptsrc", "plpp+rpp", "kgcoop", "pomp")
        for term in resolve(name, {}).terms
    }
    assert found == {
        "cross-entropy": True,
        "distillation": True,
        "consistency-text": False,
        "consistency-image": True,
        "consistency-logits": True,
        "text-anchor": False,
        "plpp": False,
        "plpp-inverse": False,
    }
