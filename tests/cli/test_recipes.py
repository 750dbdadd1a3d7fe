"""`vlprompt recipes`, and `vlprompt train --recipe NAME`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt, train_arguments
from vlprompt.methods import recipes


def test_train_takes_the_recipes_method(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    base = [*train_arguments(clip_dir, photos), "--recipe", "maple-domain", "--set", "depth=1", "--json"]
    base.remove("--method")
    base.remove("plpp+coop")
    base[base.index("n_ctx=3")] = "n_ctx=2"
    done = vlprompt(*base, "--out", "run")
    assert done.code == 0, done.err
    assert '"method": "maple"' in done.out
    assert '"lr": 0.0026' in done.out
    refused = vlprompt(*base, "--out", "other", "--method", "coop")
    assert refused.code == 2
    assert "is for 'maple'" in refused.err


def test_the_command_lists_and_shows_them(vlprompt: Vlprompt) -> None:
    listed = vlprompt("recipes")
    assert listed.code == 0, listed.err
    assert all(name in listed.out for name in recipes.names())
    shown = vlprompt("recipes", "promptsrc-few-shot")
    assert shown.code == 0, shown.err
    for part in ("82.87", "megvii-research/CasPL", "stanford_cars", "vlprompt train --recipe promptsrc-few-shot"):
        assert part in shown.out
    assert '"value": 82.87' in vlprompt("recipes", "promptsrc-few-shot", "--json").out
    assert vlprompt("recipes", "promptsrc-few").code == 2


def test_all_are_listed_as_json_with_their_commands(vlprompt: Vlprompt) -> None:
    found = json.loads(vlprompt("recipes", "--json").out)
    assert [one["name"] for one in found] == list(recipes.names())
    for one in found:
        assert any(f"vlprompt train --recipe {one['name']}" in line or "vlprompt " in line for line in one["commands"])
    coop = next(one for one in found if one["name"] == "coop-few-shot")
    assert coop["epochs"]["16"] == 200, "shots are keys of text"


def test_the_files_are_checked(vlprompt: Vlprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    done = vlprompt("recipes", "--check")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(rf"{len(recipes.names())} recipes of \d+ files: all whole\.\n", done.out)
    told = json.loads(vlprompt("recipes", "--check", "--json").out)
    assert (told["recipes"], told["problems"]) == (len(recipes.names()), [])
    whole = recipes.names()
    monkeypatch.setattr(recipes, "names", lambda: tuple(name for name in whole if name != "maple-few-shot"))
    lost = vlprompt("recipes", "--check")
    assert lost.code == 3
    assert "maple" in lost.err
    assert "all whole" not in lost.out
    told = vlprompt("recipes", "--check", "--json")
    assert told.code == 3
    assert any("maple" in problem for problem in json.loads(told.out)["problems"])


def test_settings_of_some_data_sets_and_of_pretraining_are_shown(vlprompt: Vlprompt) -> None:
    shown = vlprompt("recipes", "rpp-pretraining").out
    assert "pretraining" in shown
    assert "learned on" in shown
    for name in recipes.names():
        recipe = recipes.read(name)
        if recipe.cases:
            said = " ".join(vlprompt("recipes", name).out.split())
            assert f"{recipe.cases[0].shots[0]}" in said
            assert "images per class" in said
            break
    else:
        raise AssertionError("no recipe has cases: take them out of the command")
