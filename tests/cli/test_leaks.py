"""No test image is learned from: not by one path in two lists, not by a copy, and not in `eval` on other folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import COLORS, Vlprompt, train_arguments
from tests.data import layouts
from vlprompt import records
from vlprompt.data.check import check
from vlprompt.data.papers import catalogue


@pytest.fixture
def parts(photos: Path, tmp_path: Path) -> Path:
    """The photos as train/ (5 of each class) and test/ (3)."""
    for name in COLORS:
        for number in range(8):
            place = tmp_path / "parts" / ("train" if number < 5 else "test") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / name / f"{number}.png", place)
    return tmp_path / "parts"


def seen(run: Path) -> set[str]:
    split = json.loads((run / "seed1/split.json").read_text(encoding="utf-8"))
    return {id for part in ("train", "val") for id, _ in split[part]}


def test_a_copy_of_a_test_image_is_not_learned_from(vlprompt: Vlprompt, parts: Path, clip_dir: Path) -> None:
    for number in range(4):
        shutil.copy(parts / f"train/red/{number}.png", parts / f"test/red/copy{number}.png")
    done = vlprompt(*train_arguments(clip_dir, parts), "--out", "run")
    assert done.code == 0, done.err
    assert "(a copy of a test image)" in done.err
    assert {id for id in seen(Path("run")) if "red" in id} == {"train/red/4.png"}
    asked = [*train_arguments(clip_dir, parts), "--out", "strict", "--strict"]
    assert (vlprompt(*asked).code, vlprompt("data", "check", parts).code) == (3, 3)


def test_one_path_in_two_lists_of_a_split_file_is_a_test_image(
    vlprompt: Vlprompt, photos: Path, clip_dir: Path, tmp_path: Path
) -> None:
    row = catalogue.get("caltech101")
    folder = tmp_path / row.directory
    shutil.copytree(photos, folder / row.prefix)
    rows = [[f"{name}/{number}.png", label, name] for label, name in enumerate(COLORS) for number in range(8)]
    layouts.write_split(folder / row.split, {"train": rows, "val": [], "test": rows[::2]})
    done = vlprompt(*train_arguments(clip_dir, folder), "--out", "run")
    assert done.code == 0, done.err
    assert "12 images are listed as test images too, and are not learned from" in done.err
    assert {Path(id).stem for id in seen(Path("run"))} <= {"1", "3", "5", "7"}
    looked = vlprompt("data", "check", folder)
    assert looked.code == 3
    assert f"problem: one image in several of train, val and test: {row.prefix}/red/0.png" in looked.out


def test_eval_refuses_images_that_were_learned_from(vlprompt: Vlprompt, parts: Path, clip_dir: Path) -> None:
    assert vlprompt(*train_arguments(clip_dir, parts), "--out", "run").code == 0
    shutil.copytree(parts / "train", parts.with_name("others") / "test")
    done = vlprompt("eval", "run", "--data", parts.with_name("others"))
    assert done.code == 3
    assert "6 of the 15 test images" in done.err
    assert "Remove them from the test images" in done.err
    assert vlprompt("eval", "run", "--data", parts).code == 0


def test_near_copies_are_counted(parts: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 250, 90), np.linspace(0, 6, 90))
    picture = Image.fromarray((x * (0.6 + 0.4 * np.sin(y))).astype(np.uint8)).convert("RGB")
    picture.save(parts / "train/red/picture.png")
    picture.resize((70, 70)).save(parts / "test/red/again.jpg", quality=80)
    assert check(parts).near == (("train/red/picture.png", "test/red/again.jpg"),)
    assert "note: 1 test images look as training images do" in "\n".join(check(parts).lines())


def test_a_grid_leaves_out_test_images_that_were_learned_from(vlprompt: Vlprompt, parts: Path, clip_dir: Path) -> None:
    for number in range(5):
        shutil.copy(parts / f"train/red/{number}.png", parts / f"test/red/copy{number}.png")
    small = [
        "--shots",
        "2",
        "--methods",
        "coop",
        "--seeds",
        "1",
        "--set",
        "epochs=1",
        "--set",
        "n_ctx=2",
        "--device",
        "cpu",
    ]
    done = vlprompt("bench", "few-shot", "--data", parts, "--model", clip_dir, *small, "--out", "grid")
    assert done.code == 0, done.err
    (record,) = [record for _, record in records.find(Path("grid")) if record.method == "coop"]
    left_out = {id for id, reason in record.skipped.items() if reason.startswith("learned from")}
    assert len(left_out) == 2
    assert record.num_test == 9 + 5 - 2
