"""Processes that are started again find each other in a store that still has the words of those that died."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
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


GLOO = "[/build/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation to complete"


@pytest.mark.parametrize(
    ("error", "seen", "said"),
    [
        (RuntimeError(GLOO), UserError, "rank 0 of 1 lost another process: it ended, or was silent for 600 s"),
        (dist.DistBackendError("NCCL says no"), UserError, "--resume"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError, "mat1"),
    ],
)
def test_a_rank_that_is_lost_ends_the_others_with_a_message(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, seen: type[Exception], said: str
) -> None:
    """Under torchrun a rank waits for `PATIENCE` and not for the half hour of torch; other errors stay what they are."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    waits: list[object] = []
    real = dist.init_process_group

    def noted(*arguments: object, **named: object) -> None:
        waits.append(named["timeout"])
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(dist, "init_process_group", noted)
    with pytest.raises(seen, match=said) as found, joined(torch.device("cpu")):
        raise error
    assert type(found.value) is seen
    assert waits == [timedelta(seconds=distributed.PATIENCE)]
    assert not dist.is_initialized()
