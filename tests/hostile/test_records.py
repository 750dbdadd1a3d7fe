"""A report of many runs, of which one is damaged: the run is left out and named, or nothing of it is wrong."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.hostile import records as small
from tests.hostile import values
from tests.report import made
from vlprompt import records
from vlprompt.engine.checkpoint import METRICS, Checkpoints, State
from vlprompt.errors import UserError
from vlprompt.report.write import write_report


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    made.benchmark(
        tmp_path, methods=("coop",), sets=("birds",), shots=(1,), classes=4, images=20, protocols=("few-shot",)
    )
    return tmp_path


def reported(root: Path) -> tuple[int, str]:
    written = write_report(root)
    json.dumps([str(path) for path in written.files])
    return written.num_runs, "\n".join(written.notes)


def test_one_altered_field_of_one_record_never_stops_a_report(runs: Path) -> None:
    place = next(records.find(runs))[0] / records.RESULT
    good = json.loads(place.read_text(encoding="utf-8"))
    before, _ = reported(runs)
    stream = random.Random(0)
    ways = list(values.places(good))
    for way in ways:
        for odd in stream.sample(values.ODD, 3):
            place.write_bytes(values.written(values.put(good, way, odd)))
            count, notes = reported(runs)
            assert count == before or place.parent.name in notes


def bomb(data: bytes) -> bytes:
    """The same archive with a label of two gigabytes of zeros, said in the header and packed small."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != "label.npy":
                new.writestr(name, old.read(name))
        with new.open("label.npy", "w", force_zip64=True) as file:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**7,)})
            file.write(header.getvalue())
            for _ in range(80):
                file.write(bytes(10**6))
    return out.getvalue()


def with_arrays(**changes: np.ndarray) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        with np.load(io.BytesIO(data)) as old:
            arrays = {name: old[name] for name in old.files} | changes
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)
        return out.getvalue()

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "no archive": lambda data: b"x" * 100,
    "bomb": bomb,
    "objects": with_arrays(label=np.array([{}], dtype=object)),
    "labels beyond the classes": with_arrays(label=np.full(20, 99)),
    "negative labels": with_arrays(predicted=np.full(20, -1)),
    "other length": with_arrays(predicted=np.zeros(3, np.int64)),
    "other type": with_arrays(predicted=np.zeros(20, np.float32)),
    "NaN": with_arrays(predicted_probability=np.full(20, np.nan, np.float32)),
    "other answers": with_arrays(predicted=np.zeros(20, np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_predictions_are_left_out_and_named(runs: Path, damage: Callable[[bytes], bytes]) -> None:
    before, _ = reported(runs)
    place = next(records.find(runs))[0] / records.PREDICTIONS
    place.write_bytes(damage(place.read_bytes()))
    count, notes = reported(runs)
    assert count == before - 1
    assert "Left out: " in notes
    assert place.parent.name in notes


def test_torn_predictions_never_stop_a_report(runs: Path) -> None:
    before, _ = reported(runs)
    place = next(records.find(runs))[0] / records.PREDICTIONS
    whole, stream = place.read_bytes(), random.Random(0)
    for _ in range(60):
        place.write_bytes(values.torn(whole, stream))
        count, notes = reported(runs)
        assert count == before or place.parent.name in notes


@pytest.mark.parametrize(
    "line", [b'{"epoch": 1e999}', b'{"epoch": null}', b"\xff\xfe", b"[" * 5000, b'{"epoch": "x"}', b"\x00"]
)
def test_a_damaged_log_never_stops_a_resume(tmp_path: Path, line: bytes) -> None:
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc")
    checkpoints.save(State(epoch=2, parameters={"ctx": torch.ones(2)}))
    good = b'{"epoch": 0}\n'
    (tmp_path / METRICS).write_bytes(good + line + b"\n")
    assert checkpoints.load() is not None
    assert (tmp_path / METRICS).read_bytes() == good


@pytest.mark.parametrize("file", small.FILES, ids=lambda one: one.name)
def test_small_files_of_runs_and_grids_are_values_or_user_errors(file: small.File, tmp_path: Path) -> None:
    small.good(file, tmp_path)
    ended = {"value": 0, "refused": 0}
    for number in range(60):
        try:
            small.tries(file, random.Random(number))
            ended["value"] += 1
        except UserError:
            ended["refused"] += 1
    assert ended["value"] > 0


@pytest.mark.parametrize(
    "odd",
    [{"seconds": "long"}, {"method": 3}, {"overrides": [1]}, {"sentence": None}, {"asked": "same"}, {"seconds": {}}],
)
def test_a_choice_with_a_value_of_another_type_is_named(tmp_path: Path, odd: dict[str, object]) -> None:
    file = small.FILES[0]
    (tmp_path / file.name).write_text(json.dumps(file.good | odd), encoding="utf-8")
    with pytest.raises(UserError, match=rf"choice\.json.*{next(iter(odd))}"):
        file.read(tmp_path)
