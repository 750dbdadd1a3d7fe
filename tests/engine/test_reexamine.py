"""Learned prompts on other data sets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Memory
from tests.engine.made import config, write_images
from vlprompt import records
from vlprompt.engine.run import train_run
from vlprompt.engine.test import evaluate_run
from vlprompt.errors import UserError


@pytest.fixture(scope="module")
def run(clip_dir: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "coop"
    train_run(config(clip_dir, folder, out, seeds=(1, 2)))
    return out


def test_the_same_images_give_the_same_answers(run: Path, folder: Path, memory: Memory) -> None:
    found = evaluate_run(run, str(folder), cache=folder.parent / "cache", device="cpu", observer=memory)
    assert memory.records == found
    for record in found:
        before = records.read(run / f"seed{record.seed}")
        for name in ("top1", "top5", "macro_f1", "ece", "zero_shot_top1", "per_class", "protocol", "config_hash"):
            assert getattr(record, name) == getattr(before, name), name


def test_one_seed_can_be_asked_for(run: Path, folder: Path) -> None:
    (record,) = evaluate_run(run / "seed2", str(folder), cache=folder.parent / "cache", device="cpu")
    assert record.seed == 2


def test_other_images_and_classes(run: Path, folder: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", parts={"train": 1, "test": 3}, seed=5)
    for part in ("train", "test"):
        (other / part / "dog").rename(other / part / "green_house")
    out = tmp_path / "answers"
    found = evaluate_run(run, str(other), cache=folder.parent / "cache", device="cpu", out=out)
    assert [(one.dataset, one.protocol, one.num_test) for one in found] == [("other", "cross-dataset", 9)] * 2
    assert set(found[0].per_class) == {"blue bird", "cat", "green house"}
    assert [record for _, record in records.find(out)] == found
    assert records.read(run / "seed1").dataset == "colours"


def test_a_folder_without_parts_is_never_tested_on_what_was_learned(
    clip_dir: Path, folder: Path, tmp_path: Path
) -> None:
    flat = Path(shutil.copytree(folder / "train", tmp_path / "flat"))
    train_run(config(clip_dir, flat, tmp_path / "run"))
    own, strange = Memory(), Memory()
    (record,) = evaluate_run(tmp_path / "run", str(flat), cache=tmp_path / "cache", device="cpu", observer=own)
    assert record.num_test == 6
    assert record.top1 == records.read(tmp_path / "run" / "seed1").top1
    assert "30 %" in own.notes[0]
    for path in sorted(flat.rglob("*.png")):
        path.rename(path.with_name(f"new-{path.name}"))
    with pytest.raises(UserError, match="were learned from, or chosen by"):
        evaluate_run(tmp_path / "run", str(flat), cache=tmp_path / "cache", device="cpu")
    new = write_images(tmp_path / "new", parts={"train": 6}, seed=9) / "train"
    (record,) = evaluate_run(tmp_path / "run", str(new), cache=tmp_path / "cache", device="cpu", observer=strange)
    assert record.num_test == 18
    assert "all its images" in strange.notes[0]


def test_a_class_specific_prompt_refuses_other_classes(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    train_run(config(clip_dir, folder, tmp_path / "run", overrides={"per_class": True, "epochs": 1}))
    other = write_images(tmp_path / "other", parts={"train": 1, "test": 1})
    for part in ("train", "test"):
        (other / part / "dog").rename(other / part / "house")
    with pytest.raises(UserError, match="learned something for each of its 3 classes"):
        evaluate_run(tmp_path / "run", str(other), cache=tmp_path / "cache", device="cpu")


def test_nothing_to_test(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds no learned prompt; learn one with vlprompt train"):
        evaluate_run(tmp_path, str(folder))


@pytest.fixture(scope="module")
def parts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`two`: two of the learned classes; `one`: one of them; `more`: all, and a new one that has test images alone."""
    root = tmp_path_factory.mktemp("parts")
    for name, classes in (("two", ("cat", "dog")), ("one", ("dog",)), ("more", ("blue bird", "cat", "dog"))):
        made = write_images(root / name, parts={"test": 3}, seed=7)
        for folder_of in (made / "test").iterdir():
            if folder_of.name not in classes:
                shutil.rmtree(folder_of)
    shutil.copytree(root / "more" / "test" / "dog", root / "more" / "test" / "fish")
    for name in ("blue bird", "cat", "dog"):
        shutil.copytree(root / "two" / "test" / "cat", root / "more" / "train" / name)
    return root


def evaluated(run: Path, data: Path, memory: Memory, **more: Any) -> records.Record:
    cache = data.parent / "cache"
    return evaluate_run(run / "seed1", str(data), cache=cache, device="cpu", observer=memory, **more)[0]


def test_some_of_the_learned_classes_are_asked_about_in_both_ways(run: Path, parts: Path, memory: Memory) -> None:
    among_two = evaluated(run, parts / "two", memory)
    assert (among_two.num_classes, among_two.num_test) == (2, 6)
    assert any("2 of the 3 learned classes; it lacks blue bird" in note for note in memory.notes)
    among_three = evaluated(run, parts / "two", memory, classes="learned")
    assert (among_three.num_classes, among_three.num_test) == (3, 6)
    assert among_three.top1 is not None
    assert among_two.top1 is not None
    assert among_three.top1 <= among_two.top1


def test_labels_follow_names(run: Path, folder: Path, parts: Path, memory: Memory) -> None:
    """The dogs of a folder with dogs alone are those of a folder with all classes."""
    whole = evaluated(run, parts / "more", memory, classes="learned")
    alone = evaluated(run, parts / "one", memory, classes="learned")
    assert alone.per_class["dog"] == whole.per_class["dog"]
    assert any("not learned: fish. Their images are left out" in note for note in memory.notes)
    assert evaluated(run, parts / "more", memory).num_classes == 4


def test_one_class_and_strangers_are_refused_with_the_other_way(
    run: Path, parts: Path, memory: Memory, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--classes learned asks about it among the 3 learned classes"):
        evaluated(run, parts / "one", memory)
    strangers = write_images(tmp_path / "strangers", parts={"test": 1})
    for number, place in enumerate(sorted((strangers / "test").iterdir())):
        place.rename(place.with_name(f"stranger {number}"))
    with pytest.raises(UserError, match="none of the learned classes"):
        evaluated(run, strangers, memory, classes="learned")
