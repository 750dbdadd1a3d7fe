"""The book of pretraining: how far a run is, its state on disk, from which it continues with the same bits, and its logs.

Every rank keeps it; only rank 0 writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from vlprompt import disk, reading
from vlprompt.engine.checkpoint import CHECKPOINT, State, packed, unpacked
from vlprompt.engine.distributed import Alone
from vlprompt.engine.optim import lr_at
from vlprompt.engine.train import Learner, Taken
from vlprompt.errors import data_error
from vlprompt.pretrain.config import PretrainConfig
from vlprompt.pretrain.order import StepOrder
from vlprompt.records import METRICS, cut_log, log
from vlprompt.types import Schedule

SKIPPED = "skipped.jsonl"
SCHEMA = 2


@dataclass(slots=True)
class Progress:
    """What the loop carries from step to step besides prompt and optimiser."""

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


def restored(data: bytes, place: Path, config_hash: str) -> tuple[State, Progress]:
    """The state of a checkpoint's bytes. UserError where it is damaged or another configuration's."""
    state, numbers = unpacked(place / CHECKPOINT, data, SCHEMA, config_hash)
    progress = reading.typed(Progress, numbers, str(place / CHECKPOINT))
    state.step = progress.step
    return state, progress


def cut_logs(directory: Path, step: int) -> None:
    """Take off what a killed run has written after its last checkpoint."""
    for name in (METRICS, SKIPPED):
        cut_log(directory / name, "step", step)


@dataclass(slots=True, kw_only=True)
class StepBook:
    """The book of a run that is read by steps (`engine.train.Book`)."""

    plan: StepOrder
    copies: int
    config: PretrainConfig
    max_skipped: int
    progress: Progress
    ranks: Alone
    config_hash: str
    test: Callable[[nn.Module], Mapping[str, float | None]]
    """Prompt -> top1 and train_top1; called by all ranks at once."""
    better: Callable[[nn.Module], None]
    """Called by rank 0 with a prompt that is the best so far on held-out images."""
    measures: bool = False
    _sums: dict[str, float] = field(default_factory=dict)
    _logged: tuple[int, int, float] = (0, 0, 0.0)
    """Steps, images and seconds at the last line of the log."""
    _saved: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._logged = self._now

    @property
    def _now(self) -> tuple[int, int, float]:
        return self.progress.step, self.progress.images, self.progress.seconds

    @property
    def _since(self) -> tuple[int, int, float]:
        steps, images, seconds = self._logged
        return self.progress.step - steps, self.progress.images - images, self.progress.seconds - seconds

    def kept(self, taken: int, per_epoch: int) -> str:
        return f" The state after step {taken} or before is kept in {self.config.out / CHECKPOINT}."

    def counts(self, taken: Taken) -> Mapping[str, float]:
        """UserError (exit 3): too many images could not be used."""
        self._note_skipped(taken)
        self.progress.step += 1
        self.progress.images += taken.images // self.copies
        self.progress.seconds += taken.seconds
        for name, value in taken.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        _, images, seconds = self._since
        return {"loss": taken.loss, "epoch": taken.epoch + 1, "images/s": images / seconds if seconds else 0.0}

    def writes(self, taken: Taken, learner: Learner) -> None:
        if self.progress.step % self.config.log_every == 0 or self.progress.step == self.plan.steps:
            self._log(taken, learner.schedule)
        tested = self._test_if_due(taken, learner.prompt)
        if self.ranks.rank == 0:
            self._save_if_due(tested or taken.last, learner)

    def _note_skipped(self, taken: Taken) -> None:
        """Count what could not be used, on all ranks alike; stop where it is too much."""
        if taken.images == len(self.plan.images(taken.step)) * self.copies:
            return
        skipped = self.progress.skipped
        for found in self.ranks.objects(taken.batch.skipped):
            for name, reason in found:
                if name not in skipped:
                    skipped[name] = reason
                    if self.ranks.rank == 0:
                        log(self.config.out / SKIPPED, {"step": taken.step + 1, "image": name, "reason": reason})
        if len(skipped) > self.max_skipped:
            name, reason = next(reversed(skipped.items()))
            raise data_error(
                f"{len(skipped)} images could not be used, more than --max-skipped {self.max_skipped}; the last: "
                f"{reason or name} All are in {self.config.out / SKIPPED}. Repair the data, or allow more."
            )

    def _log(self, taken: Taken, schedule: Schedule) -> None:
        progress, (steps, images, seconds) = self.progress, self._since
        means = {name: total / steps for name, total in self._sums.items()}
        line = {
            "step": progress.step,
            "epoch": taken.epoch,
            "lr": lr_at(taken.epoch, schedule),
            "loss": sum(means.values()),
            "losses": means,
            "classes": taken.classes,
            "images": progress.images,
            "skipped": len(progress.skipped),
            "images_per_s": round(images / seconds if seconds else 0.0, 3),
            "seconds": round(progress.seconds, 3),
            "left_s": round((self.plan.steps - progress.step) * seconds / steps, 1),
        }
        if self.ranks.rank == 0:
            log(self.config.out / METRICS, line)
        self._sums.clear()
        self._logged = self._now

    def _test_if_due(self, taken: Taken, prompt: nn.Module) -> bool:
        progress, every = self.progress, self.config.evaluate_every
        due = taken.last if every is None else progress.step % every == 0 or progress.step == self.plan.steps
        if not due:
            return False
        found = self.test(prompt)
        top1, best = found.get("top1"), progress.best_top1
        progress.tests.append({"step": progress.step, "epoch": taken.epoch, **found})
        if top1 is not None and (best is None or top1 > best):
            progress.best_top1, progress.best_step = top1, progress.step
            if self.ranks.rank == 0:
                self.better(prompt)
        if self.ranks.rank == 0 and any(value is not None for value in found.values()):
            log(self.config.out / METRICS, {"step": progress.step, "epoch": taken.epoch, "test": dict(found)})
        return True

    def _save_if_due(self, now: bool, learner: Learner) -> None:
        late = time.perf_counter() - self._saved > 60 * self.config.save_minutes
        if now or late or self.progress.step % self.config.save_every == 0:
            epoch, _ = self.plan.place(self.progress.step)
            save(self.config.out, learner.state(epoch, self.progress.seconds), self.progress, self.config_hash)
            self._saved = time.perf_counter()
