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
from vlprompt.bench import Desk, Grid, Means, Request, carrier, done, make, work_off
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
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return block


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """The page's row, in the table. Options are read off the source, so that it must be a file."""
    path = tmp_path / "lowrank.py"
    path.write_text(code(), encoding="utf-8")
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    found: Host = module.LOW_RANK
    monkeypatch.setattr(resolving, "HOSTS", (*HOSTS, found))
    return found


def test_it_is_under_80_lines() -> None:
    assert len(code().splitlines()) < 80


def test_its_line_for_the_table_is_the_tables() -> None:
    table = (Path(resolving.__file__).parent / "table.py").read_text(encoding="utf-8")
    assert "\nHOSTS: tuple[Host, ...] = (\n" in table  # the line that the page names is one more row of it
    assert "at the end of `HOSTS` in `src/vlprompt/methods/table.py`:\n\n    LOW_RANK,\n" in PAGE.read_text(
        encoding="utf-8"
    )


def test_it_is_explained_with_its_options(host: Host, clip: Clip) -> None:
    about = describe(resolve("low-rank"), clip)
    assert about.parameters == 4 * 2 + 2 * 64
    assert {tensor.name: tensor.shape for tensor in about.tensors} == {"left": (4, 2), "right": (2, 64)}
    reached = {(tensor.name, term.name): tensor.reach(term.name) for tensor in about.tensors for term in about.terms}
    assert set(reached.values()) == {"all"}
    named = {option.name: option for option in options("low-rank")}
    assert (named["rank"].default, named["length_weight"].default) == (2, 0.1)
    with pytest.raises(UserError, match="from 1 to n_ctx=4"):
        resolve("low-rank", {"rank": "5"})


@pytest.mark.parametrize("name", ["low-rank", "plpp+low-rank"])
def test_it_learns_is_saved_and_answers_for_new_classes(host: Host, clip_dir: Path, tmp_path: Path, name: str) -> None:
    folder = write_images(tmp_path / "colours")
    asked = {"overrides": {"epochs": 3, "rank": 1}}
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", method=name, **asked))
    assert record.parameters == 4 * 1 + 1 * 64
    assert record.options["rank"] == 1
    assert (record.recipe, record.choices) == ("", "changed"), "it has no file of its own"
    classifier = PromptClassifier.load(tmp_path / "run", cache=tmp_path / "cache")
    probabilities = classifier.predict_proba([folder / "test" / "cat" / "0.png"], class_names=["house", "red tree"])
    assert probabilities.shape == (1, 2)
    facts = artifact.read_facts(tmp_path / "run" / "seed1")
    assert facts["tensors"] == {"left": [4, 1], "right": [1, 64]}


def test_a_grid_takes_it_without_a_recipe(host: Host, clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "colours")
    asked = {"methods": ("low-rank",), "shots": (2,), "seeds": (1,), "overrides": {"epochs": "2"}}
    grid = Grid(out=tmp_path / "grid", means=Means(device="cpu", cache=tmp_path / "cache"))
    plan = make(Request(protocols=("few-shot",), data=(str(folder),), model=str(clip_dir), **asked), Desk(grid.means))
    work_off(plan.cells, grid, carrier(1))
    (record,) = done(plan, grid)
    assert (record.recipe, record.recipe_hash, record.choices, record.options["rank"]) == ("", "", "changed", 2)


def test_what_it_asks_is_what_the_page_says(host: Host, clip: Clip, tmp_path: Path) -> None:
    """A heavy weight on the context's length makes it short."""
    asked = {"epochs": 6, "batch": 4, "lr": 0.05, "weight_decay": 0}
    sizes = []
    for weight in (0, 20):
        method = resolve("low-rank", {**asked, "length_weight": weight})
        prompt = train(clip, method, lesson(write_images(tmp_path / str(weight))), images(clip))
        with torch.no_grad():
            sizes.append(float(prompt().text[0].q.square().mean()))
    assert sizes[1] < 0.5 * sizes[0]
