"""`vlprompt bench`: the plan, the grid, what is refused, and how a failure ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt
from vlprompt import pocket, records
from vlprompt.bench import work

QUICK = ("--set", "epochs=2", "--set", "n_ctx=3", "--shots", "1,2", "--views", "1", "--device", "cpu")


def arguments(clip_dir: Path, photos: Path, *more: object) -> tuple[object, ...]:
    return ("--data", photos, "--model", clip_dir, "--methods", "zero-shot,coop", "--seeds", "1", *QUICK, *more)


def test_a_grid_is_planned_done_and_found_done(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    asked = arguments(clip_dir, photos, "--out", "grid")
    dry = vlprompt("bench", "few-shot", *asked, "--dry-run")
    assert dry.code == 0, dry.err
    assert "3 cells, 3 to do, 2 prompts to learn: about " in dry.err, "timed on a few steps"
    assert "GiB of memory" in dry.err
    assert "0 of 6 test images are in the cache" in dry.err
    assert not Path("grid").exists()
    first = vlprompt("bench", "few-shot", *asked)
    assert first.code == 0, first.err
    assert "2 prompts to learn: 2 of unknown time" in first.err
    assert "[3/3] few-shot photos, coop, 2 shots, seed 1: " in first.err
    assert "3 of 3 cells are finished in grid." in first.err
    assert "grid/report.html" in first.err
    assert Path("grid/report.html").is_file()
    assert "vlprompt compare grid --methods A,B" in first.out
    assert len(list(records.find(Path("grid")))) == 3
    again = vlprompt("bench", "few-shot", *asked, "--json")
    assert again.code == 0, again.err
    assert "3 cells, 0 to do" in again.err
    assert "[" not in again.err
    shown = json.loads(again.out)
    assert [(one["method"], one["shots"]) for one in shown] == [("zero-shot", 0), ("coop", 1), ("coop", 2)]
    more = vlprompt("bench", "few-shot", *arguments(clip_dir, photos, "--out", "grid", "--dry-run"), "--attempts", "9")
    assert more.code == 0
    third = [*asked]
    third[third.index("1,2")] = "1,2,4"
    planned = vlprompt("bench", "few-shot", *third, "--dry-run")
    assert "4 cells, 1 to do, 1 prompts to learn: about " in planned.err
    assert "GiB of memory" in planned.err
    assert "6 of 6 test images are in the cache" in planned.err


def test_a_dry_run_as_data(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    done = vlprompt("bench", "all", *arguments(clip_dir, photos, "--dry-run", "--json"))
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["cells"][0]["place"] == "few-shot/photos/zero-shot/shots0/seed1"
    assert {one["finished"] for one in shown["cells"]} == {False}
    assert {(one["protocol"], one["method"]) for one in shown["plan"]} == {
        ("few-shot", "zero-shot"),
        ("few-shot", "coop"),
    }
    assert {one["protocol"] for one in shown["refused"]} == {"base-to-novel", "cross-dataset", "domain"}
    assert shown["features"] == {"cached": 0, "images": 6}


def test_the_pocket_in_a_hurry(vlprompt: Vlprompt) -> None:
    done = vlprompt("bench", "all", "--data", "pocket", "--quick", "--dry-run", "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    methods = {one["method"] for one in shown["plan"]}
    sets = {one["place"].split("/")[1] for one in shown["cells"]}
    assert methods == {"zero-shot", "coop", "plpp+coop"}
    assert len(sets) == 2
    assert sets <= set(pocket.names("benchmark"))
    assert {"few-shot", "base-to-novel", "cross-dataset"} <= {one["protocol"] for one in shown["plan"]}
    assert {one["place"].split("/")[-1] for one in shown["cells"]} >= {"seed1", "base", "novel"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("everything",), "unknown protocol 'everything'"),
        (("few-shots",), "Did you mean 'few-shot'?"),
        (("few-shot", "--shots", "1,x"), "is not a list of different whole numbers"),
        (("few-shot", "--methods", "coop,,"), "has an empty or a repeated name"),
        (("few-shot", "--methods", "mapel"), "Did you mean 'maple'?"),
        (("few-shot", "--set", "epoch=3"), "epoch"),
        (("few-shot", "--track", "wandb"), "tensorboard"),
        (("few-shot", "--init", "run"), "--init is for transfer"),
        (("transfer",), "transfer needs the pretrained prompt that is transferred: --init RUN"),
        (("base-to-novel", "--methods", "linear-probe"), "has no text side"),
        (("base-to-novel", "--methods", "coop", "--set", "per_class=true"), "learned something for each"),
        (("domain", "--methods", "coop", "--source", "clipart-things"), "classes that clipart-things has not"),
    ],
)
def test_what_is_refused(vlprompt: Vlprompt, words: tuple[str, ...], said: str) -> None:
    done = vlprompt("bench", *words, "--dry-run", "--data", "emoji-subgroups")
    assert done.code == 2, done.err
    assert said in done.err


def test_a_failed_cell_ends_with_its_reason_and_the_others_are_done(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = work.learn_course

    def fails(course, *rest):  # type: ignore[no-untyped-def]
        if course.shots == 1:
            raise RuntimeError("a cable came loose")
        honest(course, *rest)

    asked = arguments(clip_dir, photos, "--out", "grid")
    with monkeypatch.context() as patch:
        patch.setattr(work, "learn_course", fails)
        done = vlprompt("bench", "few-shot", *asked)
    assert done.code == 1
    assert "1 cells failed: RuntimeError: a cable came loose" in done.err
    assert "2 of 3 cells are finished" in done.err
    again = vlprompt("bench", "few-shot", *asked)
    assert again.code == 1
    assert "given up: a cable came loose" in again.err
    assert vlprompt("bench", "few-shot", *asked, "--attempts", "4").code == 0
