"""Answers by folds, and what fewer images would have taught: on nothing that was learned from, and by numbers that can be recomputed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.engine.made import config, write_images
from vlprompt import records
from vlprompt.engine import prospect
from vlprompt.engine.run import job_of, train_run
from vlprompt.errors import UserError
from vlprompt.report import prospect as report
from vlprompt.report.judgement import judge
from vlprompt.report.tables import accuracy


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Three classes of five images, without parts."""
    return write_images(tmp_path / "few", parts={"": 5})


def test_every_image_is_asked_about_what_it_was_not_learned_from(
    clip_dir: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[set[str], set[str]]] = []
    honest = prospect.answered

    def watched(job, lesson, val, asked):  # type: ignore[no-untyped-def]
        taught.append(({one.id for one in lesson.samples}, {one.id for one in asked}))
        return honest(job, lesson, val, asked)

    monkeypatch.setattr(prospect, "answered", watched)
    shutil.copy(few / "cat" / "0.png", few / "cat" / "copy.png")
    (record,) = train_run(config(clip_dir, few, tmp_path / "run", folds=3, shots=None))
    assert len(taught) == 3
    assert all(not learned & asked for learned, asked in taught)
    everyone = set().union(*(asked for _, asked in taught))
    assert everyone == {f"{name}/{n}.png" for name in ("blue bird", "cat", "dog") for n in range(5)} - {"cat/0.png"}
    assert (record.num_train, record.num_test, record.folds) == (16, 14, 3)
    assert records.images_of(tmp_path / "run/seed1") == tuple(sorted(everyone))
    answers = records.read_predictions(tmp_path / "run/seed1")
    assert answers is not None
    assert record.top1 == pytest.approx(100 * (answers.predicted == answers.label).mean())
    found = judge([record])
    assert found.accuracy is not None
    assert found.accuracy[0] < (record.top1 or 0) < found.accuracy[1] + 1e-9
    assert "95 % interval" in found.lines[0]
    assert "14 images in 3 folds" in found.lines[1]
    assert "14 images asked in 3 folds" in accuracy([record]).remark
    with pytest.raises(UserError, match=r"folds: 3 -> 2"):
        train_run(config(clip_dir, few, tmp_path / "run", folds=2, shots=None))


def test_folds_that_cannot_be(clip_dir: Path, few: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        config(clip_dir, few, tmp_path / "a", folds=1)
    with pytest.raises(UserError, match="Name the method"):
        config(clip_dir, few, tmp_path / "a", folds=2, method="auto", overrides={})
    single = write_images(tmp_path / "single", parts={"": 1})
    with pytest.raises(UserError, match="no class has two images"):
        train_run(config(clip_dir, single, tmp_path / "b", folds=2))


def test_folds_leave_test_images_out_and_take_the_validation_ones(clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "parts", parts={"train": 2, "val": 2, "test": 3})
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", folds=2, shots=None))
    assert (record.num_train, record.num_test) == (12, 12)


def test_training_images_alone_give_numbers(clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "only", parts={"train": 6})
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", shots=2))
    assert record.num_test == 6  # the rule's: 30 % of six, of each class
    with_val = write_images(tmp_path / "both", parts={"train": 3}, seed=0)
    write_images(with_val, parts={"valid": 2}, seed=1)
    (record,) = train_run(config(clip_dir, with_val, tmp_path / "run2", shots=2))
    assert (record.num_test, record.num_val) == (6, 0)


def test_a_curve_is_what_fewer_images_teach(clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "parts", parts={"train": 8, "test": 4})
    asked = config(clip_dir, folder, tmp_path / "run", shots=8, seeds=(1, 2), curve=None)
    train_run(asked)
    curve = records.read_curve(tmp_path / "run/seed2")
    assert curve is not None
    assert curve[0] == [6, 12, 24]
    job = dataclasses.replace(job_of(asked), seed=2)
    drawn = job.draw()
    half = prospect.first(drawn.sample.train, 0.5)
    assert [one for one in drawn.sample.train if one in half] == half
    right = prospect.answered(job, job.lesson(drawn.sample, half), drawn.sample.val, drawn.test)
    assert (right.argmax(1).numpy() == prospect.labels(drawn.test)).tolist() == curve[1][1].tolist()
    found = report.prospect([tmp_path / "run/seed1", tmp_path / "run/seed2"])
    assert found is not None
    assert found.images == (6, 12, 24)
    assert found.low <= found.gain <= found.high


def test_a_curve_is_left_out_where_it_is_dear_or_unwanted(
    clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "parts", parts={"train": 4, "test": 2})
    train_run(config(clip_dir, folder, tmp_path / "a", shots=4))
    assert records.read_curve(tmp_path / "a/seed1") is None
    monkeypatch.setattr(prospect, "CHEAP", -1.0)
    train_run(config(clip_dir, folder, tmp_path / "b", shots=4, curve=None))
    assert report.prospect([tmp_path / "b/seed1"]) is None
    train_run(config(clip_dir, folder, tmp_path / "b", shots=4, curve=True))  # the finished run gets its curve
    assert records.read_curve(tmp_path / "b/seed1") is not None
    asked = dataclasses.replace(config(clip_dir, folder, tmp_path / "c"), method="zero-shot", overrides={})
    nothing = job_of(asked)
    assert not prospect.can_measure(nothing.draw(), nothing)


def write_curve(place: Path, images: list[int], right: np.ndarray) -> Path:
    place.mkdir()
    rows = ["".join("1" if one else "0" for one in row) for row in right]
    (place / records.CURVE).write_text(f'{{"images": {images}, "right": {rows}}}'.replace("'", '"'), encoding="utf-8")
    return place


def test_the_line_goes_through_doublings(tmp_path: Path) -> None:
    share = np.arange(1000) / 1000
    rising = [
        write_curve(tmp_path / f"r{seed}", [8, 16, 32], share < np.array([[0.5], [0.6], [0.7]])) for seed in (1, 2)
    ]
    found = report.prospect(rising)
    assert found is not None
    assert found.accuracy == pytest.approx((50, 60, 70))
    assert found.gain == pytest.approx(10)
    assert 0 < found.low < 10 < found.high < 15
    assert found.word == "More images would help."
    near = 100 * report.Z * np.sqrt((1000 * 0.25 + 0.5) / 1002**2)
    assert found.half[0] == pytest.approx(near)
    assert [round(value, 6) for value in found.points[0]] == [8, 50, round(50 - near, 6), round(50 + near, 6)]
    assert found.points[-1] == pytest.approx((64, 80, 70 + found.low, 70 + found.high))
    assert found.axis == (40, 90)
    flat = report.prospect([write_curve(tmp_path / "flat", [8, 16, 32], share < np.array([[0.7], [0.7], [0.7]]))])
    assert flat is not None
    assert (flat.gain, flat.word) == (pytest.approx(0), "More images would hardly help.")
    few = report.prospect([write_curve(tmp_path / "few", [8, 16, 32], share[::100] < np.array([[0.5], [0.6], [0.5]]))])
    assert few is not None
    assert "cannot be told" in few.lines()[1]
    same = report.prospect([write_curve(tmp_path / "same", [8, 16, 32], share[::50] < np.array([[0.7], [0.7], [0.7]]))])
    assert same is not None  # twenty images that are always answered alike prove little
    assert (same.low < -1, same.high > 1) == (True, True)
    assert "-0.0" not in same.lines()[1]


def test_a_damaged_curve_is_said(tmp_path: Path) -> None:
    (tmp_path / records.CURVE).write_text('{"images": [1, 2], "right": ["01"]}', encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        records.read_curve(tmp_path)
