"""Names as they are, in files and terminals that give some signs a meaning: tables, Markdown, terminals."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control codes but tab and line feed, and those that turn the direction of text."""
_LIVE = re.compile(r"([\\`\[\]])")
FORMULA = ("=", "+", "-", "@", "\t")
"""How a cell begins that a spreadsheet computes."""


def terminal(text: str) -> str:
    """Text whose control codes are shown, not obeyed."""
    return _CONTROL.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """A name in Markdown: no link, image, code, HTML or table comes of it; bold stays."""
    one_line = " ".join(terminal(text).split())
    quoted = _LIVE.sub(r"\\\1", one_line.replace("&", "&amp;").replace("<", "&lt;")).replace("|", "\\|")
    return quoted.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def markdown_rows(head: Sequence[str], body: Iterable[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """The lines of a Markdown table; numbers: all columns but the first to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return ["| " + " | ".join(map(markdown, row)) + " |" for row in (head, rule, *body)]


def table(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV. A text that a spreadsheet would compute has an apostrophe before it; numbers stay numbers."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([_cell(one) for one in row] for row in rows)
    return file.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
