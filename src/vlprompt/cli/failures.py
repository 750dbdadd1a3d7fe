"""How a command fails: a message and an exit code, never a traceback unless `--debug` asks for it."""

from __future__ import annotations

import errno
import functools
import sys
import traceback
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec

import typer
from rich.text import Text

from vlprompt import plain
from vlprompt.cli import console
from vlprompt.errors import DATA, INTERRUPTED, UserError

P = ParamSpec("P")

UNEXPECTED = 1
DEBUG: ContextVar[bool] = ContextVar("debug", default=False)

INTERRUPT_TEXT = (
    "Stopped. Nothing written is lost: run the same command again, `train` with --resume, and it continues."
)

_OS_HINTS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another place with --out (features are cached in the "
    "directory that `vlprompt env` names)",
    errno.EDQUOT: "your disk quota is used up; free some space, or choose another place with --out",
    errno.EACCES: "no permission; choose a place that you may use, or change its permissions",
    errno.EPERM: "no permission; choose a place that you may use, or change its permissions",
    errno.EROFS: "the place is read-only; choose another one with --out",
    errno.ENOENT: "there is no such file or directory; check the spelling",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EISDIR: "this is a directory, a file was expected",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
}


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors become a message on stderr and an exit code; its signature stays."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _as_note
                command(*args, **kwargs)
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report(error)) from None

    return run


def _as_note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our own warnings as notes; those that libraries mean for developers are left out."""
    if issubclass(category, UserWarning):
        console.warn(str(message))


def report(error: BaseException) -> int:
    """Says what went wrong on stderr; returns the exit code."""
    if DEBUG.get():
        traceback.print_exception(error, file=sys.stderr)
    message, code = describe(error)
    if code == INTERRUPTED:
        console.note(message)
    else:
        console.err().print(Text("Error: ", style="bold red") + Text(plain.terminal(message)), soft_wrap=True)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """The message and the exit code of an error."""
    match error:
        case UserError():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return INTERRUPT_TEXT, INTERRUPTED
        case OSError():
            return _describe_os(error), DATA
        case MemoryError():
            return (
                "out of memory. Use --max-memory 4G (class names run a part at a time) or a smaller batch: --set batch=8",
                UNEXPECTED,
            )
        case _ if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
            return (
                "out of memory. Use --max-memory 4G (class names run a part at a time) or a smaller batch: --set batch=8",
                UNEXPECTED,
            )
    summary = f"{type(error).__name__}: {error}"
    return f"{summary}\nThis is a fault of vlprompt. Run again with --debug and report what it prints.", UNEXPECTED


def _describe_os(error: OSError) -> str:
    hint = _OS_HINTS.get(error.errno or 0)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{hint or error.strerror or str(error)}."
