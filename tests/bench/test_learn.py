"""Learning and choosing cannot reach test images; a record equals that of an ordinary run."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.bench.made import QUICK, grid_of, plan_of, request
from tests.engine.made import config
from vlprompt import artifact, records
from vlprompt.bench import Desk, Grid, Means, run_cell
from vlprompt.bench.work import learn_course as learn
from vlprompt.cli.methods import listed
from vlprompt.data import Sample, sources
from vlprompt.engine.run import train_run
from vlprompt.engine.test import evaluate_run
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.methods.resolve import resolve

LEARNING = tuple(row["name"] for row in listed() if row["kind"] == "method")
SAME = (
    *(
        "method",
        "dataset",
        "subset",
        "shots",
        "seed",
        "top1",
        "zero_shot_top1",
        "top5",
        "macro_f1",
        "balanced_accuracy",
        "ece",
    ),
    *(
        "per_class",
        "num_test",
        "num_train",
        "num_val",
        "parameters",
        "epochs",
        "options",
        "template",
        "recipe",
        "num_classes",
    ),
)


def few_steps(name: str) -> dict[str, str]:
    """The shortest training of a method; sentences for the classes of the tests' sets."""
    if name == "descriptions":
        return {"sentences": json.dumps({one: ["a picture"] for one in ("bird", "cat", "dog", "tree", "car", "house")})}
    schedule = {} if name in ("zero-shot", "linear-probe") else {"epochs": "2", "batch": "8"}
    return {**schedule, **({"n_ctx": "3"} if name == "coop" else {})}


@pytest.mark.parametrize("name", [*LEARNING, "plpp+coop"])
def test_learning_reads_no_test_image(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every read of an image's bytes goes through `Sample.read`; one of a test image ends the test."""
    read: list[str] = []
    honest = Sample.read

    def watched(sample: Sample) -> bytes:
        read.append(sample.id)
        assert not sample.id.startswith("test/"), f"learning {name} read the test image {sample.id}"
        return honest(sample)

    asked = request(clip_dir, sets, methods=(name,), overrides=few_steps(name))
    grid = Grid(out=tmp_path / "out", means=Means(device="cpu", cache=tmp_path / "cache"))
    (cell,) = plan_of(asked, grid).cells
    monkeypatch.setattr(Sample, "read", watched)
    learn(cell.course, tmp_path / "learned", Desk(grid.means))
    assert (tmp_path / "learned" / artifact.FACTS).is_file()
    reads = {"train", "val"} if resolve(name).learner is not None else set()
    assert {place.split("/")[0] for place in read} == reads


@pytest.mark.parametrize("name", ["coop", "linear-probe"])
def test_a_prompt_is_the_same_bits_where_the_test_images_are_gone(
    clip_dir: Path, sets: Path, tmp_path: Path, name: str
) -> None:
    bare = Path(shutil.copytree(sets / "shades", tmp_path / "bare" / "shades"))
    learned = []
    for root in (sets, bare.parent):
        grid = grid_of(tmp_path / f"out-{len(learned)}", root)
        (cell,) = plan_of(request(clip_dir, root, methods=(name,), overrides=few_steps(name)), grid).cells
        if root == bare.parent:
            shutil.rmtree(bare / "test")
        place = grid.learned(cell.course)
        learn(cell.course, place, Desk(grid.means))
        learned.append((place / artifact.TENSORS).read_bytes())
    assert learned[0] == learned[1]


def test_a_desk_hands_out_halves_that_have_nothing_in_common(sets: Path) -> None:
    desk = Desk(Means(device="cpu"))
    material, questions = desk.material(str(sets / "shades")), desk.questions(str(sets / "shades"))
    assert (len(material.train), len(material.val), len(material.test)) == (16, 8, 0)
    assert (len(questions.train), len(questions.val), len(questions.test)) == (0, 0, 12)
    assert not {one.id for one in (*material.train, *material.val)} & {one.id for one in questions.test}


def test_a_validation_image_that_is_a_test_image_too_is_not_chosen_by(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ImageNet, whose published validation images are its test images."""
    honest = sources.list_source(sets / "shades")
    again = tuple(dataclasses.replace(one, part="val") for one in honest.entries if one.part == "test")
    monkeypatch.setattr(
        sources, "list_source", lambda _, **__: dataclasses.replace(honest, entries=(*honest.entries, *again))
    )
    desk = Desk(Means(device="cpu"))
    assert len(desk.questions("any").test) == 12
    assert {one.id.split("/")[0] for one in desk.material("any").val} == {"val"}
    assert "12 images are listed as test images too" in desk.material("any").notes[0]


@pytest.mark.parametrize("name", ["coop", "linear-probe", "zero-shot", "ivlp"])
def test_a_few_shot_cell_is_an_ordinary_run(clip_dir: Path, sets: Path, tmp_path: Path, name: str) -> None:
    overrides = few_steps(name)
    grid = grid_of(tmp_path / "out", sets)
    (cell,) = plan_of(request(clip_dir, sets, methods=(name,), overrides=overrides), grid).cells
    assert run_cell(cell, grid).state == "done"
    ours = records.read(grid.of(cell))
    run = config(clip_dir, sets / "shades", tmp_path / "run", method=name, shots=2, views=1, cache=sets / "cache")
    (theirs,) = train_run(run.__class__(**{**_fields(run), "overrides": overrides}))
    for field in SAME:
        if name != "zero-shot" or field not in ("shots", "num_val", "num_train"):
            assert getattr(ours, field) == getattr(theirs, field), field
    if name != "zero-shot":
        assert ours.split_hash == theirs.split_hash
        assert ours.val_top1 == theirs.val_top1
        before = (tmp_path / "run" / "seed1" / artifact.TENSORS).read_bytes()
        assert (grid.learned(cell.course) / artifact.TENSORS).read_bytes() == before


def _fields(run: object) -> dict[str, object]:
    return {name: getattr(run, name) for name in run.__slots__}  # type: ignore[attr-defined]


def test_a_cell_elsewhere_is_what_eval_says(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets, "cross-dataset", data=("shades", "others")), grid)
    for cell in plan.cells:
        assert run_cell(cell, grid).state == "done"
    elsewhere, own = (records.read(grid.of(cell)) for cell in plan.cells)
    place = grid.learned(plan.cells[0].course)
    (theirs,) = evaluate_run(place, str(sets / "others"), device="cpu", cache=sets / "cache")
    for field in ("top1", "top5", "ece", "per_class", "zero_shot_top1", "protocol", "source", "split_hash"):
        assert getattr(elsewhere, field) == getattr(theirs, field), field
    assert (own.protocol, own.source, own.dataset) == ("cross-dataset", "", "shades")
    assert own.val_top1 is not None
    assert elsewhere.val_top1 is None


def test_base_to_novel_records_both_halves_of_one_prompt(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets, "base-to-novel"), grid)
    for cell in plan.cells:
        assert run_cell(cell, grid).state == "done"
    base, novel = (records.read(grid.of(cell)) for cell in plan.cells)
    assert (base.subset, novel.subset) == ("base", "novel")
    assert base.config_hash == novel.config_hash != ""
    assert set(base.per_class) == {"bird", "cat"}
    assert set(novel.per_class) == {"dog", "tree"}
    assert base.num_test + novel.num_test == 12
    assert base.source == novel.source == ""


def test_every_cell_has_a_line_per_class(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "out", sets)
    (cell,) = plan_of(request(clip_dir, sets), grid).cells
    run_cell(cell, grid)
    record = records.read(grid.of(cell))
    with (grid.of(cell) / "per_class.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["class"] for line in lines] == sorted(record.per_class)
    assert {line["class"]: float(line["recall"]) for line in lines} == pytest.approx(dict(record.per_class), abs=1e-4)
    assert sum(int(line["images"]) for line in lines) == sum(int(line["answered"]) for line in lines) == record.num_test
    right = sum(int(line["right"]) for line in lines)
    assert record.top1 == pytest.approx(100 * right / record.num_test)
    f1 = [float(line["f1"]) for line in lines]
    assert sum(f1) / len(f1) == pytest.approx(record.macro_f1, abs=1e-3)


def test_transfer_tests_the_prompt_at_once_and_goes_on_from_it(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    train_run(config(clip_dir, sets / "shades", tmp_path / "first", overrides={"n_ctx": 3}, cache=sets / "cache"))
    grid = grid_of(tmp_path / "out", sets)
    shapeless = {name: value for name, value in QUICK.items() if name != "n_ctx"}
    asked = request(
        clip_dir, sets, "transfer", data=("others",), methods=None, init=tmp_path / "first", overrides=shapeless
    )
    plan = plan_of(asked, grid)
    for cell in plan.cells:
        assert run_cell(cell, grid).state == "done"
    at_once, tuned = (records.read(grid.of(cell)) for cell in plan.cells)
    facts = artifact.read_facts(tmp_path / "first" / "seed1")
    assert at_once.init == tuned.init == facts["tensors_hash"]
    assert (at_once.shots, at_once.source, at_once.epochs, at_once.num_train) == (0, "shades", 0, 0)
    assert (tuned.shots, tuned.source, tuned.epochs, tuned.num_train) == (2, "", 2, 6)
    (theirs,) = evaluate_run(tmp_path / "first", str(sets / "others"), device="cpu", cache=sets / "cache")
    assert at_once.top1 == theirs.top1
    first, second = (grid.learned(cell.course) / artifact.TENSORS for cell in plan.cells)
    assert first.read_bytes() == (tmp_path / "first" / "seed1" / artifact.TENSORS).read_bytes()
    assert first.read_bytes() != second.read_bytes()
    (again,) = train_run(
        config(
            clip_dir,
            sets / "others",
            tmp_path / "tuned",
            init=tmp_path / "first",
            shots=2,
            views=1,
            cache=sets / "cache",
            overrides={"epochs": 2, "n_ctx": 3, "batch": 8, "lr": 0.01},
        )
    )
    assert again.top1 == tuned.top1
    assert (tmp_path / "tuned" / "seed1" / artifact.TENSORS).read_bytes() == second.read_bytes()


def test_learning_curves_for_tensorboard(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tensorboard's own dependencies warn of
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        grid = Grid(out=tmp_path / "out", means=Means(device="cpu", cache=sets / "cache", track="tensorboard"))
        (cell,) = plan_of(request(clip_dir, sets, overrides={**QUICK, "epochs": "3"}), grid).cells
        assert run_cell(cell, grid).state == "done"
        place = grid.learned(cell.course)
        events = EventAccumulator(str(place / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]
    assert {"lr", f"losses/{CROSS_ENTROPY.name}", "seconds"} <= set(events.Tags()["scalars"])
    assert len((place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3
