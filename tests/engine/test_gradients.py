"""Sums, rules and lengths of step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlprompt.engine import step
from vlprompt.methods.resolve import resolve


def losses(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Gradients: of `first` (2a, 0), of `second` (3, 1), of `constant` none."""
    return {"first": (a**2).sum(), "second": 3 * a.sum() + b.sum(), "constant": torch.tensor(7.0)}


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)


def test_the_sum_of_the_terms_is_the_gradient_of_the_sum(pair: tuple[Tensor, Tensor]) -> None:
    whole = step.gradients_of(resolve("coop"), losses(*pair), pair)
    parts = step.added(step.by_term(losses(*pair), pair))
    for one, other, wanted in zip(whole, parts, ([5.0, -1.0], [1.0]), strict=True):
        assert one is not None
        assert other is not None
        assert one.tolist() == other.tolist() == wanted


def test_what_no_loss_reaches_has_no_gradient(pair: tuple[Tensor, Tensor]) -> None:
    a, _ = pair
    assert step.gradients_of(resolve("coop"), {"first": (a**2).sum()}, pair)[1] is None
    assert step.added(step.by_term({"first": (a**2).sum(), "again": a.sum()}, pair))[1] is None


def test_ratios_are_lengths_over_the_reference(pair: tuple[Tensor, Tensor]) -> None:
    found = step.ratios(step.by_term(losses(*pair), pair), "first")
    assert found == pytest.approx({"second": (19 / 20) ** 0.5, "constant": 0.0})
    assert step.ratios(step.by_term(losses(*pair), pair), "absent") == {}


class Halves:
    """A rule: the first group's gradient less half the second's."""

    def groups(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return losses["first"], losses["second"] + losses["constant"]

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        return gradients[0] - gradients[1] / 2


def test_a_rule_puts_groups_together(pair: tuple[Tensor, Tensor]) -> None:
    ((a, b),) = step.by_rules([Halves()], [losses(*pair)], [pair])
    assert a is not None
    assert b is not None
    assert a.tolist() == [2 - 1.5, -4 - 1.5]
    assert b.tolist() == [-0.5]
