"""Names that a spreadsheet, a Markdown viewer or a terminal would obey."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from tests.report import made
from vlprompt import plain, records
from vlprompt.cli import console
from vlprompt.report.write import write_report

NAMES = (
    "=HYPERLINK(1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\tx",
    "[click](http://example.org)",
    "![x](https://example.org/x.png)",
    "`rm`",
    "<img src=x>",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egpj.exe",
    "www.example.org",
    "a|b",
    "two\nlines",
)


def test_no_cell_is_a_formula_and_no_name_is_live(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        one = made.record(dataset=name, method="coop", seed=1, num_classes=5, per_class={name: 10.0, "-1.5": 20.0})
        records.write(tmp_path / f"run{number}", one)
    write_report(tmp_path)
    for file in ("report.csv", "report-classes.csv"):
        for row in csv.reader(io.StringIO((tmp_path / file).read_text(encoding="utf-8"))):
            for cell in row:
                assert not cell.startswith(plain.FORMULA) or float(cell) is not None
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for live in ("[click](", "![x](", "https://", "http://", "<img", "\x1b", "\u202e", " www."):
        assert live not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_is_told_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.add_column("name")
    table.add_row(Text(name))
    console.show(table, name)
    console.note(name)
    console.warn(name)
    console.plain(name)
    said = "".join(capsys.readouterr())
    assert not set("\x1b\x07\u202e\x9b") & set(said)


def test_numbers_stay_numbers() -> None:
    assert plain.table([("-1.5", -2, "=1", "- x")]) == "-1.5,-2,'=1,'- x\n"
