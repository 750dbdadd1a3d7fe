"""Other processes of this machine, by /proc: what stands in their command line, and who began them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def table() -> dict[int, tuple[int, str]]:
    """Process -> (the one that began it, its command line)."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                said = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
                found[int(place.name)] = int(parent), said
    return found


def below(*roots: int) -> list[int]:
    """Processes that these have begun, and what those have begun, in the order of their numbers."""
    parents = {number: parent for number, (parent, _) in table().items()}
    found, more = set(roots), True
    while more:
        new = {number for number, parent in parents.items() if parent in found} - found
        found, more = found | new, bool(new)
    return sorted(found - set(roots))


def strike(numbers: list[int], what: signal.Signals) -> None:
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, what)
