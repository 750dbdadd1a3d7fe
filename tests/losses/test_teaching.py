"""Distillation, consistency and the Gaussian average against their literal versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.oracle import teaching as oracle
from vlprompt.errors import UserError
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.consistency import ConsistencyOptions, DistillOptions, consistency_terms, distill_terms
from vlprompt.losses.rules import GaussianAverage
from vlprompt.types import BARE, Features, Sampled, TeacherAnswer, Term, View, Vocabulary

B, C, E = 3, 4, 5


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def view() -> View:
    """Student tensors are leaves."""
    return View(
        labels=torch.tensor([0, 3, 1]),
        logits=draw(B, C, seed=0, scale=3).requires_grad_(),
        text=Features(pooled=draw(C, E, seed=1).requires_grad_()),
        image=Features(pooled=draw(B, E, seed=2).requires_grad_()),
        prompted=BARE,
        vocabulary=Vocabulary(weight_VD=torch.eye(3), word_ids=torch.arange(3), words=str),
        teacher=TeacherAnswer(
            text=Features(pooled=draw(C, E, seed=3, scale=2)),
            image=Features(pooled=draw(B, E, seed=4, scale=2)),
            logits=draw(B, C, seed=5, scale=3),
        ),
    )


def same(term: Term, view: View, wanted: Tensor, leaf: Tensor) -> None:
    found = term.score(view)
    assert float((found - wanted).detach().abs()) < 1e-12
    assert float(found.detach()) > 0.01
    (ours,), (theirs,) = torch.autograd.grad(found, leaf), torch.autograd.grad(wanted, leaf)
    assert float((ours - theirs).abs().max()) < 1e-12 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distillation(view: View, temperature: float) -> None:
    assert view.teacher is not None
    assert view.teacher.logits is not None
    first, term = distill_terms(DistillOptions(weight=0.7, temperature=temperature))
    assert first is CROSS_ENTROPY
    assert (term.weight, term.needs) == (0.7, {"teacher_logits"})
    same(term, view, oracle.distillation(view.teacher.logits, view.logits, temperature), view.logits)


def test_consistency(view: View) -> None:
    teacher = view.teacher
    assert teacher is not None
    assert teacher.text is not None
    assert teacher.image is not None
    assert teacher.logits is not None
    first, text, image, scores = consistency_terms(ConsistencyOptions())
    assert first is CROSS_ENTROPY
    assert [term.weight for term in (text, image, scores)] == [25, 10, 1]
    same(text, view, oracle.distance(view.text.pooled, teacher.text.pooled), view.text.pooled)
    same(image, view, oracle.distance(view.image.pooled, teacher.image.pooled), view.image.pooled)
    same(scores, view, oracle.logits_divergence(teacher.logits, view.logits), view.logits)


def test_a_weight_of_0_is_no_term() -> None:
    assert distill_terms(DistillOptions(weight=0)) == (CROSS_ENTROPY,)
    options = ConsistencyOptions(text_weight=0, logits_weight=0)
    assert [term.name for term in consistency_terms(options)] == ["cross-entropy", "consistency-image"]


@pytest.mark.parametrize(("mean", "std", "epochs"), [(15, 1, 20), (6, 10, 20), (30, 30, 50), (45, 5, 50)])
def test_the_published_averages(mean: float, std: float, epochs: int) -> None:
    found = GaussianAverage(mean=mean, std=std, epochs=epochs).weights(epochs)
    assert found == pytest.approx(oracle.gaussian(mean, std, epochs), rel=1e-9)
    assert sum(found) == pytest.approx(1, abs=1e-12)


def test_mean_and_deviation_scale_with_the_epochs() -> None:
    average = GaussianAverage(mean=15, std=1, epochs=20)
    assert average.weights(10) == pytest.approx(oracle.gaussian(7.5, 0.5, 10), rel=1e-9)
    assert average.weights(1) == (1.0,)


def test_a_narrow_average_far_from_every_epoch_still_sums_to_1() -> None:
    """Plainly every height would be 0, and their share not a number."""
    found = GaussianAverage(mean=400, std=0.1, epochs=20).weights(20)
    assert found[-1] == pytest.approx(1)
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (DistillOptions, {"weight": -1}),
        (DistillOptions, {"temperature": 0}),
        (DistillOptions, {"classes": 1}),
        (ConsistencyOptions, {"image_weight": -0.1}),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: type, option: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(option))):
        kind(**option)


def test_an_average_says_what_it_is() -> None:
    said = str(GaussianAverage(mean=15, std=1, epochs=20))
    assert (
        said == "the mean of the prompts after each epoch t, weighted by N(t; 15, 1) of 20 epochs, scaled to the run's"
    )


@pytest.mark.parametrize("option", [{"std": 0}, {"std": -1}, {"epochs": 0}])
def test_an_average_that_cannot_be_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(UserError, match="average_std"):
        GaussianAverage(**{"mean": 1, "std": 1, "epochs": 2, **option})  # type: ignore[arg-type]


def test_classes_that_an_image_is_not_compared_with_do_not_count(view: View) -> None:
    seen = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    (_, term) = distill_terms(DistillOptions())
    assert view.teacher is not None
    assert view.teacher.logits is not None
    rows = zip(view.teacher.logits, view.logits, seen)
    wanted = sum(oracle.divergence(teacher[one], student[one]) for teacher, student, one in rows) / B
    same(term, replace(view, sampled=Sampled(seen=seen, num_classes=9)), wanted, view.logits)


def test_consistency_counts_the_classes_that_an_image_is_compared_with(view: View) -> None:
    """Of each image the divergence over its own number of classes, and then the mean over images."""
    seen = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    teacher = view.teacher
    assert teacher is not None
    assert teacher.logits is not None
    *_, term = consistency_terms(ConsistencyOptions())
    assert term.needs == {"teacher_logits"}
    rows = zip(teacher.logits, view.logits, seen)
    wanted = sum(oracle.divergence(given[one], ours[one]) / one.sum() for given, ours, one in rows) / B
    same(term, replace(view, sampled=Sampled(seen=seen, num_classes=9)), wanted, view.logits)
