"""Pretraining by a recipe: what is published for POMP, on as many processes as there are, and never chosen on test images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.made import write_images
from tests.pretrain.test_elastic import launch
from tests.pretrain.together import config
from vlprompt import cli
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.pretrain.config import PretrainConfig, chooses, pretraining_method, said_of_processes, whose_choices
from vlprompt.pretrain.run import pretrain_run

NAME = "pomp-pretraining"
FEW = ["--set", "epochs=1", "--set", "batch=16", "--copies", "1", "--held-out", "6", "--device", "cpu"]


def asked(**changes: object) -> PretrainConfig:
    base = {"method": "pomp", "model": "", "data": "", "out": Path("out"), "recipe": NAME}
    return PretrainConfig(**{**base, **changes})  # type: ignore[arg-type]


def test_pomp_as_published() -> None:
    """8 processes with 32 images and 4 views of each; 1,000 classes, log10, 5 epochs at 0.002."""
    one = asked()
    method = pretraining_method(one, 8)
    assert method.schedule is not None
    assert (method.schedule.batch, method.schedule.epochs, method.schedule.lr) == (8 * 32, 5, 0.002)
    assert (one.seen, one.num_copies, method.options["n_ctx"]) == ("published", 4, 4)
    assert method.steps.classes is not None
    assert method.steps.classes.num == 1000
    assert "log10" in method.terms[0].formula
    assert chooses(one, "val")
    assert not chooses(one, "test")
    long = pretraining_method(asked(recipe="pomp-pretraining-16-tokens"), 8)
    assert long.schedule is not None
    assert (long.options["n_ctx"], long.schedule.epochs) == (16, 20)


@pytest.mark.parametrize(
    ("world", "changes", "parts"),
    [
        (8, {}, []),
        (1, {}, ["8 process(es) with 32 images of a step each, 256 in all; here are 1", "256 on each", "stays 0.002"]),
        (2, {}, ["A step has 256 images as there, 128 on each"]),
        (2, {"batch_per_rank": 32}, ["A step has 64 images", "4 times as many steps", "rate stays 0.002"]),
        (8, {"batch_per_rank": 32}, []),
    ],
)
def test_what_another_number_of_processes_changes_is_said(
    world: int, changes: dict[str, object], parts: list[str]
) -> None:
    one = asked(**changes)
    said = said_of_processes(one, pretraining_method(one, world), world)
    assert bool(said) == bool(parts)
    for part in parts:
        assert part in said


def test_whose_settings_a_run_has() -> None:
    assert whose_choices(asked(), "imagenet21k_resized") == "published"
    assert whose_choices(asked(), "my folder") == "project"
    assert whose_choices(asked(method="rpp", recipe="rpp-pretraining"), "imagenet21k_resized") == "project"
    assert whose_choices(asked(overrides={"epochs": 1}), "imagenet21k_resized") == "changed"
    assert whose_choices(asked(copies=1), "imagenet21k_resized") == "changed"


def test_every_recipe_that_is_listed_can_be_asked_for() -> None:
    for name in recipes.names():
        known = recipes.read(name)
        if known.protocol == "pretraining":
            method = pretraining_method(asked(recipe=name, method=known.method), known.pretrain.processes)
            assert method.schedule is not None
            assert (method.schedule.batch, method.steps.classes is not None and method.steps.classes.num) == (256, 1000)


def test_the_command_takes_a_recipe_with_its_method(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data", str(root / "data"), "--model", str(root / "clip"), "--out", str(tmp_path / "out"), "--json"]
    assert cli.run(["pretrain", "--recipe", NAME, *place, *FEW, "--set", "n_ctx=2"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["method"], summary["kept"], summary["held_out_part"]) == ("pomp", "best", "val")
    assert "The recipe pomp-pretraining has 8 process(es)" in " ".join(err.split())
    chosen = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (chosen["recipe"], chosen["seed"], chosen["views"]) == (NAME, 42, "published")


def test_the_recipes_data_are_named_where_they_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["pretrain", "--recipe", NAME, *FEW]) == 3
    assert "imagenet21k" in capsys.readouterr().err
    assert cli.run(["pretrain", "--recipe", "maple-few-shot", *FEW]) == 2
    assert "is for few-shot, not for pretraining" in capsys.readouterr().err
    assert cli.run(["reproduce", NAME]) == 2
    said = "torchrun --nproc-per-node 8 -m vlprompt pretrain --recipe pomp-pretraining"
    assert said in " ".join(capsys.readouterr().err.split())


def test_imagenet_21k_is_found_below_the_data_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "imagenet21k_resized").symlink_to(root / "data")
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    place = ["--model", str(root / "clip"), "--out", str(tmp_path / "out"), "--json"]
    assert cli.run(["pretrain", "--recipe", NAME, *place, *FEW, "--set", "n_ctx=2"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 6


@pytest.mark.slow  # `test_elastic.py` has a quick one under torchrun, without a recipe
def test_a_recipe_runs_under_torchrun(root: Path, tmp_path: Path) -> None:
    place = ["--data", str(root / "data"), "--model", str(root / "clip"), "--cache", str(tmp_path / "cache")]
    done = launch(
        "vlprompt", ["pretrain", "--recipe", NAME, *place, *FEW, "--set", "n_ctx=2", "--out", str(tmp_path / "out")]
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "pretraining.json").read_text(encoding="utf-8"))["processes"] == 2


def test_test_images_choose_nothing(root: Path, tmp_path: Path) -> None:
    """Of a set without validation images the test images are looked at, and `best` is the last prompt."""
    folder = write_images(tmp_path / "colours", parts={"train": 6, "test": 4})
    one = config(
        root, tmp_path / "out", "coop", data=str(folder), overrides={"batch": 4, "lr": 0.5}, views="centre", copies=1
    )
    summary = pretrain_run(one)
    assert (summary["held_out_part"], summary["kept"]) == ("test", "last")
    best, last = ((tmp_path / "out" / name / "prompt.safetensors").read_bytes() for name in ("best", "last"))
    assert best == last


def test_a_method_that_fits_a_classifier_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="fits a classifier"):
        pretraining_method(asked(method="tip-adapter-f", recipe="auto"), 1)


def test_a_method_without_a_recipe_takes_the_schedule_and_views_of_the_others(root: Path) -> None:
    with pytest.raises(UserError, match="depend on the image"):
        pretraining_method(asked(method="cocoop", recipe="auto"), 1)
    one = asked(method="cocoop", recipe="auto")
    assert (one.recipe_name, one.known.name, one.num_copies) == ("", "coop-pretraining", 4)
