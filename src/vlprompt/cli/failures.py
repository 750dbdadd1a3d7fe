"""How a command fails: a message and an exit code, never a traceback unless `--debug` asks for it."""

from __future__ import annotations

import errno
import functools
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec

import typer

from vlprompt import plain
from vlprompt.cli import console
from vlprompt.errors import DATA, INTERRUPTED, UserError

P = ParamSpec("P")

UNEXPECTED = 1
DEBUG: ContextVar[bool] = ContextVar("debug", default=False)

COMMAND: ContextVar[tuple[str, ...]] = ContextVar("command", default=())
"""The arguments of the command line that runs."""
SAID: ContextVar[bool] = ContextVar("said", default=False)
"""Whether an interrupt has been answered: typer turns one that comes before the command into an exit without a word."""
RESUMED, REPEATED = ("train", "pretrain"), ("bench", "quickstart", "reproduce", "tune")
"""Commands that go on with --resume, and those that go on when they are called again."""

NO_MEMORY = ("out of memory", "can't allocate memory")
"""What a library's error says of it."""
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


def heed_interrupts() -> None:
    """Ctrl-C raises KeyboardInterrupt, and is remembered: a library may turn it into another error while it is imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    _STOPPED.append(True)
    raise KeyboardInterrupt


_STOPPED: list[bool] = []


def _said_of_interrupt() -> str:
    """What is kept, and the command that goes on."""
    arguments = COMMAND.get()
    name = next((one for one in arguments if not one.startswith("-")), "")
    more = ["--resume"] if name in RESUMED and "--resume" not in arguments else []
    kept = "What was done is kept. Go on with" if name in RESUMED + REPEATED else "To start again"
    return f"Stopped. {kept}:\n  {shlex.join(('vlprompt', *arguments, *more))}"


def report(error: BaseException) -> int:
    """Says what went wrong on stderr; returns the exit code."""
    if _STOPPED and not isinstance(error, KeyboardInterrupt):
        error = KeyboardInterrupt()
    if isinstance(error, KeyboardInterrupt) and _STOPPED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would cut this short
    if DEBUG.get():
        traceback.print_exception(error, file=sys.stderr)
    message, code = describe(error)
    if code == INTERRUPTED:
        SAID.set(True)
        console.note(message)
    else:
        console.say(console.err(), plain.terminal(message), "Error: ", "bold red")
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """The message and the exit code of an error."""
    match error:
        case UserError():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return _said_of_interrupt(), INTERRUPTED
        case OSError():
            return _describe_os(error), DATA
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in NO_MEMORY):
        advice = "Use --max-memory 4G (class names run a part at a time) or a smaller batch: --set batch=8"
        return f"out of memory. {advice}", UNEXPECTED
    summary = f"{type(error).__name__}: {error}"
    return f"{summary}\nThis is a fault of vlprompt. Run again with --debug and report what it prints.", UNEXPECTED


def _describe_os(error: OSError) -> str:
    hint = _OS_HINTS.get(error.errno or 0)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{hint or error.strerror or str(error)}."
