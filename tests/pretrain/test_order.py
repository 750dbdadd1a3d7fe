"""The plan: every image once per epoch, whatever the number of processes; shards are read by one process each."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from benchmarks import listing

from vlprompt.pretrain.feed import own_share
from vlprompt.pretrain.order import StepOrder

RUNS = [7, 7, 7, 7, 7, 7, 7, 7, 2]


@pytest.mark.parametrize("runs", [None, RUNS])
@pytest.mark.parametrize("batch", [1, 4, 8, 58, 11])
def test_every_image_once_per_epoch(runs: list[int] | None, batch: int) -> None:
    plan = StepOrder(58, batch, 2, seed=3, runs=runs)
    assert plan.steps == 2 * plan.steps_per_epoch
    orders = []
    for epoch in range(2):
        steps = [plan.images(epoch * plan.steps_per_epoch + step) for step in range(plan.steps_per_epoch)]
        assert all(len(one) == batch for one in steps[:-1])
        assert 0 < len(steps[-1]) <= batch
        orders.append(torch.cat(steps))
        assert sorted(orders[-1].tolist()) == list(range(58))
    assert batch == 58 or not torch.equal(*orders), "another order in each epoch"


@pytest.mark.parametrize("runs", [None, RUNS])
def test_ranks_share_a_step_without_gap_or_overlap(runs: list[int] | None) -> None:
    plan = StepOrder(58, 8, 1, seed=3, runs=runs)
    for world in (1, 2, 3, 8, 9):
        for step in range(plan.steps):
            shares = [own_share(plan.images(step), rank, world) for rank in range(world)]
            assert torch.equal(torch.cat(shares), plan.images(step))


def test_a_step_is_found_without_those_before_it() -> None:
    plan, other = (StepOrder(58, 8, 3, seed=3, runs=RUNS) for _ in range(2))
    for step in range(17):
        plan.images(step)
    assert torch.equal(plan.images(17), other.images(17))
    assert not torch.equal(StepOrder(58, 8, 3, seed=4, runs=RUNS).images(17), other.images(17))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_read_different_shards(world: int) -> None:
    """Eighty shards of ten, eight lanes: a shard is touched by more than one rank only where lanes meet in it."""
    plan = StepOrder(800, 16, 1, seed=0, runs=[10] * 80)
    assert plan.lanes == 16
    readers: dict[int, set[int]] = {}
    for step in range(plan.steps):
        for rank in range(world):
            for image in own_share(plan.images(step), rank, world).tolist():
                readers.setdefault(image // 10, set()).add(rank)
    assert len(readers) == 80
    shared = sum(len(ranks) > 1 for ranks in readers.values())
    assert shared <= 4 * (world - 1), "the four shards that are mixed where two ranks' lanes meet"
    late = {image // 10 for step in range(5) for image in plan.images(step).tolist()}
    assert len(late) > 16, "a step mixes images of many shards"


@pytest.mark.parametrize(("batch", "runs"), [(8, RUNS), (4, [5, 30, 1, 12]), (64, [11] * 90), (6, [1, 2, 3])])
def test_a_step_takes_the_next_images_of_every_lane(batch: int, runs: list[int]) -> None:
    plan = StepOrder(sum(runs), batch, 1, seed=5, runs=runs)
    assert plan.lanes > 1
    sequence = plan._through_shards(0).tolist()
    cuts = [lane * plan.number // plan.lanes for lane in range(plan.lanes + 1)]
    lanes = [sequence[start:stop] for start, stop in pairwise(cuts)]
    order = [lane.pop(0) for _ in range(plan.steps) for lane in lanes for _ in range(batch // plan.lanes) if lane]
    assert torch.cat([plan.images(step) for step in range(plan.steps)]).tolist() == order


@pytest.mark.parametrize("kind", listing.KINDS)
def test_the_listing_of_very_many_images_is_simulated(kind: str) -> None:
    found = listing.serve(kind, 60_011, 20)
    assert found["peak_gib"] > 0
    assert {"list_s", "identity_s", "draw_s", "resume_first_s", "resume_last_s"} <= found.keys()
    assert ("share_read" in found) == (kind == "shards")
