"""A run that begins with another's learned tensors: same numbers, its own configuration, and refused where they do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.engine.conftest import Memory
from tests.engine.made import config
from tests.images import write_squares
from vlprompt import PromptClassifier, artifact, records
from vlprompt.engine.run import train_run
from vlprompt.engine.test import evaluate_run
from vlprompt.errors import UserError

STILL = {"lr": 0, "warmup_lr": 0}
"""A rate at which nothing moves: what is learned is what it began with."""
SIZES: dict[str, dict[str, Any]] = {"maple": {"n_ctx": 2}}


def settings(name: str) -> dict[str, Any]:
    host = name.split("+")[-1]
    return {"epochs": 2, "batch": 4, **SIZES.get(host, {})}


def learn(clip_dir: Path, folder: Path, out: Path, name: str, **changes: Any) -> Path:
    overrides = settings(name) | changes.pop("overrides", {})
    train_run(config(clip_dir, folder, out, method=name, overrides=overrides, **changes))
    return out


def tensors(run: Path) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in load_file(run / "seed1" / artifact.TENSORS).items()}


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set: two classes, other names."""
    parts = dict.fromkeys(("train", "val", "test"), 3)
    root = tmp_path_factory.mktemp("others") / "shapes"
    return write_squares(root, {"red circle": None, "house": None}, parts, seed=3, size=(36, 36))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("rpp", "plpp+rpp"),
        ("rpp", "rpp"),
        ("coop", "plpp+coop"),
        ("coop", "kgcoop"),
        ("maple", "maple"),
        ("ivlp", "promptsrc"),
    ],
)
def test_it_begins_where_the_other_ended(
    clip_dir: Path, folder: Path, other_folder: Path, tmp_path: Path, first: str, second: str
) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", first)
    still = learn(clip_dir, other_folder, tmp_path / "second", second, init=source, overrides=STILL, views=1)
    assert tensors(still) == tensors(source)
    moved = learn(clip_dir, other_folder, tmp_path / "third", second, init=source / "seed1", views=1)
    assert all(ours != theirs for ours, theirs in zip(tensors(moved).values(), tensors(source).values(), strict=True))


def test_the_record_and_the_configuration_say_so(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", "coop")
    digest = artifact.read_facts(source / "seed1")["tensors_hash"]
    plain = learn(clip_dir, folder, tmp_path / "plain", "coop")
    began = learn(clip_dir, folder, tmp_path / "began", "coop", init=source)
    assert (records.read(began / "seed1").init, records.read(plain / "seed1").init) == (digest, "")
    assert records.read(began / "seed1").config_hash != records.read(plain / "seed1").config_hash
    assert json.loads((began / "seed1" / "config.json").read_text(encoding="utf-8"))["init"] == digest
    assert "init" not in json.loads((plain / "seed1" / "config.json").read_text(encoding="utf-8"))
    assert artifact.read_facts(began / "seed1")["init"] == digest
    (tested,) = evaluate_run(began, str(folder), cache=folder.parent / "cache", device="cpu")
    assert tested.init == digest


def test_a_stopped_run_goes_on_to_the_same_bits_and_not_without_its_start(
    clip_dir: Path, folder: Path, tmp_path: Path
) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", "rpp")
    whole = learn(clip_dir, folder, tmp_path / "whole", "rpp", init=source)
    made = {"method": "rpp", "overrides": settings("rpp"), "init": source}
    with pytest.raises(KeyboardInterrupt):
        train_run(config(clip_dir, folder, tmp_path / "cut", **made), Memory(stop_after=4))
    with pytest.raises(UserError, match=r"init: '[0-9a-f]{64}' -> None"):
        train_run(config(clip_dir, folder, tmp_path / "cut", **{**made, "init": None}, resume=True))
    train_run(config(clip_dir, folder, tmp_path / "cut", **made, resume=True))
    assert tensors(tmp_path / "cut") == tensors(whole)


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("coop", {"n_ctx": 6}, r"ctx is \(4, 64\) torch.float32, expected \(6, 64\).*learned with n_ctx=4: give these"),
        ("ivlp", {}, r"missing text.1 \(4, 64\).*same tensors"),
        ("vpt", {"n_ctx": None}, r"unexpected ctx \(4, 64\)"),
        ("coop", {"per_class": True}, r"expected \(3, 4, 64\).*per_class=False"),
        ("zero-shot", {"n_ctx": None}, "takes no gradient steps"),
    ],
)
def test_what_does_not_fit_is_named(
    clip_dir: Path, folder: Path, tmp_path: Path, method: str, overrides: dict[str, Any], message: str
) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", "coop")
    made = config(clip_dir, folder, tmp_path / "run", method=method, init=source)
    given = {name: value for name, value in {**made.overrides, **overrides}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        train_run(dataclasses.replace(made, overrides=given))
    assert not (tmp_path / "run").exists()


def test_another_backbone_and_what_learned_nothing_are_refused(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", "coop")
    other = tiny.clip_dir(tmp_path / "other-clip", seed=5)
    with pytest.raises(UserError, match="works with its own backbone only"):
        learn(other, folder, tmp_path / "run", "coop", init=source)
    made = config(clip_dir, folder, tmp_path / "zero", method="zero-shot")
    train_run(dataclasses.replace(made, overrides={}))
    with pytest.raises(UserError, match="has learned nothing to start from"):
        learn(clip_dir, folder, tmp_path / "run", "coop", init=tmp_path / "zero")
    (source / "seed1" / artifact.TENSORS).write_bytes(b"spoilt")
    with pytest.raises(UserError, match="damaged"):
        learn(clip_dir, folder, tmp_path / "run", "coop", init=source)


def test_the_classifier_takes_it_too(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    source = learn(clip_dir, folder, tmp_path / "first", "maple")
    asked = {"model": clip_dir, "method": "plpp+maple", "views": 1, "cache": tmp_path / "cache", **settings("maple")}
    still = PromptClassifier(**asked, **STILL, init_from=source).fit(folder, shots=2)
    still.save(tmp_path / "saved" / "seed1")
    assert tensors(tmp_path / "saved") == tensors(source)
    again = PromptClassifier.load(tmp_path / "saved" / "seed1")
    assert again.init_from is None
    assert again.options["init"] == "a photo of a"  # the method's own option of that name
    assert still.learned.facts["init"] == artifact.read_facts(source / "seed1")["tensors_hash"]
    with pytest.raises(UserError, match="do not fit"):
        PromptClassifier(clip_dir, "coop", cache=tmp_path / "cache", init_from=source).fit(folder, shots=2)
