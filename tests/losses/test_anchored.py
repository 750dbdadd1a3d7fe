"""KgCoOp's anchor, ProGrad's rule and POMP's sampled classes against the loops of the oracle, and their identities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle import losses as oracle
from vlprompt.engine.classes import draw, in_view, said_of
from vlprompt.engine.step import by_rules
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.consistency import AnchorOptions, anchor_terms, text_anchor
from vlprompt.losses.rules import Projection, teacher_term
from vlprompt.losses.sampled import Correction, SamplingOptions, corrected, sampled_cross_entropy
from vlprompt.types import BARE, ClassSampling, Features, Sampled, TeacherAnswer, View, Vocabulary

VOCABULARY = Vocabulary(weight_VD=torch.eye(3), word_ids=torch.arange(3), words=str)


def drawn_from(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def view(logits: Tensor, labels: Tensor, *, text: Tensor | None = None, teacher: TeacherAnswer | None = None) -> View:
    features = Features(pooled=drawn_from(9, 4, 7) if text is None else text)
    return View(
        labels=labels,
        logits=logits,
        text=features,
        image=features,
        prompted=BARE,
        vocabulary=VOCABULARY,
        teacher=teacher,
    )


@pytest.mark.parametrize("per_image", [False, True])
def test_the_anchor_is_the_oracles_in_value_and_gradient(per_image: bool) -> None:
    text = drawn_from(0, *((3, 5, 7) if per_image else (5, 7))).requires_grad_()
    teacher = drawn_from(1, 5, 7)
    wanted = oracle.text_anchor(text, teacher)
    seen = view(
        torch.zeros(2, 5), torch.tensor([0, 1]), text=text, teacher=TeacherAnswer(text=Features(pooled=teacher))
    )
    got = text_anchor(seen)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(got, text), torch.autograd.grad(wanted, text), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_anchor_is_0_at_the_teacher_whatever_its_length_and_gone_with_weight_0() -> None:
    text = drawn_from(0, 5, 7)
    seen = view(
        torch.zeros(2, 5), torch.tensor([0, 1]), text=3 * text, teacher=TeacherAnswer(text=Features(pooled=text))
    )
    assert text_anchor(seen).item() == pytest.approx(0, abs=1e-12)
    assert anchor_terms(AnchorOptions(weight=0)) == ()
    assert anchor_terms(AnchorOptions())[0].weight == 8


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_teachers_term_is_the_oracles_and_its_gradient_is_the_divergences(temperature: float) -> None:
    logits, teacher = (5 * drawn_from(2, 4, 6)).requires_grad_(), 5 * drawn_from(3, 4, 6)
    seen = view(logits, torch.zeros(4, dtype=torch.int64), teacher=TeacherAnswer(logits=teacher))
    got = teacher_term(temperature).score(seen)
    assert got.item() == pytest.approx(oracle.soft_cross_entropy(logits, teacher, temperature).item(), rel=1e-12)
    divergence = temperature**2 * F.kl_div(
        (logits / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean"
    )
    (one,), (other,) = torch.autograd.grad(got, logits), torch.autograd.grad(divergence, logits)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_projection_is_the_oracles_on_both_sides(strength: float, sign: int) -> None:
    gradient, general = drawn_from(4, 3, 5), drawn_from(5, 3, 5)
    general = general * sign * (1 if (gradient * general).sum() > 0 else -1)
    got = Projection(strength=strength).combine([gradient, general])
    torch.testing.assert_close(got, oracle.projected(gradient, general, strength), rtol=1e-12, atol=1e-14)
    if sign == 1:
        assert torch.equal(got, gradient)
    elif strength == 1:
        assert (got * general).sum().item() == pytest.approx(0, abs=1e-12)


def test_the_rule_leaves_a_gradient_beside_a_zero_alone() -> None:
    gradient = drawn_from(4, 3, 5)
    rule = Projection()
    assert torch.equal(rule.combine([gradient, 0 * gradient]), gradient)
    assert torch.equal(rule.combine([0 * gradient, gradient]), 0 * gradient)


def test_the_rule_is_per_tensor_and_adds_an_overlays_terms_to_cross_entropy() -> None:
    """Two tensors: on one the teacher works against the others, on the second with them."""
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    losses = {
        "cross-entropy": 2 * a[0] + b[0],
        "teacher": -a[0] - a[1] + b.sum(),
        "plpp": a[1] + b[1],
    }
    (got,) = by_rules([Projection()], [losses], [[a, b]])
    assert got[0] is not None
    assert got[1] is not None
    torch.testing.assert_close(got[0], torch.tensor([0.5, -0.5]))  # (2, 1) without its part along (1, 1)
    torch.testing.assert_close(got[1], torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize("correction", ["natural", "log10", "none"])
@pytest.mark.parametrize("drawn", [torch.tensor([3, 7, 1]), torch.tensor([3, 7]), torch.tensor([3])], ids=len)
def test_sampled_classes_are_the_oracles_in_value_and_gradient(correction: Correction, drawn: torch.Tensor) -> None:
    """Of three drawn classes, of two (where 3 is the label one negative is left), and of one (then none is)."""
    logits = (4 * drawn_from(6, 5, 9)).requires_grad_()
    labels = torch.tensor([0, 8, 3, 3, 5])
    chosen = in_view(labels, drawn, 9)
    assert chosen.classes_C.tolist() == sorted({*labels.tolist(), *drawn.tolist()})
    assert chosen.classes_C[chosen.labels_B].tolist() == labels.tolist()
    got = F.cross_entropy(
        corrected(logits[:, chosen.classes_C], chosen.labels_B, chosen.sampled, correction), chosen.labels_B
    )
    wanted = oracle.pomp(logits, labels.tolist(), drawn.tolist(), correction)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(got, logits), torch.autograd.grad(wanted, logits), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("correction", ["natural", "log10", "none"])
def test_with_every_class_drawn_it_is_the_full_softmax(correction: Correction) -> None:
    logits, labels = 4 * drawn_from(6, 5, 9), torch.tensor([0, 8, 3, 3, 5])
    sampled = Sampled(seen=torch.ones(5, 9, dtype=torch.bool), num_classes=9)
    torch.testing.assert_close(corrected(logits, labels, sampled, correction), logits, rtol=0, atol=0)
    plain = view(logits, labels)
    assert sampled_cross_entropy(correction).score(plain) == CROSS_ENTROPY.score(plain)


def test_the_natural_correction_makes_the_sum_over_negatives_unbiased() -> None:
    """Over all draws, the mean of the corrected sum of exponentials is the sum over all negatives (label outside the draw)."""
    logits, label = drawn_from(7, 1, 6), torch.tensor([0])
    sums = []
    for first in range(1, 6):
        for second in range(first + 1, 6):
            chosen = in_view(label, torch.tensor([first, second]), 6)
            scores = corrected(logits[:, chosen.classes_C], chosen.labels_B, chosen.sampled, "natural")
            sums.append(scores[0, 1:].exp().sum().item())
    assert sum(sums) / len(sums) == pytest.approx(logits[0, 1:].exp().sum().item(), rel=1e-12)


def test_the_corrections_differ_by_their_base() -> None:
    sampled = Sampled(seen=torch.tensor([[True, True, False, True]]), num_classes=101)
    logits, labels = torch.zeros(1, 4), torch.tensor([1])
    for correction, added in (("natural", math.log(50)), ("log10", math.log10(50)), ("none", 0.0)):
        got = corrected(logits, labels, sampled, correction)[0].tolist()  # type: ignore[arg-type]
        assert got == pytest.approx([added, 0, float("-inf"), added])


def test_classes_are_drawn_by_seed_epoch_and_step_and_never_more_than_there_are() -> None:
    sampling = ClassSampling(num=5)
    one = draw(sampling, 9, seed=1, epoch=2, step=3)
    assert one is not None
    assert len(set(one.tolist())) == 4
    assert max(one.tolist()) < 9
    again, other = draw(sampling, 9, seed=1, epoch=2, step=3), draw(sampling, 9, seed=1, epoch=2, step=4)
    assert again is not None
    assert other is not None
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    for number in (9, 1000):
        assert draw(ClassSampling(num=number), 9, seed=1, epoch=0, step=0) is None
    assert draw(None, 9, seed=1, epoch=0, step=0) is None
    assert (
        said_of(ClassSampling(num=1000), 9)
        == "1000 sampled classes are asked for and there are 9: every step sees all of them."
    )
    assert said_of(ClassSampling(num=9), 9) is said_of(sampling, 9) is said_of(None, 9) is None


def test_all_classes_is_no_sampling() -> None:
    assert SamplingOptions(classes=0).sampling is None
    assert SamplingOptions(classes=7).sampling == ClassSampling(num=7)
