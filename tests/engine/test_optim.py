"""The published schedule, step by step."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine.made import lesson, write_images
from vlprompt.engine.optim import batches, evenly, lr_at, optimiser_of
from vlprompt.methods.resolve import resolve
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


def test_classes_are_drawn_evenly() -> None:
    labels = [0] * 20 + [4] * 3 + [7] * 2
    for epoch in range(5):
        places = evenly(labels, seed=1, epoch=epoch).tolist()
        seen = Counter(places)
        by_class = Counter(labels[place] for place in places)
        assert sorted(by_class.values()) == [8, 8, 9], "25 images of three classes"
        assert max(seen[place] for place in range(20)) == 1, "a large class repeats no image"
        assert {seen[place] for place in range(20, 23)} <= {2, 3}
        assert all(seen[place] in ((4,) if by_class[7] == 8 else (4, 5)) for place in range(23, 25))
    assert evenly(labels, seed=1, epoch=3).tolist() == evenly(labels, seed=1, epoch=3).tolist()
    assert evenly(labels, seed=1, epoch=3).tolist() != evenly(labels, seed=1, epoch=4).tolist()
    assert sorted(evenly([2, 1, 2, 1], seed=1, epoch=0).tolist()) == [0, 1, 2, 3], "equal classes: every image once"


def test_an_epoch_of_even_classes_has_the_steps_of_any_other(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "folder", parts={"train": 6})
    for number in range(5):
        (folder / f"train/cat/{number}.png").unlink()
    learned = lesson(folder)
    steps = learned.indices(2, 4, "classes")
    names = Counter(learned.class_names[learned.samples[place].label] for index in steps for place in index.tolist())
    assert [len(index) for index in steps] == [len(index) for index in learned.indices(2, 4)] == [4, 4, 4]
    assert sum(names.values()) == 12, "of 13, the last step is not full"
    assert min(names.values()) >= 3, names


def test_the_option_counts_for_the_hash_only_where_it_is_used() -> None:
    assert "draw" not in resolve("coop").options
    assert resolve("coop", {"draw": "classes"}).options["draw"] == "classes"
