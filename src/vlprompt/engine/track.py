"""Learning curves beside `metrics.jsonl`, for those who watch them in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlprompt.engine.checkpoint import Checkpoints
from vlprompt.errors import UserError

Track = Literal["tensorboard"]
FOLDER = "tensorboard"


class Curves:
    """TensorBoard's event files in a run's directory, opened at the first epoch that is written."""

    def __init__(self, directory: Path) -> None:
        """UserError where tensorboard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as problem:
            raise UserError(
                f"--track tensorboard needs the package tensorboard ({problem}). Install it with: pip install 'vlprompt[track]'. "
                "Without it every run has the same numbers in metrics.jsonl."
            ) from problem
        self._open = SummaryWriter
        self._directory = directory
        self._writer: Any = None

    def log(self, values: Mapping[str, object]) -> None:
        """Add an epoch: numbers by their names, those in a mapping by ``outer/inner``."""
        epoch = values["epoch"]
        if self._writer is None:  # what an earlier start wrote from this epoch on is taken back
            self._writer = self._open(log_dir=str(self._directory), purge_step=epoch)
        for name, value in _numbers(values).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _numbers(values: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = float(value)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked(Checkpoints):
    """Checkpoints whose log goes to TensorBoard as well."""

    curves: Curves = field(repr=False)

    def log(self, values: Mapping[str, object]) -> None:
        Checkpoints.log(self, values)
        self.curves.log(values)


@contextmanager
def tracked(checkpoints: Checkpoints, track: Track | None) -> Iterator[Checkpoints]:
    """The checkpoints as they are, or with curves that are closed in the end."""
    if track is None:
        yield checkpoints
        return
    curves = Curves(checkpoints.directory / FOLDER)
    try:
        yield Tracked(
            directory=checkpoints.directory,
            config_hash=checkpoints.config_hash,
            every=checkpoints.every,
            curves=curves,
        )
    finally:
        curves.close()
