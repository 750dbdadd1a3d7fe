"""How the engine tells what it does, without printing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlprompt.records import Record


class Observer:
    """What a progress display overrides; by itself it shows nothing. Stages follow one another and do not nest."""

    def stage(self, name: str, total: int) -> None:
        """A piece of work begins, for example `seed 1: learning`, that takes `total` steps."""

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        """So many steps of the stage are done; `shown` has numbers worth a look, for example the loss."""

    def note(self, text: str) -> None:
        """Something that the user should know: one sentence."""

    def finished(self, record: Record) -> None:
        """One seed is finished, or was found finished."""


SILENT = Observer()


class TqdmBars(Observer):
    """Bars of tqdm: lines of text that terminals and notebooks show."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make, self._bar = tqdm, tqdm(disable=True)

    def stage(self, name: str, total: int) -> None:
        self._bar.close()
        self._bar = self._make(total=total, desc=name, leave=False)

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
        self._bar.update(steps)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def observing(wanted: bool | None) -> AbstractContextManager[Observer]:
    """Bars where they are wanted; None: on a terminal and in a notebook."""
    shown = "ipykernel" in sys.modules or sys.stderr.isatty() if wanted is None else wanted
    return TqdmBars() if shown else nullcontext(SILENT)
