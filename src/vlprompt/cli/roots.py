"""`--data-root`: told to the environment for as long as a command runs, so that processes it starts know it too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = "--data-root"
ANYWHERE = "Anywhere in a command: --data-root DIR, where the papers' data sets lie, and --debug."
"""Stands below the options of every command."""
VARIABLE = "VLPROMPT_DATA"
"""As `vlprompt.data.catalogue.ROOT_VARIABLE`; not read from there, so that `--help` imports nothing heavy."""


@contextmanager
def known(shared: Sequence[str]) -> Iterator[None]:
    """The data root of a command line, if it names one, in the environment; what was there before afterwards."""
    root = _named(shared)
    if root is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(Path(root).expanduser().absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _named(shared: Sequence[str]) -> str | None:
    root = None
    for place, one in enumerate(shared):
        if one == ROOT and place + 1 < len(shared):
            root = shared[place + 1]
        elif one.startswith(f"{ROOT}="):
            root = one.removeprefix(f"{ROOT}=")
    return root or None
