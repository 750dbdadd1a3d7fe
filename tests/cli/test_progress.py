"""What a person sees while a run goes on: bars on a terminal, lines elsewhere, all of it on stderr."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from tests.report.made import record
from vlprompt.cli import console, progress
from vlprompt.cli.progress import STAGE_WIDTH, counted, counting, observing

Screen = Callable[[], str]


class Eager(Progress):
    """Draws every change at once, not ten times a second."""

    def update(self, *arguments: Any, **fields: Any) -> None:
        super().update(*arguments, **fields)
        self.refresh()

    def advance(self, *arguments: Any, **fields: Any) -> None:
        super().advance(*arguments, **fields)
        self.refresh()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 120 columns on stderr; gives what was written to it, without colours and moves of the cursor."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "Progress", Eager)
    monkeypatch.setattr(
        console, "err", lambda: Console(file=written, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    )
    return lambda: re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())


def test_a_terminal_shows_a_bar_for_each_stage_and_keeps_notes_and_results(terminal: Screen) -> None:
    found = dataclasses.replace(
        record(seed=3), method="coop", top1=61.25, zero_shot_top1=50.0, hand_written_top1=None, seconds=2.0
    )
    with observing() as observer:
        observer.stage("seed 3: learning", 4)
        observer.advance(3, {"loss": 0.123456})
        observer.note("one image of [red] is missing")
        observer.stage("seed 3: a stage whose name is longer than the bar leaves room for", 9)
        observer.advance(9, {})
        observer.finished(found)
    shown = terminal()
    assert "3/4" in shown
    assert "loss 0.1235" in shown
    assert "9/9" in shown
    assert "leaves room for" not in shown
    assert all(len(name.strip()) <= STAGE_WIDTH for name in re.findall(r"seed 3: a stage[^━0-9]*\.\.\.", shown))
    assert "Note: one image of [red] is missing" in shown, "brackets are no markup"
    assert "coop seed 3: 61.2 % (zero-shot 50.0 %), 2.0 s" in shown


def test_notes_that_are_not_wanted_are_not_shown(terminal: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    with observing(notes=False) as observer:
        observer.stage("learning", 1)
        observer.note("nobody asked")
    assert "nobody asked" not in terminal()


def test_without_a_terminal_there_are_lines_and_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with observing() as observer:
        observer.stage("learning", 2)
        observer.advance(1, {"loss": 2.0})
        observer.advance(1, {"loss": 1.0})
        observer.note("that was short")
        observer.finished(dataclasses.replace(record(), top1=None, zero_shot_top1=None, hand_written_top1=None))
    with observing(notes=False) as observer:
        observer.note("nobody asked")
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[:2] == ["learning: 2/2  loss 1", "Note: that was short"]
    assert "no test images" in lines[2]
    assert len(lines) == 3


def test_a_count_of_unknown_size_is_shown_on_a_terminal_alone(
    terminal: Screen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with counting("files") as count:
        count(2)
        count(5)
    assert re.search(r"files\s+7\s", terminal())
    monkeypatch.undo()
    with counting("files") as count:
        count(7)
    with counted("nothing to do", 0) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
