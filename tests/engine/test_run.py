"""Run directories: what is in them, when they are finished, what may be written into them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Memory
from tests.engine.made import config
from vlprompt import records
from vlprompt.disk import locked
from vlprompt.engine import learn as learn_module
from vlprompt.engine.run import train_run
from vlprompt.errors import DATA, UserError
from vlprompt.records import Record


def contents(directory: Path, *names: str) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in names}


def timeless(record: Record) -> dict[str, Any]:
    clock = ("seconds", "seconds_features", "peak_mib")
    return {name: getattr(record, name) for name in record.__slots__ if name not in clock}


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The images, to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "images"))


def test_a_run_has_everything_and_is_read_back(clip_dir: Path, folder: Path, tmp_path: Path, memory: Memory) -> None:
    found = train_run(config(clip_dir, folder, tmp_path / "run", seeds=(1, 2)), memory)
    assert [record.seed for record in found] == [1, 2]
    assert memory.records == found
    for record in found:
        place = tmp_path / "run" / f"seed{record.seed}"
        names = {path.name for path in place.iterdir()}
        assert names == {
            "README.md",
            "checkpoint.safetensors",
            "config.json",
            "metrics.jsonl",
            "predictions.npz",
            "prompt.json",
            "prompt.safetensors",
            "result.json",
            "split.json",
        }
        assert records.read(place) == record
        answers = records.read_predictions(place)
        assert answers is not None
        assert record.top1 == pytest.approx(100 * (answers.label == answers.predicted).mean())
        assert len(answers.id_hash) == record.num_test == 12
        assert (record.num_train, record.num_val, record.num_classes, record.epochs) == (12, 6, 3, 4)
        assert record.parameters == 4 * 64
        assert len((place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert found[0].split_hash != found[1].split_hash


def test_two_runs_are_equal_but_for_the_clock(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    names = ("prompt.safetensors", "split.json", "config.json", "predictions.npz")
    one, other = (train_run(config(clip_dir, folder, tmp_path / name))[0] for name in ("a", "b"))
    assert contents(tmp_path / "a" / "seed1", *names) == contents(tmp_path / "b" / "seed1", *names)
    assert timeless(one) == timeless(other)


def test_a_finished_run_is_not_done_again(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    made = config(clip_dir, folder, tmp_path / "run")
    before = train_run(made)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "seed1").iterdir()}
    memory = Memory()
    assert train_run(made, memory) == before == memory.records
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "seed1").iterdir()}
    assert not memory.losses


def test_ctrl_c_leaves_what_resume_ends_with_the_same_bits(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    whole = train_run(config(clip_dir, folder, tmp_path / "whole"))
    made = config(clip_dir, folder, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train_run(made, Memory(stop_after=3))
    place = tmp_path / "parts" / "seed1"
    assert not records.finished(place)
    with pytest.raises(UserError, match=r"unfinished work.*--resume"):
        train_run(made)
    memory = Memory()
    resumed = train_run(config(clip_dir, folder, tmp_path / "parts", resume=True), memory)
    assert 0 < len(memory.losses) < 8 - 1
    assert timeless(resumed[0]) == timeless(whole[0])
    same = ("prompt.safetensors", "predictions.npz", "split.json", "config.json")
    assert contents(place, *same) == contents(tmp_path / "whole" / "seed1", *same)


def test_work_that_never_reached_a_checkpoint_is_just_begun_again(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_run(config(clip_dir, folder, tmp_path / "run"), Memory(stop_after=1))
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", method="plpp+coop"))
    assert record.method == "plpp+coop"


@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused_by_name(clip_dir: Path, folder: Path, tmp_path: Path, finished: bool) -> None:
    made = config(clip_dir, folder, tmp_path / "run")
    if finished:
        train_run(made)
    else:
        with pytest.raises(KeyboardInterrupt):
            train_run(made, Memory(stop_after=3))
    other = config(clip_dir, folder, tmp_path / "run", resume=True, shots=2, overrides={"lr": 0.5})
    with pytest.raises(UserError) as refused:
        train_run(other)
    said = str(refused.value).replace(str(tmp_path), "")
    for part in ("options.lr: 0.005 -> 0.5", "shots: 4 -> 2", "Use another --out"):
        assert part in said
    assert "epochs" not in said
    assert "hash" not in said, "what nobody types is not said where something else differs"
    assert len(said) < 200


def test_a_run_may_go_on_after_everything_has_moved(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_run(config(clip_dir, folder, tmp_path / "run"), Memory(stop_after=3))
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "colours"))
    model = Path(shutil.copytree(clip_dir, tmp_path / "model"))
    (tmp_path / "run").rename(tmp_path / "moved")
    memory = Memory()
    train_run(config(model, moved, tmp_path / "moved", resume=True), memory)
    assert len(memory.losses) < 8 - 1


def test_other_images_under_the_same_names_are_another_configuration(
    clip_dir: Path, folder: Path, copy: Path, tmp_path: Path
) -> None:
    renamed = copy.rename(tmp_path / "colours")
    train_run(config(clip_dir, folder, tmp_path / "run"))
    for path in (renamed / "train" / "cat").iterdir():
        path.write_bytes((renamed / "train" / "dog" / path.name).read_bytes())
    with pytest.raises(UserError, match="other training images"):
        train_run(config(clip_dir, renamed, tmp_path / "run"))


def test_a_directory_with_other_things_is_refused(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds no run \(found thesis.txt\)"):
        train_run(config(clip_dir, folder, tmp_path / "run"))
    train_run(config(clip_dir, folder, tmp_path / "run", resume=True))
    assert (tmp_path / "run" / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    with pytest.raises(UserError, match="is a file"):
        train_run(config(clip_dir, folder, tmp_path / "run" / "thesis.txt"))


def test_a_directory_in_use_is_refused(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(UserError, match="in use by another"):
        train_run(config(clip_dir, folder, tmp_path / "run"))


def test_zero_shot_writes_records_and_says_what_it_ignores(
    clip_dir: Path, folder: Path, tmp_path: Path, memory: Memory
) -> None:
    made = config(clip_dir, folder, tmp_path / "run", method="zero-shot", template="a drawing of the {}.")
    made = type(made)(**{**{name: getattr(made, name) for name in made.__slots__}, "overrides": {"epochs": "3"}})
    (record,) = train_run(made, memory)
    assert memory.notes == ["zero-shot takes no gradient steps: epochs is ignored."]
    assert record.top1 == record.zero_shot_top1
    assert (record.epochs, record.parameters, record.num_train) == (0, 0, 0)
    assert record.template == "a drawing of the {}."
    names = {path.name for path in (tmp_path / "run" / "seed1").iterdir()}
    assert "prompt.json" in names
    assert not names & {"prompt.safetensors", "checkpoint.safetensors", "metrics.jsonl"}


def test_bad_images_are_skipped_counted_and_listed(clip_dir: Path, copy: Path, tmp_path: Path, memory: Memory) -> None:
    whole = (copy / "train" / "cat" / "0.png").read_bytes()
    (copy / "train" / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
    (copy / "test" / "dog" / "1.png").write_bytes(b"")
    (copy / "val" / "dog" / "0.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    (record,) = train_run(config(clip_dir, copy, tmp_path / "run", shots=6), memory)
    assert record.skipped.keys() == {"train/cat/0.png", "test/dog/1.png", "val/dog/0.png"}
    assert "truncated" in record.skipped["train/cat/0.png"]
    assert record.short_classes == {"cat": 5}
    assert (record.num_train, record.num_val, record.num_test) == (17, 5, 11)
    assert "3 images were skipped" in memory.notes[0]
    assert "fewer than 6 training images in cat (5)" in memory.notes[1]
    split = json.loads((tmp_path / "run" / "seed1" / "split.json").read_text(encoding="utf-8"))
    assert not record.skipped.keys() & {id for part in ("train", "val", "test") for id, _ in split[part]}


def test_a_bad_image_is_replaced_where_there_are_more(clip_dir: Path, copy: Path, tmp_path: Path) -> None:
    for i in range(3):
        (copy / "train" / "cat" / f"{i}.png").write_bytes(b"nothing")
    (record,) = train_run(config(clip_dir, copy, tmp_path / "run", shots=3))
    assert (record.num_train, record.short_classes) == (9, {})


def test_strict_makes_bad_images_an_error(clip_dir: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "test" / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"test/dog/1\.png") as refused:
        train_run(config(clip_dir, copy, tmp_path / "run", strict=True))
    assert refused.value.exit_code == DATA


def test_a_class_without_a_usable_image_is_an_error(clip_dir: Path, copy: Path, tmp_path: Path) -> None:
    for path in (copy / "train" / "cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 3 classes have no training image that can be used \(cat\)"):
        train_run(config(clip_dir, copy, tmp_path / "run"))


def test_an_undivided_folder_is_divided_by_the_rule(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    flat = Path(shutil.copytree(folder / "train", tmp_path / "flat"))
    (record,) = train_run(config(clip_dir, flat, tmp_path / "run", shots=None))
    assert (record.num_train, record.num_val, record.num_test) == (9, 3, 6)


def test_halves_are_learned_apart(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    (base,) = train_run(config(clip_dir, folder, tmp_path / "base", subset="base"))
    (novel,) = train_run(config(clip_dir, folder, tmp_path / "novel", subset="novel"))
    assert (base.num_classes, base.num_test, base.protocol) == (2, 8, "base-to-novel")
    assert (novel.num_classes, novel.num_test, set(novel.per_class)) == (1, 4, {"dog"})


def test_no_test_image_is_seen_by_learning_or_choosing(
    clip_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What learning is given holds no test image; and other test images change no bit of what is learned or chosen."""
    given: list[str] = []
    inner = learn_module.train_all

    def watched(clip: Any, tasks: Any, *args: Any, **kwargs: Any) -> Any:
        given.extend(sample.id for task in tasks for sample in task.feed.samples)
        return inner(clip, tasks, *args, **kwargs)

    monkeypatch.setattr(learn_module, "train_all", watched)
    (one,) = train_run(config(clip_dir, folder, tmp_path / "one", cache=tmp_path / "cache one"))
    assert len(given) == 12
    assert all(id.startswith("train/") for id in given)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    names = ["blue bird", "cat", "dog"]
    for name in names:
        (other / "test" / name).rename(other / "test" / f"old {name}")
    for name, wrong in zip(names, names[1:] + names[:1], strict=True):
        (other / "test" / f"old {name}").rename(other / "test" / wrong)
    (two,) = train_run(config(clip_dir, other, tmp_path / "two", cache=tmp_path / "cache two"))
    learned, again = (contents(tmp_path / name / "seed1", "prompt.safetensors") for name in ("one", "two"))
    assert learned == again
    assert one.val_top1 == two.val_top1
    assert one.top1 != two.top1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "plp+coop"}, "unknown overlay 'plp'. Did you mean 'plpp'"),
        ({"overrides": {"epoch": 1}}, "Did you mean 'epochs'"),
        ({"recipe": "paper"}, "unknown recipe 'paper'"),
        ({"seeds": ()}, "give one or more different numbers"),
        ({"seeds": (1, 1)}, "give one or more different numbers"),
        ({"shots": 0}, "must be at least 1"),
        ({"template": "a photo"}, "must have one {}"),
        ({"views": 0}, "a number from 1, 'epochs' or 'centre'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"data": "no-such-set"}, "no folder, table or embedded set"),
        ({"model": "./no-such-model"}, "no model './no-such-model'"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    clip_dir: Path, folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        train_run(config(clip_dir, folder, tmp_path / "run", **changes))
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()
