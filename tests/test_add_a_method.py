"""docs/add-a-method.md is executed: its method is short, and does all that a row of the table does."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from tests.engine.made import config, images, lesson, write_images
from vlprompt import PromptClassifier, artifact
from vlprompt.describe import describe
from vlprompt.engine.run import train_run
from vlprompt.engine.train import train
from vlprompt.errors import UserError
from vlprompt.methods import resolve as resolving
from vlprompt.methods.resolve import HOSTS, options, resolve
from vlprompt.methods.row import Host
from vlprompt.towers import Clip

PAGE = Path(__file__).parents[1] / "docs" / "add-a-method.md"
MODULE = "vlprompt.methods.lowrank"


def code() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """The page's row, in the table. Options are read off the source, so that it must be a file."""
    path = tmp_path / "lowrank.py"
    path.write_text(code())
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    found: Host = module.LOW_RANK
    monkeypatch.setattr(resolving, "HOSTS", (*HOSTS, found))
    return found


def test_it_is_under_80_lines() -> None:
    assert len(code().splitlines()) < 80


def test_its_line_for_the_table_is_the_tables() -> None:
    table = (Path(resolving.__file__).parent / "table.py").read_text()
    line = next(line for line in table.splitlines() if line.startswith("HOSTS"))
    assert f"    {line} + (LOW_RANK,)\n" in PAGE.read_text()


def test_it_is_explained_with_its_options(host: Host, clip: Clip) -> None:
    about = describe(resolve("low-rank"), clip)
    assert about.count == 4 * 2 + 2 * 64
    assert {tensor.name: tensor.shape for tensor in about.tensors} == {"left": (4, 2), "right": (2, 64)}
    reached = {(tensor.name, term.name): tensor.reach(term.name) for tensor in about.tensors for term in about.terms}
    assert set(reached.values()) == {"all"}
    named = {option.name: option for option in methods.options("low-rank")}
    named = {option.name: option for option in options("low-rank")}
