"""A run of pretraining: it learns, goes on where it stopped, says what it skips, and refuses what cannot be done."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.conftest import Memory
from tests.pretrain.conftest import DAMAGED
from tests.pretrain.made import serving
from tests.pretrain.together import config
from vlprompt.artifact import loaded, read_facts
from vlprompt.data import open_imagenet21k, write_shards
from vlprompt.errors import DATA, NUMERICAL, UserError
from vlprompt.pretrain.config import PretrainConfig, pretraining_method
from vlprompt.pretrain.run import pretrain_run


def small(root: Path, out: Path, method: str = "rpp", **changes: Any) -> PretrainConfig:
    overrides = {"n_ctx": 2, "init": "normal", "batch": 8, "lr": 0.01, **changes.pop("overrides", {})}
    return config(root, out, method, overrides=overrides, **changes)


def learned(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return dict(load_file(out / name / "prompt.safetensors"))


def equal(a: Path, b: Path) -> bool:
    first, second = learned(a), learned(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines(out: Path, what: str = "loss") -> list[dict[str, Any]]:
    every = (json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in every if what in line]


def test_it_learns_and_says_so(root: Path, tmp_path: Path) -> None:
    memory = Memory()
    out = tmp_path / "out"
    summary = pretrain_run(small(root, out, "plpp+rpp", overrides={"epochs": 6, "lr": 0.02}), memory)
    assert summary["steps"] == 24
    assert summary["images"] == 6 * 29
    assert sum(memory.losses[-4:]) < 0.9 * sum(memory.losses[:4])
    log = lines(out)
    assert [line["step"] for line in log] == list(range(1, 25))
    assert {"cross-entropy", "distillation", "plpp", "plpp-inverse"} == log[0]["losses"].keys()
    assert log[0]["images_per_s"] > 0
    assert log[-1]["left_s"] == 0
    tests = lines(out, "test")
    assert [line["step"] for line in tests] == [4, 8, 12, 16, 20, 24]
    best = max(tests, key=lambda line: (line["test"]["top1"], -line["step"]))
    assert (summary["best_top1"], summary["best_step"]) == (best["test"]["top1"], best["step"])
    assert read_facts(out / "best")["pretraining"]["steps"] == best["step"]
    assert loaded(out / "last")[0].class_names[:2] == ("cat", "dog")
    assert pretrain_run(small(root, out, "plpp+rpp", overrides={"epochs": 6, "lr": 0.02})) == summary


def test_what_cannot_be_read_is_skipped_counted_and_limited(root: Path, tmp_path: Path) -> None:
    summary = pretrain_run(small(root, tmp_path / "out"))
    skipped = [
        json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["image"] for line in skipped] == [DAMAGED], "once, although it is met in every epoch"
    assert summary["skipped"] == 1
    for method, views in (("rpp", "crops"), ("coop", 2)):
        with pytest.raises(UserError, match="--max-skipped 0") as error:
            pretrain_run(small(root, tmp_path / method, method, max_skipped=0, views=views, copies=1))
        assert error.value.exit_code == DATA


def test_images_none_of_which_decodes_teach_nothing(root: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(root / "data", tmp_path / "data"))
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of the .* training images could be used.*Nothing was learned") as error:
        pretrain_run(small(root, tmp_path / "out", data=str(data), max_skipped=1000, held_out=0))
    assert error.value.exit_code == DATA
    assert not list((tmp_path / "out").rglob("prompt.json"))


@pytest.mark.parametrize("method", ["plpp+rpp", "promptsrc", "pomp"])
@pytest.mark.parametrize("stop", [3, 6])
def test_a_stopped_run_goes_on_to_the_same_bits(root: Path, tmp_path: Path, method: str, stop: int) -> None:
    """Ctrl-C within an epoch and with the state of two steps before; promptsrc averages over epochs."""
    kept = {"save_every": 2, "views": 2 if method == "pomp" else "crops", "copies": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain_run(small(root, whole, method, **kept))
    with pytest.raises(KeyboardInterrupt):
        pretrain_run(small(root, parts, method, **kept), Memory(stop_after=stop))
    with pytest.raises(UserError, match="--resume"):
        pretrain_run(small(root, parts, method, **kept))
    pretrain_run(small(root, parts, method, resume=True, **kept))
    assert equal(whole, parts)
    assert [line["step"] for line in lines(parts)] == [line["step"] for line in lines(whole)] == list(range(1, 9))
    for before, after in zip(lines(whole), lines(parts), strict=True):
        assert before["losses"] == after["losses"]
        assert (before["images"], before["skipped"]) == (after["images"], after["skipped"])


def test_other_options_are_refused_and_a_finished_run_is_read_back(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = pretrain_run(small(root, out, "coop"))
    with pytest.raises(UserError, match=r"options\.lr: 0\.01 -> 0\.03"):
        pretrain_run(small(root, out, "coop", overrides={"lr": 0.03}))
    with pytest.raises(UserError, match="seed: 42 -> 43"):
        pretrain_run(small(root, out, "coop", seed=43))
    assert pretrain_run(small(root, out, "coop", log_every=3, save_every=50)) == done
    (out / "best" / "prompt.json").unlink()
    with pytest.raises(UserError, match=r"has a finished record, but its prompt \(best.prompt.json\) is gone"):
        pretrain_run(small(root, out, "coop"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty"):
        pretrain_run(small(root, tmp_path / "other", "coop"))


def test_worker_processes_and_shards_over_http_give_the_same(root: Path, tmp_path: Path) -> None:
    options = {"views": "crops", "copies": 1, "overrides": {"epochs": 1}}
    pretrain_run(small(root, tmp_path / "threads", **options))
    pretrain_run(small(root, tmp_path / "workers", workers=2, **options))
    assert equal(tmp_path / "threads", tmp_path / "workers")
    shards = tmp_path / "shards"
    write_shards(open_imagenet21k(root / "data"), shards, per_shard=5)
    pretrain_run(small(root, tmp_path / "disk", data=str(shards), **options))
    with serving(shards) as (url, _):
        remote = small(root, tmp_path / "http", data=url, cache=tmp_path / "cache", workers=1, **options)
        pretrain_run(remote)
    assert equal(tmp_path / "disk", tmp_path / "http")
    assert not equal(tmp_path / "disk", tmp_path / "threads"), "another order"


def test_the_last_image_of_a_step_may_be_lost(root: Path, tmp_path: Path) -> None:
    """A step whose only image cannot be read changes nothing but what weight decay and momentum do."""
    one = small(root, tmp_path / "out", overrides={"batch": 29, "epochs": 3}, copies=1, views="crops")
    assert pretrain_run(one)["steps"] == 6
    assert all(torch.isfinite(value).all() for value in learned(tmp_path / "out").values())


def test_numbers_that_are_none_stop_it_with_the_place(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite at epoch 1, step \d") as error:
        pretrain_run(
            small(root, tmp_path / "out", "coop", overrides={"lr": 1e30, "init": "normal", "warmup_epochs": 0})
        )
    assert error.value.exit_code == NUMERICAL
    assert "imagenet21k_train/" in str(error.value)


@pytest.mark.parametrize(
    ("method", "reason"), [("cocoop", "depend on the image"), ("prograd", "projects"), ("zero-shot", "learns nothing")]
)
def test_methods_that_cannot_be_pretrained(root: Path, tmp_path: Path, method: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        pretraining_method(dataclasses.replace(config(root, tmp_path, method), overrides={}), 1)


def test_the_method_that_follows_from_the_options(root: Path, tmp_path: Path) -> None:
    def of(name: str, world: int = 1, **changes: Any) -> Any:
        return pretraining_method(PretrainConfig(method=name, model="", data="", out=tmp_path, **changes), world)

    pomp, rpp, maple = of("pomp"), of("rpp"), of("plpp+maple")
    assert [one.steps.classes.num for one in (pomp, rpp, maple)] == [1000] * 3
    assert "log10" in pomp.terms[0].formula
    assert "ln(" in rpp.terms[0].formula
    assert "ln(" in maple.terms[0].formula
    assert (pomp.schedule.epochs, rpp.schedule.lr, maple.schedule.batch) == (5, 0.002, 256)
    assert of("rpp", 8, batch_per_rank=32).schedule.batch == 256
    assert of("coop", classes_per_step=0).steps.classes is None
    assert of("pomp", classes_per_step=0).steps.classes is None
    assert "log10" in of("coop", correction="log10").terms[0].formula
    for wrong in (
        {"batch_per_rank": 4, "overrides": {"batch": 8}},
        {"classes_per_step": 7, "overrides": {"classes": 8}},
    ):
        with pytest.raises(UserError):
            of("pomp", **wrong)
    for wrong in ({"copies": 2, "views": "centre"}, {"views": 0}, {"held_out": -1}, {"dtype": "int8"}):
        with pytest.raises(UserError):
            of("pomp", **wrong)
