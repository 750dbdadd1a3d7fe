"""The study of pretraining: its cells run once, are read back, and its tables say what they hold."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from benchmarks.pretraining_study import study
from benchmarks.pretraining_study.curves import _amount_of, _weights
from benchmarks.pretraining_study.study import Study, render, run_study
from PIL import Image

from tests.engine.made import write_images
from tests.report.made import record
from vlprompt import records
from vlprompt.disk import locked_if_free
from vlprompt.engine.observer import Observer
from vlprompt.records import Record


@pytest.fixture
def small(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(study, "METHODS", (study.METHODS[0], study.METHODS[2], study.METHODS[5]))
    monkeypatch.setattr(study, "DISTILLATION", study.DISTILLATION[:1])
    monkeypatch.setattr(study, "DATA", study.DATA[:1])
    target = write_images(tmp_path / "colours")
    return Study(
        out=tmp_path / "out",
        data=str(root / "data"),
        model=str(root / "clip"),
        targets=(str(target),),
        seeds=(1, 2),
        epochs=2,
        device="cpu",
        cache=tmp_path / "cache",
    )


def test_every_cell_runs_once_and_the_tables_name_it(small: Study) -> None:
    rows = run_study(small)
    assert [(row["cell"], row["seed"]) for row in rows] == [
        *((cell, seed) for seed in (1, 2) for cell in ("pomp", "rpp-without-distillation", "rpp-image-only")),
        ("rpp-weight-0.1", 1),
        ("pomp-1-shots", 1),
    ]
    assert all(len(row["tests"]) == 2 and row["largest_loss"] > 0 for row in rows)
    assert rows[-1]["images"] == 2 * 6 or rows[-1]["images"] == 2 * 5, (
        "one image of each of six classes, perhaps the damaged one"
    )
    written = small.out / "transfer" / "pomp" / "colours" / "seed2" / "result.json"
    assert json.loads(written.read_text(encoding="utf-8"))["dataset"] == "colours"
    before = written.stat().st_mtime_ns
    os.utime(small.out / "study.md", (0, 0))
    assert run_study(small) == rows
    assert written.stat().st_mtime_ns == before
    table = (small.out / "study.md").read_text(encoding="utf-8")
    assert "| rpp-image-only | 2 |" in table
    assert "| pomp-1-shots | 1 |" in table
    assert "| pomp | 2 |" in table
    assert table.startswith("Zero-shot: ")
    assert "| rpp-image-only against zero-shot | transfer | 1 | 2 |" in table
    assert "held-out |" not in table.partition("## Paired")[2], "only the embedded set's held-out part has a name"
    differences = json.loads((small.out / "study.json").read_text(encoding="utf-8"))["differences"]
    assert [(one["first"], one["second"]) for one in differences] == [
        ("zero-shot", cell) for cell in ("pomp", "rpp-without-distillation", "rpp-image-only")
    ]
    zero_shot = records.read(small.out / "transfer" / "zero-shot" / "colours" / "seed1")
    pomp = [records.read(small.out / "transfer" / "pomp" / "colours" / f"seed{seed}") for seed in (1, 2)]
    assert differences[0]["gain"] == pytest.approx(sum(one.top1 for one in pomp) / 2 - zero_shot.top1)
    assert all(one.zero_shot_top1 == zero_shot.top1 for one in pomp)
    with Image.open(small.out / "study.png") as figure:
        assert figure.width > 1000
    assert [round(weight, 1) for weight in _weights(rows)] == [0.0, 0.1]
    assert [_amount_of(row) for row in rows if row["seed"] == 1 and row["cell"].startswith("pomp")] == ["pomp", "pomp"]


def test_two_processes_do_not_learn_one_cell_twice(small: Study) -> None:
    """A cell in other hands is waited for, and then read back."""
    claimed = small.out / "pretrained" / "pomp" / "seed1-claimed"
    order: list[str] = []

    class Noting(Observer):
        def note(self, text: str) -> None:
            order.append(text)
            if len(order) > 1:
                release.set()

    release = threading.Event()

    def hold() -> None:
        with locked_if_free(claimed) as ours:
            assert ours
            held.set()
            release.wait(60)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    rows = run_study(small, Noting())
    thread.join()
    learned = [text.partition(",")[0] for text in order if ": cell " in text]
    assert learned[0] != "pomp", "another process had the first cell"
    assert len(learned) == len(rows) == 8


def test_the_embedded_set_is_judged_by_its_held_out_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "METHODS", (study.StudyCell(name="rpp", method="rpp"), study.METHODS[0]))
    monkeypatch.setattr(study, "DISTILLATION", ())
    monkeypatch.setattr(study, "DATA", ())
    tested: list[tuple[str, str]] = []

    def evaluated(place: Path, target: str, *, out: Path, **_: object) -> list[Record]:
        tested.append((out.relative_to(tmp_path).as_posix(), target))
        return [record(dataset=target)]

    monkeypatch.setattr(study, "pretrain_run", lambda *_: {})
    monkeypatch.setattr(study, "evaluate_run", evaluated)
    monkeypatch.setattr(study, "train_run", lambda config, _: tested.append((config.method, config.data)))
    monkeypatch.setattr(study, "conclude", lambda *_: None)
    run_study(Study(out=tmp_path, targets=("emoji-food",), seeds=(1,)))
    assert tested == [
        ("held-out/rpp/emoji-pretraining", "emoji-pretraining"),
        ("transfer/rpp/emoji-food", "emoji-food"),
        ("held-out/pomp/emoji-pretraining", "emoji-pretraining"),
        ("transfer/pomp/emoji-food", "emoji-food"),
        ("zero-shot", "emoji-pretraining"),
        ("zero-shot", "emoji-food"),
    ]


def test_the_tables_by_hand() -> None:
    def row(seed: int, top1: float, transfer: float) -> dict[str, object]:
        return {
            "cell": "rpp",
            "kind": "method",
            "seed": seed,
            "top1": top1,
            "train_top1": top1 + 10,
            "zero_shot_top1": 40.0,
            "zero_shot_train_top1": None if seed == 1 else 33.0,
            "largest_loss": 3.0,
            "seconds": 7.0,
            "tests": [{"epoch": 0, "top1": top1 - 1, "train_top1": top1}],
            "transfer": {"a": {"top1": transfer, "zero_shot_top1": 30.0}, "b": {"top1": 20.0, "zero_shot_top1": 50.0}},
        }

    text = render([row(1, 50.0, 40.0), row(2, 54.0, 44.0)])
    assert "Zero-shot: 40.00 % held-out, 33.00 % training, 40.00 % transfer" in text
    assert "| rpp | 2 | 52.00 ± 2.83 | 62.00 ± 2.83 | 10.00 ± 0.00 | 3.00 ± 0.00 | 31.00 ± 1.41 | 7.00 ± 0.00 |" in text
    assert "| rpp | 1 | 51.00 ± 2.83 | 52.00 ± 2.83 |" in text
