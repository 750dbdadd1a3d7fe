"""Runs whose data vanishes or whose clock jumps, and what must not grow: ten thousand steps, a million listed rows."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.engine.made import config, write_images
from vlprompt.bench import work
from vlprompt.data.samples import Sample
from vlprompt.data.sources import list_source
from vlprompt.engine.checkpoint import CHECKPOINT
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError

PROMPT = Path("seed1", "prompt.safetensors")
FACT = "measured: "
"""What a try begins with that went well and says what it measured."""
ROOM = 48
"""MiB that a process may grow by after it has warmed up: allocators keep what they had once."""


def vanished(folder: Path, stream: random.Random) -> Iterator[str]:
    """Learning whose images are taken away at a random read, some or all; given back, it goes on to the same bits."""
    clip, data = tiny.clip_dir(folder / "clip"), write_images(folder / "data")

    def learn(name: str, **changes: object) -> bytes:
        run = config(clip, data, folder / name, cache=folder / f"{name}-cache", **changes)
        train_run(run)
        return (run.out / PROMPT).read_bytes()

    wanted, read = learn("whole"), Sample.read
    aside, number = folder / "aside", 0
    while True:
        number += 1
        name, left = f"run{number}", stream.randrange(1, 90)
        gone = data if stream.random() < 0.5 else stream.choice(sorted(data.rglob("*.png")))

        def taken(sample: Sample, _gone: Path = gone) -> bytes:
            nonlocal left
            left -= 1
            if left == 0:
                _gone.rename(aside)
            return read(sample)

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Sample, "read", taken)
                learn(name)
            said = ""
        except UserError:
            said = ""
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:200]}"
        if aside.exists():
            aside.rename(gone)
        place = folder / name
        if not (place / PROMPT).is_file() and not said:
            shutil.rmtree(place / ".lock", ignore_errors=True)
            said = "" if learn(name, resume=place.exists()) == wanted else f"run {number} has other bits"
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(folder / f"{name}-cache", ignore_errors=True)
        yield said


def clocks(folder: Path, stream: random.Random) -> Iterator[str]:
    """Attempts that are killed under a clock that jumps by years: who got to a checkpoint never fails, who did not does at the limit."""
    limit, number = 3, 0
    while True:
        number += 1
        place = folder / str(number)
        place.mkdir()
        gets_on = stream.random() < 0.5
        ahead = stream.uniform(-3e8, 3e8)  # of the machine that keeps the files
        given_up = 0
        for _ in range(limit + 2):
            jump = stream.uniform(-3e8, 3e8)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(time, "time", lambda _jump=jump: _jump + 1.7e9)
                try:
                    with work.attempt(place, limit):
                        _at(place / work.ATTEMPTS, 1.7e9 + ahead)
                        if gets_on:
                            (place / CHECKPOINT).touch()
                            _at(place / CHECKPOINT, 1.7e9 + ahead + 1)
                        raise SystemExit  # as a kill: nothing is noted but that it began
                except SystemExit:
                    history = work.read(place)
                    work._write(place, work.History(begun=True, reasons=history.reasons))
                    _at(place / work.ATTEMPTS, 1.7e9 + ahead)
                except work.GivenUp:
                    given_up += 1
        right = given_up == 0 if gets_on else given_up > 0
        shutil.rmtree(place)
        yield "" if right else f"given up {given_up} times, {'with' if gets_on else 'without'} a checkpoint"


def steps(folder: Path, _: random.Random, *, each: int = 2500) -> Iterator[str]:
    """Learning `each` steps at a time in one process: memory and open files stay as they are after the first two times."""
    clip, data = tiny.clip_dir(folder / "clip"), write_images(folder / "data")
    sizes: list[tuple[float, int]] = []
    while True:
        run = config(clip, data, folder / "run", overrides={"epochs": each // 3}, cache=folder / "cache", save_every=50)
        train_run(run)
        shutil.rmtree(folder / "run")
        sizes.append((_resident(), len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0))
        grown, files = (now - then for now, then in zip(sizes[-1], sizes[min(1, len(sizes) - 1)], strict=True))
        yield "" if grown < ROOM and files < 4 else f"grown by {grown:.0f} MiB and {files} open files"


def rows(folder: Path, _: random.Random, *, number: int = 1_000_000, per_folder: int = 10_000) -> Iterator[str]:
    """A table of `number` images, each a file: listed, every one of them, within 4 KiB of memory a row, which is given back."""
    source = write_images(folder / "data", parts={"train": 1})
    picture = next(source.rglob("*.png"))
    lines = ["path,label"]
    for first in range(0, number, per_folder):
        place = folder / "many" / str(first)
        place.mkdir(parents=True)
        shutil.copy(picture, place / "0.png")
        for i in range(first, min(first + per_folder, number)):
            if i > first:
                os.link(place / "0.png", place / f"{i - first}.png")
            lines.append(f"many/{first}/{i - first}.png,class {i % 1000}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    left = 0.0
    while True:
        before, began = _resident(), time.process_time()
        listing = list_source(table)
        took, grown = time.process_time() - began, (_resident() - before) * 2**20 / number
        wrong = len(listing.entries) != number or len(listing.class_names) != min(number, 1000)
        del listing
        after, left = _resident() - (left or _resident()), left or _resident()
        wrong = wrong or (number >= 100_000 and (grown > 4096 or after > ROOM))
        said = f"{took:.0f} s of processor, {grown:,.0f} bytes a row while it is held, {after:.0f} MiB more after the first time"
        yield f"{said}; all rows: {not wrong}" if wrong else f"{FACT}{said}"


def _at(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


def _resident() -> float:
    """MiB that this process holds now; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0.0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
