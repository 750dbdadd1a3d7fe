"""Processes that are started again find each other in a store that still has the words of those that died."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore, PrefixStore

from vlprompt.engine.distributed import meet
from vlprompt.errors import UserError


def started(store: HashStore, world: int) -> list[PrefixStore]:
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda rank: meet(store, rank, world, patience=30), range(world)))  # type: ignore[arg-type]


def test_every_start_has_a_part_of_its_own() -> None:
    store = HashStore()
    for world in (1, 4, 4, 3):
        parts = started(store, world)
        parts[-1].set("address", f"of {world}")
        assert {part.get("address") for part in parts} == {f"of {world}".encode()}
        fresh = started(store, world)
        assert not fresh[0].check(["address"])


def test_a_rank_that_does_not_come_is_an_error() -> None:
    store = HashStore()
    started(store, 2)
    for rank in (0, 1):
        with pytest.raises(UserError, match="did not find each other"):
            meet(store, rank, 2, patience=0.2)
