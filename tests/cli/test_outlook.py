"""`vlprompt bench --dry-run` on a disk without the data and the weights: cells, hours and disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.bench.test_outlook import TINY
from tests.cli.conftest import Vlprompt
from vlprompt.bench import PAPERS_MODEL, estimate, workspace
from vlprompt.bench.request import DEFAULT_METHODS
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED
from vlprompt.errors import UserError
from vlprompt.towers.random_clip import draw_clip


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, no weights, no network; the sets a hundredth of their size, the model tiny, the probe short."""

    def load(model: str, **_: object) -> None:
        raise UserError(f"cannot fetch {model!r} from the Hub: no network.")

    def small(number: int | None) -> int | None:
        return None if number is None else max(100, number // 100)

    rows = tuple(
        dataclasses.replace(row, classes=max(4, row.classes // 20), sizes=tuple(map(small, row.sizes)))
        for row in catalogue.ROWS
    )
    monkeypatch.setattr(catalogue, "ROWS", rows)
    monkeypatch.setattr(workspace, "load", load)
    monkeypatch.setattr(workspace, "draw_clip", lambda **means: draw_clip(TINY, **means))
    for name, value in (("FEW", 2), ("MANY", 4), ("VERY_MANY", 5), ("ENOUGH", 0.0), ("QUICK", 60.0)):
        monkeypatch.setattr(estimate, name, value)
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)


@pytest.mark.usefixtures("nothing_here")
def test_cells_hours_and_disk_before_anything_is_there(vlprompt: Vlprompt) -> None:
    done = vlprompt("bench", "all", "--data", "papers", "--dry-run", "--device", "cpu", "--jobs", "2")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert f"Planned for {PAPERS_MODEL}, since no --model is given." in said
    assert f"because they are not on this disk: {', '.join(FEW_SHOT + SHIFTED)}." in said
    assert f"Random weights in ViT-B/16's shape are timed, because {PAPERS_MODEL} cannot be had here" in said
    assert "2,455 cells, 2,455 to do, 1,773 prompts to learn: about " in said, (
        "the published grid: sizes do not change it"
    )
    assert "few-shot coop 165 165 " in said
    assert "base-to-novel plpp+rpp 66 33 " in said
    assert "from steps timed just now on " in said
    assert "with 2 processes" in said
    assert "165 of unknown time" in said
    assert " image views (" in said
    assert " on disk." in said
    assert all(name in said for name in DEFAULT_METHODS)
    assert (
        "Left out: base-to-novel with linear-probe, at least with some sets. With the data there a plan says why."
        in said
    )
    assert not Path("runs").exists()


@pytest.mark.usefixtures("nothing_here")
def test_the_same_as_data(vlprompt: Vlprompt) -> None:
    asked = ("bench", "all", "--data", "eurosat,dtd", "--methods", "coop,maple", "--model", PAPERS_MODEL)
    done = vlprompt(*asked, "--shots", "1,2", "--dry-run", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    ahead = shown["outlook"]
    assert ahead["estimate"] is True
    assert (ahead["model"], ahead["weights"]) == (PAPERS_MODEL, "random, in ViT-B/16's shape")
    assert ahead["device"]
    assert ahead["sized"] == ["eurosat", "dtd"]
    assert {one["method"]: sorted(map(int, one["timed"])) for one in ahead["steps"]} == {
        "coop": [2, 5],
        "maple": [2, 5],
    }
    assert ahead["seconds"] > ahead["seconds_features"] > 0
    assert ahead["disk_bytes"] == sum(one["bytes"] for one in ahead["disk"])
    assert all(one["bytes"] == one["pairs"] * TINY.embed_dim * 4 for one in ahead["disk"])
    assert len(shown["cells"]) == sum(line["cells"] for line in shown["plan"])
    assert all(line["need"]["unknown"] == 0 for line in shown["plan"])


@pytest.mark.usefixtures("nothing_here")
def test_without_a_dry_run_missing_data_are_an_error_that_names_it(vlprompt: Vlprompt) -> None:
    done = vlprompt("bench", "few-shot", "--data", "dtd", "--methods", "coop")
    assert done.code == 3
    assert "there is no folder 'dtd' here" in done.err
    assert "With --dry-run cells, hours and disk are planned without the data." in done.err
    other = vlprompt("bench", "few-shot", "--data", "nowhere", "--methods", "coop", "--dry-run")
    assert other.code == 3
    assert "there is no folder, table or embedded set 'nowhere'" in other.err
