"""Two streams: results go to stdout, everything said on the way to stderr."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, JustifyMethod, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from vlprompt.plain import terminal as as_shown

HELD = "\0"
"""Stands for a space at which a line must not be broken."""
WIDTH_WITHOUT_TERMINAL = 120
"""Columns of tables in files and pipes (project's choice)."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def survive_encodings() -> None:
    """What a terminal's or a pipe's encoding lacks is written as an escape, in place of an error (a redirect on Windows)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out() -> Console:
    """Results: what a person asked to see."""
    return _console(stderr=False)


def width() -> int:
    """Columns of stdout: the terminal's, those of COLUMNS, or 120 in a pipe."""
    return out().width


def err() -> Console:
    """Progress, notes and errors."""
    return _console(stderr=True)


def show(*parts: RenderableType) -> None:
    """Prints results (rich tables, or strings taken literally)."""
    console = out()
    for part in parts:
        if isinstance(part, str):
            console.print(Text(as_shown(part)))
        else:  # names in tables: what rich itself writes between them stays
            found = console.render(part)
            console.print(Segments(Segment(as_shown(one.text), one.style, one.control) for one in found), end="")


def note(text: str) -> None:
    """One line on the way, to stderr; never markup, so paths with brackets come out as they are."""
    say(err(), as_shown(text))


def warn(text: str) -> None:
    """A note that stands out."""
    say(err(), as_shown(text), "Note: ", "bold yellow")


def say(console: Console, text: str, label: str = "", style: str = "") -> None:
    """Plain text behind a label. In a terminal it is broken between words; paths, and commands in backquotes, never are."""
    if console.is_terminal:
        text = _broken(text, console.width, len(label))
    console.print(Text(label, style=style) + Text(text), soft_wrap=True)


def _broken(text: str, width: int, taken: int) -> str:
    """taken: columns of the first line that something else stands in."""
    held = re.sub(r"`[^`\n]*`", lambda found: found[0].replace(" ", HELD), HELD * taken + text)
    whole = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = ("\n".join(whole.wrap(line)) for line in held.split("\n"))
    return "\n".join(lines).replace(HELD, " ")[taken:]


def commands(title: str, lines: Iterable[str]) -> None:
    """What to type next, unbroken, to be copied."""
    console = out()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def dump(value: object) -> None:
    """JSON to stdout, nothing else with it."""
    ascii_alone = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=ascii_alone, allow_nan=False) + "\n")


def plain(text: str) -> None:
    sys.stdout.write(as_shown(text))


def table(title: str | None, columns: Sequence[str], rows: Iterable[Iterable[object]], *, ruled: bool = True) -> Table:
    """A table. A sign before a column's name: `>` to the right, `!` not wrapped, `~` folded. ruled: a line below the names."""
    out = Table(box=box.SIMPLE_HEAD if ruled else None, pad_edge=ruled, title=title, title_justify="left")
    for name in columns:
        sign, bare = (name[0], name[1:]) if name[:1] in (">", "!", "~") else ("", name)
        side: JustifyMethod = "right" if sign == ">" else "left"
        out.add_column(bare, justify=side, no_wrap=sign == "!", overflow="fold" if sign == "~" else "ellipsis")
    for row in rows:
        out.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return out


def pairs(facts: Mapping[str, str]) -> Table:
    """Names and what belongs to them, without lines."""
    out = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    out.add_column(style="dim", no_wrap=True)
    out.add_column()
    for name, text in facts.items():
        out.add_row(Text(name), Text(text))
    return out
