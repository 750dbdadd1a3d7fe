"""A small folder of images, an observer that remembers, and the switch that rewrites golden files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.engine.made import write_images
from vlprompt.records import Record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regen", action="store_true", help="write tests/golden anew (look at the difference before you commit)"
    )


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--regen", default=False))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with 6 training, 2 validation and 4 test images each; read it, never write into it."""
    return write_images(tmp_path_factory.mktemp("images") / "colours")


@dataclass
class Memory:
    """An observer that keeps what it is told; `stop_after` steps of learning it acts as Ctrl-C."""

    stop_after: int | None = None
    stages: list[tuple[str, int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def stage(self, name: str, total: int) -> None:
        self.stages.append((name, total))

    def advance(self, steps: int, shown: Mapping[str, float]) -> None:
        if "loss" not in shown:
            return
        self.losses.append(shown["loss"])
        if self.stop_after is not None and len(self.losses) >= self.stop_after:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self, record: Record) -> None:
        self.records.append(record)


@pytest.fixture
def memory() -> Memory:
    return Memory()
