"""`vlprompt tune`: ranges, the search that goes on where it was stopped, its recipe, and that no test image is read."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Vlprompt
from tests.engine.made import write_images
from tests.report.made import record
from vlprompt import records
from vlprompt.cli import tune as command
from vlprompt.engine import tune as tuning
from vlprompt.engine.config import RunConfig
from vlprompt.engine.job import prepare
from vlprompt.engine.run import open_all, train_run
from vlprompt.engine.tune import distribution, recipe_text, tune, usual_ranges
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import every, recipe_of, resolve

RANGES = {"lr": "0.001..1", "batch": "6,9"}


@pytest.fixture
def asked(clip_dir: Path, tmp_path: Path) -> RunConfig:
    folder = write_images(tmp_path / "folder")
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"no picture: whoever decodes it learns that it cannot be used " + path.name.encode())
    given = {"method": "coop", "model": str(clip_dir), "data": str(folder), "shots": 3, "views": 2, "device": "cpu"}
    fixed = {"n_ctx": "2", "init": "normal", "epochs": "1"}
    return RunConfig(**given, overrides=fixed, out=tmp_path / "out", cache=tmp_path / "cache")  # type: ignore[arg-type]


def test_ranges_as_people_write_them() -> None:
    wide, narrow = distribution("lr", "0.001..0.1"), distribution("ratio", "0.2..0.8")
    assert (wide.low, wide.high, wide.log, narrow.log) == (0.001, 0.1, True, False)  # type: ignore[attr-defined]
    whole = distribution("n_ctx", "2..8")
    assert (type(whole).__name__, whole.low, whole.high) == ("IntDistribution", 2, 8)  # type: ignore[attr-defined]
    assert distribution("epochs", "10, 20").choices == ("10", "20")  # type: ignore[attr-defined]
    for wrong in ("0.1..0.01", "1..", "a..b", "1,,2", "1,1", "1..inf"):
        with pytest.raises(UserError, match="Write for example"):
            distribution("lr", wrong)


def test_every_method_that_learns_has_usual_ranges_that_it_takes() -> None:
    for name in every():
        method = resolve(name, recipe=recipe_of(name, "few-shot", "pocket-s"), shots=16)
        unranged = name.removeprefix("described+") in ("tip-adapter", "lp-plus-plus")
        if (method.learner is None and method.at_test is None) or unranged:
            continue
        for option, text in usual_ranges(method, {}).items():
            for value in text.split(".." if ".." in text else ","):
                resolve(name, {option: value})
            distribution(option, text)
    with pytest.raises(UserError, match="no option with a usual range"):
        usual_ranges(resolve("tip-adapter"), {})


def test_a_search_goes_on_where_it_was_stopped(asked: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune(dataclasses.replace(asked, out=asked.out / "whole"), RANGES, 2)
    stopped = dataclasses.replace(asked, out=asked.out / "stopped")
    measured, calls = tuning._Tuning.measured, []

    def interrupted(self: Any, wanted: Any) -> Any:
        calls.append([name for name, _ in wanted])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measured(self, wanted)

    monkeypatch.setattr(tuning._Tuning, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(stopped, RANGES, 2)
    before = {path: path.stat().st_mtime_ns for path in stopped.out.rglob("result.json")}
    assert len(before) == 2
    again = tune(stopped, RANGES, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert [(one.name, one.settings, one.accuracy) for one in again.trials] == [
        (one.name, one.settings, one.accuracy) for one in whole.trials
    ]
    assert len(tune(stopped, RANGES, 3).trials) == 3
    with pytest.raises(UserError, match="another configuration"):
        tune(stopped, {"lr": "0.001..0.5"}, 2)


def test_a_trial_is_a_record_of_the_validation_images_and_the_best_one_a_recipe(asked: RunConfig) -> None:
    found = tune(dataclasses.replace(asked, seeds=(1, 2), replicas=2), RANGES, 2)
    best = found.best
    assert best.accuracy == max(one.accuracy for one in (found.default, *found.trials))
    for one in (found.default, *found.trials):
        assert {(record.protocol, record.num_test, record.seed) for record in one.records} == {
            ("validation", 6, 1),
            ("validation", 6, 2),
        }
        assert one.accuracy == statistics.fmean(record.top1 or 0 for record in one.records)
    out = asked.out / "taken"
    (record,) = train_run(
        RunConfig(
            method="coop",
            model=asked.model,
            data=asked.data,
            out=out,
            shots=3,
            recipe=str(found.recipe),
            cache=asked.cache,
        )
    )
    assert record.options == best.records[0].options
    assert record.recipe == str(found.recipe)
    assert record.num_test == 0, "the test images of this folder are broken"


def test_a_recipe_gives_every_setting_back(asked: RunConfig) -> None:
    dataset, images = open_all(asked, tuning.SILENT)
    for name in ("coop", "plpp+coop", "promptsrc", "tip-adapter-f", "linear-probe", "clip-lora"):
        recipe = recipe_of(name, "few-shot", "pocket-s")
        fit = {"init": "normal"} if "init" in resolve(name).options else {}
        job = prepare(
            images,
            dataset,
            name,
            model="m",
            shots=3,
            seed=1,
            recipe=recipe,
            overrides=fit,
            template="a {} there",
            views=2,
        )
        path = asked.out.parent / f"{name}.toml"
        path.write_text(recipe_text(job, "a test"), encoding="utf-8")
        read = recipes.read(str(path))
        again = prepare(images, dataset, name, model="m", shots=3, seed=1, recipe=str(path))
        assert again.method.options == job.method.options
        assert (again.template, again.views, read.method) == (job.template, job.views, name)


def test_without_validation_images_training_images_choose(asked: RunConfig, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "two", parts={"train": 6, "test": 2})
    found = tune(dataclasses.replace(asked, data=str(folder)), {"batch": "6,9"}, 1)
    assert found.default.records[0].num_test == 9, "of six images three are learned from"


def test_the_command(vlprompt: Vlprompt, asked: RunConfig) -> None:
    args = [
        "tune",
        "coop",
        "--data",
        asked.data,
        "--model",
        asked.model,
        "--shots",
        "3",
        "--out",
        "t",
        "--cache",
        asked.cache,
    ]
    args += ["--set", "n_ctx=2", "--set", "init=normal", "--set", "epochs=1"]
    done = vlprompt(*args, "--trials", "2", "--set", "batch=6,9", "--set", "lr=0.01..0.1")
    assert done.code == 0, done.err
    assert "default" in done.out
    assert "etter than the default" in done.out
    assert "vlprompt train --data" in done.out.split("Next:")[1]
    told = vlprompt(*args, "--trials", "2", "--set", "batch=6,9", "--set", "lr=0.01..0.1", "--json")
    assert [one["name"] for one in json.loads(told.out)["trials"]] == ["trial0", "trial1"]
    assert vlprompt(*args, "--set", "batch=1,many").code == 2
    assert vlprompt(*args, "--set", "bach=8,16").code == 2
    assert vlprompt("tune", "zero-shot", "--set", "templates=own,selected", *args[2:10]).code == 2


def tried(place: Path, name: str, right: int, settings: dict[str, object], n: int = 400) -> tuning.Trial:
    """A trial with this many right answers, the first ones, of n; its answers on disk."""
    label = np.zeros(n, np.int64)
    predicted = (np.arange(n) >= right).astype(np.int64)
    sure = np.full(n, 0.9, np.float32)
    found = dataclasses.replace(
        record(method="coop", seed=1), top1=100 * right / n, num_test=n, num_classes=2, per_class={}
    )
    answers = records.Predictions(records.id_hashes([str(i) for i in range(n)]), label, predicted, sure, sure)
    records.write(place / name / "seed1", found, answers)
    return tuning.Trial(name=name, settings=settings, records=(found,))


@pytest.mark.parametrize(("right", "word", "wanted"), [(300, "Better", "--recipe"), (203, "Not better", "--method")])
def test_the_best_of_many_is_better_only_beyond_their_common_interval(
    tmp_path: Path, right: int, word: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best of two trials against the default: the paired interval at 97.5 % each (Bonferroni)."""
    default = tried(tmp_path, "default", 200, {"lr": 0.002})
    best = tried(tmp_path, "trial0", right, {"lr": 0.01})
    failed = tuning.Trial(name="trial2", settings={"lr": 9.0}, records=(), problem="the loss is not finite")
    other = tried(tmp_path, "trial1", 100, {"lr": 0.1})
    tuned = tuning.Tuned(default=default, trials=(best, other, failed), recipe=tmp_path / "best.toml")
    command._show(tuned, ["lr"], "--data photos", as_json=False)
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    gain, z = (right - 200) / 402, statistics.NormalDist().inv_cdf(1 - 0.025 / 2)
    half = 100 * z * (((right - 200 + 1) / 402 - gain**2) / 402) ** 0.5
    low, high = (right - 200) / 4 - half, (right - 200) / 4 + half
    assert f"{word} than the default" in shown
    assert (
        f"trial0 ({(right - 200) / 4:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f} for the best of 2" in shown
    )
    assert "failed" in shown
    assert "the loss is not finite" in shown
    assert wanted in said.err + said.out
    assert ("--method coop" in said.err + said.out) is (low <= 0)
    command._show(tuned, ["lr"], "--data photos", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["best"]["gain"] == pytest.approx([low, high])
    assert told["best"]["settings"] == {"lr": 0.01}
    assert [one["top1"] for one in told["trials"]] == [right / 4, 25.0, None]


def test_without_optuna_it_says_what_to_install(vlprompt: Vlprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = vlprompt("tune", "coop")
    assert done.code == 2
    assert "pip install 'vlprompt[tune]'" in " ".join(done.err.split())
