"""Records on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vlprompt import records
from vlprompt.errors import UserError
from vlprompt.records import Predictions, Record

RECORD = Record(
    method="coop",
    dataset="birds",
    shots=16,
    seed=1,
    model="tiny",
    template="a {}.",
    top1=50.0,
    zero_shot_top1=None,
    top5=100.0,
    macro_f1=49.0,
    balanced_accuracy=50.0,
    ece=3.5,
    num_classes=2,
    num_test=2,
    split_hash="ab",
    seconds=1.0,
    seconds_features=0.5,
    epochs=3,
    peak_mib=10.0,
    device="cpu",
    versions={"torch": "2"},
    skipped={"a.png": "truncated"},
)


def test_a_record_comes_back(tmp_path: Path) -> None:
    answers = Predictions(
        id_hash=records.id_hashes(["cat/1.png", "dog/ü.png"]),
        label=np.array([0, 1]),
        predicted=np.array([0, 0]),
        label_probability=np.array([0.75, 0.25], dtype=np.float32),
        predicted_probability=np.array([0.75, 0.75], dtype=np.float32),
    )
    assert not records.finished(tmp_path)
    records.write(tmp_path, RECORD, answers)
    assert records.finished(tmp_path)
    assert records.read(tmp_path) == records.read(tmp_path / "result.json") == RECORD
    back = records.read_predictions(tmp_path)
    assert back is not None
    for one in dataclasses.fields(Predictions):
        assert np.array_equal(getattr(back, one.name), getattr(answers, one.name))
    assert back.id_hash[0] == hashlib.sha256(b"cat/1.png").hexdigest()[:16]


def test_records_are_found_below_a_directory(tmp_path: Path) -> None:
    for name, seed in (("b", 2), ("a/deep", 1)):
        records.write(tmp_path / name, dataclasses.replace(RECORD, seed=seed))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "prompt.json").write_text("{}", encoding="utf-8")
    assert [(path.name, one.seed) for path, one in records.find(tmp_path)] == [("deep", 1), ("b", 2)]
    assert records.read_predictions(tmp_path / "b") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99; this version reads up to 1"),
        ({"schema": None}, "not a record of vlprompt"),
        ({"top1": ...}, "lacks top1"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, change: dict[str, object], message: str) -> None:
    values = {**dataclasses.asdict(RECORD), **change}
    values = {name: value for name, value in values.items() if value is not ...}
    (tmp_path / "result.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        records.read(tmp_path)


def test_damage_and_unknown_fields(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": 1, ', encoding="utf-8")
    with pytest.raises(UserError, match="damaged or no JSON"):
        records.read(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({**dataclasses.asdict(RECORD), "later": 1}), encoding="utf-8")
    assert records.read(tmp_path) == RECORD
