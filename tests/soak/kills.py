"""A process that is killed, or whose disk fills up, at each of its file operations in turn."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.report import made
from vlprompt import disk, records
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.errors import UserError

OPERATIONS = ("replace", "fsync", "open", "close")


def work(folder: Path, number: int) -> None:
    """What every run writes: a checkpoint, then predictions and a record."""
    state = State(epoch=number, parameters={"ctx": torch.full((4, 8), float(number))})
    Checkpoints(directory=folder, config_hash="abc").save(state)
    one = made.record(seed=number, num_classes=4, num_test=20, top1=None)
    records.write(folder, one, made.predictions("birds", [n % 4 for n in range(20)], 4, 0.5, seed=number))


def consistent(folder: Path) -> None:
    """Each file is one of the two versions, whole. AssertionError, UserError: it is not."""
    state = Checkpoints(directory=folder, config_hash="abc").load()
    assert state is not None
    assert state.epoch in (1, 2)
    assert bool((state.parameters["ctx"] == float(state.epoch)).all())
    record = records.read(folder)
    assert record.seed in (1, 2)
    assert records.read_predictions(folder, record) is not None


def killed_in_turn(folder: Path, *, full: bool) -> Iterator[str]:
    """Run the work in a child that ends (or whose disk is full) at its first, second, ... operation until one gets through."""
    work(folder, 1)
    for stop in range(1, 200):
        child = os.fork()
        if not child:
            _child(folder, stop, full=full)
        _, status = os.waitpid(child, 0)
        try:
            consistent(folder)
        except (AssertionError, UserError) as error:
            yield f"operation {stop}: {error}"
        else:
            yield ""
        if os.waitstatus_to_exitcode(status) == 0:
            return
        work(folder, 1)


def _child(folder: Path, stop: int, *, full: bool) -> None:
    count = 0
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            original = getattr(os, name)

            def counted(*args: object, _original: object = original, **kwargs: object) -> object:
                nonlocal count
                count += 1
                if count == stop and full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                if count == stop:
                    os._exit(9)
                return _original(*args, **kwargs)  # type: ignore[operator]

            patch.setattr(os, name, counted)
        try:
            work(folder, 2)
        except OSError as error:
            os._exit(8 if disk.is_full(error) else 7)
    os._exit(0)


TRAIN = ("train", "--data", "emoji-symbols", "--model", "pocket-s", "--method", "coop", "--shots", "1", "--seeds", "1")


def trainings(folder: Path, stream: random.Random) -> Iterator[str]:
    """`vlprompt train` killed at a random moment, then resumed: the same prompt, bit for bit."""
    command = [sys.executable, "-m", "vlprompt", *TRAIN, "--set", "epochs=3"]
    wanted = _prompt(command, folder / "whole")
    number = 0
    while True:
        out = folder / f"run{number}"
        number += 1
        process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(stream.uniform(3, 25))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        yield "" if _prompt([*command, "--resume"], out) == wanted else f"run {number} has other bits"


def _prompt(command: list[str], out: Path) -> bytes:
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    return (out / "seed1" / "prompt.safetensors").read_bytes()
