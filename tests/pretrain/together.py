"""Runs of pretraining in several Gloo processes that leave the gradient of every step behind."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vlprompt.engine import train
from vlprompt.engine.step import Gradients
from vlprompt.pretrain import run
from vlprompt.pretrain.config import PretrainConfig
from vlprompt.pretrain.run import pretrain_run

PATIENCE = 120
"""Seconds."""
Steps = list[list[torch.Tensor | None]]


def config(root: Path, out: Path, method: str, **changes: Any) -> PretrainConfig:
    """A few steps of one method on the small folder in `root`. Its model knows no "a photo of a" of two tokens."""
    random = {"init": "normal"} if method.split("+")[-1] == "coop" else {}
    base: dict[str, Any] = {
        "method": method,
        "model": str(root / "clip"),
        "data": str(root / "data"),
        "out": out,
        "overrides": {
            "epochs": 2,
            "batch": 29,
            "lr": 0.002,
            "warmup_epochs": 0,
            **random,
            **changes.pop("overrides", {}),
        },
        "classes_per_step": 4,
        "copies": 2,
        "held_out": 6,
        "log_every": 1,
        "device": "cpu",
        "cache": root / "cache",
    }
    return PretrainConfig(**{**base, **changes})


def gradients(cases: Mapping[str, PretrainConfig]) -> dict[str, Steps]:
    """Run every case in this process; the gradients of its steps, in order."""
    taken: Steps = []
    real = train.take

    def noting(optimiser: torch.optim.SGD, parameters: Any, found: Gradients) -> None:
        taken.append([None if one is None else one.detach().clone() for one in found])
        real(optimiser, parameters, found)

    train.take = noting  # type: ignore[assignment]
    out = {}
    try:
        for name, one in cases.items():
            taken.clear()
            pretrain_run(one)
            out[name] = list(taken)
    finally:
        train.take = real
    return out


def _rank(rank: int, world: int, port: int, cases: Mapping[str, PretrainConfig], place: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    run.CHUNK_ROWS = 10  # text rows in parts, which one process alone runs at once
    dist.init_process_group("gloo")
    found = gradients(cases)
    dist.destroy_process_group()
    (place / f"{rank}.pkl").write_bytes(pickle.dumps(found))


def in_processes(world: int, cases: Mapping[str, PretrainConfig], place: Path) -> list[dict[str, Steps]]:
    """The same in so many Gloo processes; every rank's gradients."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = mp.start_processes(
        _rank, args=(world, port, dict(cases), place), nprocs=world, start_method="spawn", join=False
    )
    assert started is not None
    deadline = time.monotonic() + PATIENCE
    while not started.join(timeout=1):
        if time.monotonic() > deadline:
            for process in started.processes:
                process.kill()
            raise TimeoutError(f"the processes are not done after {PATIENCE} s: they wait for each other")
    return [pickle.loads((place / f"{rank}.pkl").read_bytes()) for rank in range(world)]
