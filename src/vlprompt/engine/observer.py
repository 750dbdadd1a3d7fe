"""How the engine tells what it does, without printing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vlprompt.records import Record


class Observer(Protocol):
    """What a progress display implements. Stages follow one another and do not nest."""

    def stage(self, name: str, total: int) -> None:
        """A piece of work begins, for example `seed 1: learning`, that takes `total` steps."""
        ...

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        """So many steps of the stage are done; `shown` has numbers worth a look, for example the loss."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know: one sentence."""
        ...

    def finished(self, record: Record) -> None:
        """One seed is finished, or was found finished."""
        ...


class Silent:
    """The observer that shows nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, steps: int, shown: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def finished(self, record: Record) -> None: ...


SILENT = Silent()
