"""How far a run of pretraining is: the state on disk, from which it continues with the same bits, and its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlprompt import disk, reading
from vlprompt.engine.checkpoint import State, packed, unpacked

CHECKPOINT, METRICS, SKIPPED = "checkpoint.safetensors", "metrics.jsonl", "skipped.jsonl"
SCHEMA = 2


@dataclass(slots=True)
class Progress:
    """What the loop carries from step to step beside prompt and optimiser."""

    step: int = 0
    """Steps done."""
    images: int = 0
    """Images learned from, copies not counted."""
    seconds: float = 0.0
    """Wall time of learning, over all starts; tests are not in it."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Id -> reason of images that could not be used."""
    best_top1: float | None = None
    """Of the held-out images."""
    best_step: int = 0
    tests: list[dict[str, float | None]] = field(default_factory=list)
    """Every test so far: step, epoch, top1, train_top1."""


def save(directory: Path, state: State, progress: Progress, config_hash: str) -> None:
    """Write the state; the one before stays until this one is whole on disk."""
    numbers: dict[str, object] = {"schema": SCHEMA, "epoch": state.epoch, "config": config_hash}
    numbers |= {name: getattr(progress, name) for name in Progress.__slots__}
    disk.write_bytes(directory / CHECKPOINT, packed(state, numbers))


def read(directory: Path) -> bytes | None:
    """The last state's bytes; None where there is none."""
    path = directory / CHECKPOINT
    return path.read_bytes() if path.is_file() else None


def restored(data: bytes, place: Path, config_hash: str) -> tuple[State, Progress]:
    """The state of `read`. UserError where it is damaged or another configuration's."""
    state, numbers = unpacked(place / CHECKPOINT, data, SCHEMA, config_hash)
    return state, reading.typed(Progress, numbers, str(place / CHECKPOINT))


def log(directory: Path, name: str, values: Mapping[str, object]) -> None:
    """Append a line to a log."""
    with (directory / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def cut_logs(directory: Path, step: int) -> None:
    """Take off what a killed run has written after its last checkpoint."""
    for name in (METRICS, SKIPPED):
        path = directory / name
        if path.is_file():
            kept = [
                line
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if _step_of(line) <= step
            ]
            disk.write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a line, from 1; infinity for a line that was cut short by a kill."""
    try:
        return int(reading.json_value(line, METRICS)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
