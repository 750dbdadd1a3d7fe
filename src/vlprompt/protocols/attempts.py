"""Attempts at a piece of work: what began and never ended, what failed and why, and when to stop trying.

`attempts.json` stands in the directory of unfinished work alone. It is written before the work begins, so that a process
that is killed leaves its mark, and removed when the work is done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlprompt import atomic
from vlprompt.engine.checkpoint import CHECKPOINT

ATTEMPTS = "attempts.json"
SCHEMA = 1
SILENT_END = "ended without a word (killed, out of memory, or the machine stopped)"


@dataclass(slots=True)
class History:
    """What is known of earlier attempts."""

    begun: float | None
    """When one began that has not ended, in seconds since 1970."""
    reasons: list[str]
    """Why attempts failed, the latest last."""


class GivenUp(Exception):
    """The work has failed as often as it may; the message is the last reason."""


def read(directory: Path) -> History:
    """The attempts in a directory; none where the file is missing or torn."""
    try:
        stored = json.loads((directory / ATTEMPTS).read_text())
        return History(begun=stored["begun"], reasons=[str(one) for one in stored["reasons"]])
    except (OSError, ValueError, KeyError, TypeError):
        return History(begun=None, reasons=[])


@contextmanager
def attempt(directory: Path, limit: int) -> Iterator[None]:
    """One attempt at the work in a directory whose lock is held. GivenUp, before anything is done, after `limit` failures.

    An attempt that was killed counts as a failure, unless it had reached a checkpoint: then it got on. Ctrl-C is no failure.
    """
    history = read(directory)
    if history.begun is not None and not _got_on(directory, history.begun):
        history.reasons.append(SILENT_END)
    history.begun = None
    if len(history.reasons) >= limit:
        _write(directory, history)
        raise GivenUp(history.reasons[-1])
    _write(directory, History(begun=time.time(), reasons=history.reasons))
    try:
        yield
    except Exception as error:
        history.reasons.append(str(error) or type(error).__name__)
        _write(directory, history)
        raise
    except BaseException:
        _write(directory, history)
        raise
    (directory / ATTEMPTS).unlink(missing_ok=True)


def _got_on(directory: Path, begun: float) -> bool:
    try:
        return (directory / CHECKPOINT).stat().st_mtime > begun
    except OSError:
        return False


def _write(directory: Path, history: History) -> None:
    if history.begun is None and not history.reasons:
        (directory / ATTEMPTS).unlink(missing_ok=True)
        return
    atomic.write_json(
        directory / ATTEMPTS, {"schema": SCHEMA, "begun": history.begun, "reasons": list(history.reasons)}
    )
