"""The one exception that users are meant to see, and the hint for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

USAGE, DATA, NUMERICAL, INTERRUPTED = 2, 3, 4, 130


class UserError(ValueError):
    """Something the user can mend: what was seen, what is allowed, what to do.

    The command line prints the message without a traceback and ends with `exit_code` (2 usage, 3 data, 4 numerical).
    """

    def __init__(self, message: str, *, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message alone."""
        return [f"UserError: {self}"]


def data_error(message: str) -> UserError:
    """A `UserError` about data: files that are missing, damaged or of another kind than what reads them."""
    return UserError(message, exit_code=DATA)


def require(holds: bool, setting: str, allowed: str) -> None:
    """UserError where a setting (`rank=0`) has another value than those allowed."""
    if not holds:
        raise UserError(f"{setting}: it must be {allowed}.")


def require_least(settings: object, least: int, *names: str) -> None:
    """UserError where one of these numbers is below the least one."""
    for name in names:
        value = getattr(settings, name)
        kind = "a whole number" if isinstance(value, int) else "a number"
        require(value >= least, f"{name}={value}", f"{kind} of at least {least}")


MANY, SOME = 60, 6
"""From how many names on an error shows the nearest alone, and how many of them."""


def unknown(kind: str, name: str, allowed: Iterable[str], *, always: Iterable[str] = ()) -> UserError:
    """The error for a name that is in no table: the name, the nearest one, and all that are allowed; of very many the nearest.

    always: those that are shown in any case.
    """
    choices = sorted(allowed)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if len(choices) > MANY:
        some = difflib.get_close_matches(name, choices, n=SOME, cutoff=0.3) or choices[:SOME]
        first = (
            f" Allowed: {', '.join(always)}, or one of {len(choices)},"
            if always
            else f" Of {len(choices)} allowed ones"
        )
        return UserError(f"unknown {kind} {name!r}.{hint}{first} the nearest: {', '.join(some)}.")
    return UserError(f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(choices)}.")


def reason_of(error: BaseException) -> str:
    """What an error of a library says, in one line without a full stop; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
