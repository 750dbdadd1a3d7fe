"""Processes that are started again find each other in a store that still has the words of those that died."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore, PrefixStore

from vlprompt.engine import distributed
from vlprompt.engine.distributed import joined, meet
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


def test_an_address_where_nobody_is_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, "SECONDS_TO_REACH", 1.0)
    wanted = f"rank 1 of 2 did not reach the others at localhost:{port} within 1 s"
    with pytest.raises(UserError, match=wanted), joined(torch.device("cpu")):
        pass
