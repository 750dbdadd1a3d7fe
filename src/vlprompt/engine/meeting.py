"""How the processes of a run find each other again after torchrun has started them anew.

torchrun keeps one store for all starts (seen in torch 2.13), so that the addresses of processes that are dead still stand in it, and
a process that reads one of them waits for ever. So the processes first agree on a word that was never used, and put it before
everything that they write.
"""

from __future__ import annotations

import secrets
import time

from torch.distributed.distributed_c10d import PrefixStore, Store

from vlprompt.errors import UserError

PATIENCE = 600.0
"""Seconds that processes wait for each other."""
PAUSE = 0.05


def meet(store: Store, rank: int, world: int, *, patience: float = PATIENCE) -> Store:
    """The part of a store that belongs to this start alone.

    Every rank writes a new word of its own under its number. Rank 0 answers each word that it reads, under a key made of that word,
    with the run's new word, and reads again until every rank has said, under a key made of the run's word, that it knows it: an
    answer to an old word is read by nobody. UserError where a rank does not come.
    """
    own, deadline = secrets.token_hex(8), time.monotonic() + patience
    if rank == 0:
        _gather(store, own, world, deadline)
        return PrefixStore(f"start/{own}", store)
    store.set(f"hello/{rank}", own)
    _wait(store, f"welcome/{own}", deadline)
    run = store.get(f"welcome/{own}").decode()
    store.set(f"here/{run}/{rank}", "yes")
    return PrefixStore(f"start/{run}", store)


def _gather(store: Store, run: str, world: int, deadline: float) -> None:
    """Answer every rank until all have heard."""
    missing = set(range(1, world))
    while missing:
        for rank in sorted(missing):
            if store.check([f"hello/{rank}"]):
                store.set(f"welcome/{store.get(f'hello/{rank}').decode()}", run)
            if store.check([f"here/{run}/{rank}"]):
                missing.discard(rank)
        if missing:
            _pause(deadline)


def _wait(store: Store, key: str, deadline: float) -> None:
    while not store.check([key]):
        _pause(deadline)


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise UserError(
            "the processes of this run did not find each other. Is every machine started with the same --rdzv-endpoint and number of "
            "machines, and can they reach it?"
        )
    time.sleep(PAUSE)
