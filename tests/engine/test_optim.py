"""The published schedule, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vlprompt.engine.optim import batches, lr_at, optimiser_of
from vlprompt.types import Schedule


def test_learning_rates_are_dassls() -> None:
    """Epoch 0 at 1e-5, then a cosine over all epochs that begins at lr and does not reach 0."""
    schedule = Schedule(epochs=4, lr=0.002)
    rates = [lr_at(epoch, schedule) for epoch in range(4)]
    expected = [1e-5, 0.002, 0.001 * (1 + math.sqrt(0.5)), 0.001]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert lr_at(199, Schedule()) == pytest.approx(0.001 * (1 + math.cos(math.pi * 198 / 200)))


def test_warm_up_can_be_left_out_or_longer() -> None:
    assert lr_at(0, Schedule(epochs=4, lr=0.5, warmup_epochs=0)) == 0.5
    longer = Schedule(epochs=10, lr=0.5, warmup_epochs=3)
    assert [lr_at(epoch, longer) for epoch in range(4)] == [1e-5, 1e-5, 1e-5, 0.5]


def test_sgd_is_the_textbooks() -> None:
    """v = momentum v + (g + decay w); w = w - lr v; the first v is g + decay w."""
    w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimiser = optimiser_of([w], Schedule(lr=0.1))
    wanted, speed = [2.0, -1.0], [0.0, 0.0]
    for step, gradient in enumerate(([0.5, 1.0], [-1.0, 0.25])):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        for i in range(2):
            decayed = gradient[i] + 5e-4 * wanted[i]
            speed[i] = decayed if step == 0 else 0.9 * speed[i] + decayed
            wanted[i] -= 0.1 * speed[i]
    assert w.tolist() == pytest.approx(wanted, rel=1e-14)


def test_every_full_batch_once_and_the_rest_dropped() -> None:
    parts = batches(10, 4, seed=1, epoch=0)
    assert [len(part) for part in parts] == [4, 4]
    assert len(set(torch.cat(parts).tolist())) == 8


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    (part,) = batches(3, 32, seed=1, epoch=0)
    assert sorted(part.tolist()) == [0, 1, 2]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    first = torch.cat(batches(64, 8, seed=1, epoch=3))
    torch.manual_seed(99)
    assert torch.equal(first, torch.cat(batches(64, 8, seed=1, epoch=3)))
    assert not torch.equal(first, torch.cat(batches(64, 8, seed=1, epoch=4)))
    assert not torch.equal(first, torch.cat(batches(64, 8, seed=2, epoch=3)))
