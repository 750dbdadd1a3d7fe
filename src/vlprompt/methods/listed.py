"""The list of methods, read off the source of their table, whose words are literals: it loads no torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

KINDS = {"Host": "method", "Overlay": "overlay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `vlprompt methods`."""

    name: str
    kind: str
    """``method``, or ``overlay`` (written before a method: ``plpp+coop``)."""
    summary: str
    learns: str
    source: str


def table() -> tuple[Row, ...]:
    """All methods, then all overlays."""
    found = []
    for node in ast.walk(ast.parse(Path(__file__).with_name("table.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            said = {one.arg: one.value for one in node.keywords}
            words = {each: ast.literal_eval(said[each]) for each in ("name", "summary", "learns", "source")}
            found.append(Row(kind=KINDS[node.func.id], **words))
    return tuple(sorted(found, key=lambda row: row.kind))
