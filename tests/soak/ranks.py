"""Pretraining under torchrun whose ranks, or whose launcher, are killed or stopped at random moments; then continued.

`python -m tests.soak.ranks ARGUMENTS` is `vlprompt ARGUMENTS` whose ranks wait for each other for `PATIENCE` seconds alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tests import tiny
from tests.pretrain.made import write_imagenet
from tests.soak import processes
from vlprompt.cli import main
from vlprompt.engine import distributed

PATIENCE = 10.0
LIMIT = 240.0
"""Seconds after which a run counts as one that hangs."""
FAULTS = (
    "rank 1 killed",
    "rank 0 killed",
    "both ranks killed",
    "a rank killed twice",
    "the launcher killed",
    "a rank stopped",
)
OPTIONS = (
    *("--method", "plpp+rpp", "--set", "n_ctx=2", "--set", "epochs=15", "--set", "batch=8", "--set", "lr=0.01"),
    *("--classes-per-step", "4", "--copies", "2", "--held-out", "6", "--save-every", "2", "--log-every", "1"),
    *("--device", "cpu"),
)
STEPS = 60


def faults(folder: Path, stream: random.Random, kinds: tuple[str, ...] = FAULTS) -> Iterator[str]:
    """Each fault in turn at a random step. What torchrun does not start again is continued by hand, to the same bits."""
    if sys.platform != "linux":
        return
    write_imagenet(folder / "data")
    tiny.clip_dir(folder / "clip")
    _begun(folder, folder / "whole", restarts=0).wait(LIMIT)
    wanted = _state(folder / "whole")
    for number, fault in enumerate(cycle(kinds)):
        out = folder / f"run{number}"
        said = _struck(folder, out, fault, stream)
        if not said:
            said = "" if _state(out) == wanted else "other bits, steps or counts"
        yield f"{fault}: {said}" if said else ""


def _struck(folder: Path, out: Path, fault: str, stream: random.Random) -> str:
    """What is wrong, but for the result."""
    restarts = 0 if fault in ("a rank stopped", "the launcher killed") else 3
    launcher = _begun(folder, out, restarts=restarts)
    for moment in sorted(stream.sample(range(STEPS - 8), 2 if fault == "a rank killed twice" else 1)):
        if not _reached(out, moment, launcher):
            continue
        time.sleep(stream.uniform(0, 0.1))
        ranks = processes.below(launcher.pid)[:2]
        hit = {"rank 0 killed": ranks[:1], "rank 1 killed": ranks[1:], "both ranks killed": ranks}.get(fault)
        hit = [stream.choice(ranks)] if hit is None and ranks else hit or []
        if fault == "the launcher killed":
            hit = [launcher.pid]
        processes.strike(hit, signal.SIGSTOP if fault == "a rank stopped" else signal.SIGKILL)
    try:
        code = launcher.wait(LIMIT)
    except subprocess.TimeoutExpired:
        processes.strike([*processes.below(launcher.pid), launcher.pid], signal.SIGKILL)
        return "it hangs"
    if code and restarts:
        return f"it was not started again (exit {code})"
    if code and fault == "a rank stopped" and "lost another process" not in _told(out):
        return "it ended without its message"
    until = time.monotonic() + LIMIT  # ranks without a launcher may hold the directory until they have ended
    while code and time.monotonic() < until:
        code = _begun(folder, out, restarts=0, more=("--resume",)).wait(LIMIT)
    return f"it does not go on (exit {code})" if code else ""


def _begun(folder: Path, out: Path, *, restarts: int, more: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts))
    run = (
        "pretrain",
        "--data",
        str(folder / "data"),
        "--model",
        str(folder / "clip"),
        "--cache",
        str(folder / "cache"),
    )
    out.with_suffix(".log").touch()
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "tests.soak.ranks", *run, "--out", str(out), *OPTIONS, *more],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # more threads than cores wait for each other
        )


def _told(out: Path) -> str:
    return out.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


def _lines(out: Path) -> list[dict[str, object]]:
    try:
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _reached(out: Path, step: int, launcher: subprocess.Popen[bytes]) -> bool:
    """Whether a run has got to a step, and is still running."""
    while launcher.poll() is None:
        if sum("loss" in line for line in _lines(out)) > step:
            return True
        time.sleep(0.01)
    return False


def _state(out: Path) -> object:
    """What has to be the same: both prompts, the steps of the log, each once, and the counts of the summary."""
    if not (out / "pretraining.json").is_file():
        return _told(out)[-2000:]
    summary = json.loads((out / "pretraining.json").read_text(encoding="utf-8"))
    steps = [line["step"] for line in _lines(out) if "loss" in line]
    assert steps == list(range(1, STEPS + 1)), steps
    counts = {name: summary[name] for name in ("images", "steps", "skipped", "top1", "train_top1", "tests")}
    return counts, [(out / name / "prompt.safetensors").read_bytes() for name in ("best", "last")]


if __name__ == "__main__":
    distributed.PATIENCE = PATIENCE
    main()
