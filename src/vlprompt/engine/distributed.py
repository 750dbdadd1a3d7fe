"""Several processes that take one step together, or one alone.

Each process (rank) has some of the step's images and encodes some of its classes. Class features are gathered, and every rank
computes its losses on all of them. The gradient of a rank's own class features is the SUM over ranks of dL_r/dT, because every
rank's loss reads them. Then the gradients of learned tensors are averaged over ranks. With image-dependent losses scaled by
R n_r / N (`step.weighted`) that is the gradient of the one loss of all images together, for text, image and shared tensors alike.

Letters: R ranks, n_r images of rank r, N all images of the step, C classes in view, E joint embedding.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vlprompt.engine.step import Gradients
from vlprompt.errors import UserError, data_error

Thing = TypeVar("Thing")


def part_of(rank: int, world: int, number: int) -> range:
    """Which of so many things are a rank's."""
    return range(rank * number // world, (rank + 1) * number // world)


class Alone:
    """One process: nothing is exchanged."""

    rank = 0
    world = 1

    def part(self, number: int) -> range:
        """Which of so many things are this rank's: neighbouring ones, shares as equal as can be."""
        return part_of(self.rank, self.world, number)

    def labels(self, labels_B: Tensor, most: int) -> tuple[Tensor, ...]:
        """The labels of every rank's images, by rank; none has more than `most`."""
        return (labels_B,)

    def gather(self, rows_cE: Tensor, number: int) -> Tensor:
        """(number, E): all ranks' rows, each rank giving those of `part(number)`; its gradient sums over ranks."""
        return rows_cE

    def average(self, gradients: Gradients, parameters: Sequence[Tensor]) -> Gradients:
        """The mean over ranks of every tensor's gradient; None where no rank has one."""
        return gradients

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks of small tensors of one shape, float64."""
        return values.double()

    def objects(self, own: Thing) -> list[Thing]:
        """Every rank's object, by rank."""
        return [own]


class Together(Alone):
    """A rank of a process group that has been started."""

    def __init__(self, device: torch.device) -> None:
        """device: where exchanged tensors lie: the rank's GPU with NCCL, the CPU with Gloo."""
        self.rank, self.world, self.device = dist.get_rank(), dist.get_world_size(), device

    def labels(self, labels_B: Tensor, most: int) -> tuple[Tensor, ...]:
        own = torch.full((1 + most,), -1, dtype=torch.int64, device=self.device)
        own[0] = len(labels_B)
        own[1 : 1 + len(labels_B)] = labels_B
        found = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(found, own)
        return tuple(one[1 : 1 + int(one[0])].to(labels_B.device) for one in found)

    def gather(self, rows_cE: Tensor, number: int) -> Tensor:
        gathered: Tensor = _Gathered.apply(rows_cE, number, self)  # type: ignore[no-untyped-call]
        return gathered

    def average(self, gradients: Gradients, parameters: Sequence[Tensor]) -> Gradients:
        there = torch.tensor([float(one is not None) for one in gradients], device=self.device)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        joined = torch.cat([there, *(one.detach().to(self.device, torch.float32).reshape(-1) for one in flat)])
        dist.all_reduce(joined)
        there, joined = joined[: len(flat)], joined[len(flat) :] / self.world
        pieces = torch.split(joined, [one.numel() for one in flat])
        return tuple(
            piece.reshape(p.shape).to(p.device, p.dtype) if reached else None
            for piece, p, reached in zip(pieces, parameters, (there > 0).tolist(), strict=True)
        )

    def total(self, values: Tensor) -> Tensor:
        summed = values.detach().to(self.device, torch.float64)
        dist.all_reduce(summed)
        return summed.to(values.device)

    def objects(self, own: Thing) -> list[Thing]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, own)
        return found


class _Gathered(torch.autograd.Function):
    """All ranks' rows; backward: the sum over ranks of the rows' gradients, of which each keeps its own rows'."""

    @staticmethod
    def forward(ctx: Any, rows_cE: Tensor, number: int, ranks: Together) -> Tensor:
        ctx.number, ctx.ranks = number, ranks
        counts = [len(part_of(rank, ranks.world, number)) for rank in range(ranks.world)]
        assert len(rows_cE) == counts[ranks.rank], "a rank gives the rows of its part"
        padded = rows_cE.new_zeros(max(counts), rows_cE.shape[1])  # parts differ by one row at most
        padded[: len(rows_cE)] = rows_cE
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([one[:count] for one, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        part = ctx.ranks.part(ctx.number)
        return summed[part.start : part.stop], None, None


ALONE = Alone()


def launched() -> bool:
    """Whether this process was started by torchrun (or whatever else sets its variables)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarted() -> bool:
    """Whether torchrun has started the processes again after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def own_device(device: str) -> str:
    """The device of this rank: with several on one machine each takes the GPU of its local number."""
    if not launched() or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UserError(
            f"this is local rank {local} and there are {torch.cuda.device_count()} GPUs. Start as many processes as there are GPUs "
            f"(torchrun --nproc-per-node {torch.cuda.device_count()}), or use --device cpu."
        )
    return f"cuda:{local}"


@contextmanager
def joined(device: torch.device) -> Iterator[Alone]:
    """The ranks of this run: NCCL between GPUs, Gloo between CPUs; alone where torchrun did not start it.

    A process group that is there already is used and left as it is. UserError: another rank ended, or was silent for `PATIENCE`.
    """
    own = device if device.type == "cuda" else torch.device("cpu")
    if dist.is_available() and dist.is_initialized():
        yield Together(own)
        return
    if not launched():
        yield ALONE
        return
    store, rank, world = _reached()
    given: dict[str, Any] = {"store": meet(store, rank, world), "rank": rank, "world_size": world}
    given["timeout"] = timedelta(seconds=PATIENCE)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, **given)
    else:
        dist.init_process_group("gloo", **given)
    try:
        yield Together(own)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).splitlines()[0][-200:]
        raise data_error(
            f"rank {rank} of {world} lost another process: it ended, or was silent for {PATIENCE:.0f} s ({reason}). "
            "See what the others say. The last checkpoint is kept: the same command with --resume goes on from it, and torchrun with "
            "--max-restarts by itself."
        ) from error
    finally:
        dist.destroy_process_group()


SECONDS_TO_REACH = 60.0


def _reached() -> tuple[Store, int, int]:
    """The store of this run, this rank, and how many there are. UserError where nobody answers."""
    try:
        return next(rendezvous("env://", timeout=timedelta(seconds=SECONDS_TO_REACH)))  # type: ignore[no-any-return]
    except (ValueError, RuntimeError) as error:
        place = f"{os.environ.get('MASTER_ADDR', 'no MASTER_ADDR')}:{os.environ.get('MASTER_PORT', 'no MASTER_PORT')}"
        raise data_error(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} did not reach the others at {place} within "
            f"{SECONDS_TO_REACH:.0f} s ({str(error).splitlines()[0][:200]}). Start all processes at once with torchrun, and check that "
            "every machine can reach that address."
        ) from error


PATIENCE = 600.0
"""Seconds that processes wait for each other."""
PAUSE = 0.05


def meet(store: Store, rank: int, world: int, *, patience: float = PATIENCE) -> Store:
    """The part of a store that belongs to this start alone.

    Every rank writes a fresh nonce under its number. Rank 0 answers every rank's nonce with the run id, then waits for all
    acknowledgements. Nobody reads an answer to an old nonce. UserError if a rank does not come.
    """
    own, deadline = secrets.token_hex(8), time.monotonic() + patience
    if rank == 0:
        _gather(store, own, world, deadline)
        return PrefixStore(f"start/{own}", store)
    store.set(f"hello/{rank}", own)
    while not store.check([f"welcome/{own}"]):
        _pause(deadline)
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


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise UserError(
            "the processes of this run did not find each other. Is every machine started with the same --rdzv-endpoint and number of "
            "machines, and can they reach it?"
        )
    time.sleep(PAUSE)
