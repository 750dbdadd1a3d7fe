"""Everything that a user can do wrong ends in a message and an exit code; what can be skipped is counted and listed."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.cli.conftest import Vlprompt, train_arguments
from vlprompt.errors import DATA, NUMERICAL, USAGE


def test_unknown_command_and_option_name_the_nearest(vlprompt: Vlprompt) -> None:
    done = vlprompt("trian")
    assert (done.code, "'train'" in done.err) == (USAGE, True)
    done = vlprompt("train", "--shot", 3)
    assert (done.code, "--shots" in done.err) == (USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "cop"], "Did you mean 'coop'"),
        (["--method", "coop+plpp"], "plpp+coop"),
        (["--method", "plp+coop"], "Did you mean 'plpp'"),
        (["--set", "epoch=3"], "Did you mean 'epochs'"),
        (["--set", "plpp.taus=3"], "Did you mean 'plpp.tau'"),
        (["--set", "epochs"], "NAME=VALUE"),
        (["--set", "epochs=many"], "whole number"),
        (["--set", "epochs=1", "--set", "epochs=2"], "twice"),
        (["--seeds", "1,x"], "--seeds 1,2,3"),
        (["--seeds", "1,1"], "twice"),
        (["--views", "none"], "--views"),
        (["--recipe", "papers"], "published"),
        (["--subset", "bas"], "Did you mean 'base'"),
        (["--device", "tpu"], "unknown device"),
        (["--dtype", "float8"], "float16"),
        (["--template", "a photo"], "{}"),
        (["--max-memory", "much"], "--max-memory 4G"),
    ],
)
def test_options_that_make_no_sense(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, arguments: list[str], message: str
) -> None:
    base = ["train", "--data", photos, "--model", clip_dir, "--method", "plpp+coop", "--out", "run"]
    done = vlprompt(*base, *arguments)
    assert done.code == USAGE
    assert message in done.err
    assert done.out == ""
    assert not Path("run").exists()


def test_unknown_model_and_data(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    done = vlprompt("train", "--data", photos, "--model", "pocket-x", "--out", "run")
    assert done.code == DATA
    assert "pocket-x" in done.err
    done = vlprompt("train", "--data", "emoji-subgroup", "--model", clip_dir)
    assert done.code == DATA
    assert "Did you mean 'emoji-subgroups'" in done.err
    assert vlprompt("predict", "no/run", photos).code == DATA


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path) -> None:
    path.with_suffix(".txt").write_text("not a picture", encoding="utf-8")


def svg_file(path: Path) -> None:
    path.with_suffix(".svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")


def svg_in_disguise(path: Path) -> None:
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])


def bomb(path: Path) -> None:
    """A PNG of 40,000 x 40,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (40_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes(40_001 * 10), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def link_in_a_circle(path: Path) -> None:
    os.symlink(path.name, path)


SPOILERS = [
    (empty_file, "empty file"),
    (text_file, "not an image"),
    (svg_file, "SVG"),
    (svg_in_disguise, "SVG"),
    (truncated, "truncated"),
    (bomb, "too many pixels"),
    (link_in_a_circle, "link"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILERS, ids=lambda one: getattr(one, "__name__", ""))
def test_one_bad_image_is_counted_listed_and_skipped_or_an_error_with_strict(
    vlprompt: Vlprompt, clip_dir: Path, own_photos: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(own_photos / "green" / "bad.png")
    command = [*train_arguments(clip_dir, own_photos), "--shots", "0"]
    done = vlprompt(*command, "--out", "run", "--json")
    assert done.code == 0, done.err
    (record,) = json.loads(done.out)
    assert [(name.split(".")[0], reason in why) for name, why in record["skipped"].items()] == [("green/bad", True)]
    assert "green/bad" in done.err
    strict = vlprompt(*command, "--out", "strict", "--strict")
    assert strict.code == DATA
    assert "green/bad" in strict.err
    assert reason in strict.err
    assert not Path("strict/seed1/result.json").exists()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [one for one in SPOILERS if one[0] not in (text_file, svg_file)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_predict_skips_bad_images_and_fails_where_all_are_bad(
    vlprompt: Vlprompt, trained: Path, own_photos: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    bad, good = tmp_path / "bad.png", own_photos / "red" / "0.png"
    spoil(bad)
    done = vlprompt("predict", trained, bad, good, "--json")
    assert done.code == 0, done.err
    answers = {answer["path"]: answer for answer in json.loads(done.out)}
    assert answers[str(good)]["class"]
    assert reason in answers[str(bad)]["error"]
    assert "1 of 2 files" in done.err
    assert reason in done.err
    assert vlprompt("predict", trained, bad, good, "--strict").code == DATA
    alone = vlprompt("predict", trained, bad)
    assert (alone.code, alone.out) == (DATA, "")
    assert reason in alone.err


def test_predict_without_any_image(vlprompt: Vlprompt, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for what in ("nothing", "missing.png"):
        done = vlprompt("predict", trained, tmp_path / what)
        assert done.code == DATA
        assert what in done.err


@pytest.mark.parametrize("classes", ["cat,,dog", "cat,cat", ""])
def test_class_lists_that_make_no_sense(vlprompt: Vlprompt, trained: Path, photos: Path, classes: str) -> None:
    done = vlprompt("predict", trained, photos / "red" / "0.png", "--classes", classes)
    assert done.code == USAGE
    assert "--classes" in done.err


def two_classes_with_one_name(root: Path) -> None:
    shutil.copytree(root / "blue_bird", root / "blue bird")


def a_class_that_cannot_be_read(root: Path) -> None:
    (root / "nothing").mkdir()
    (root / "nothing" / "a.heic").write_bytes(b"x")


def one_class_only(root: Path) -> None:
    shutil.rmtree(root / "red")
    shutil.rmtree(root / "green")


def no_class_folders(root: Path) -> None:
    for folder in list(root.iterdir()):
        shutil.move(folder / "0.png", root / f"{folder.name}.png")
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (two_classes_with_one_name, "one class name"),
        (a_class_that_cannot_be_read, "'nothing'"),
        (one_class_only, "one class only"),
        (no_class_folders, "Expected CLASS/image.jpg"),
    ],
)
def test_folders_that_are_no_data_set(
    vlprompt: Vlprompt, clip_dir: Path, own_photos: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(own_photos)
    done = vlprompt(*train_arguments(clip_dir, own_photos), "--out", "run")
    assert done.code == DATA
    assert message in done.err
    assert vlprompt("data", "check", own_photos).code == DATA


def test_fewer_images_than_shots_are_said_and_all_used(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    done = vlprompt(*train_arguments(clip_dir, photos), "--shots", 16, "--out", "run", "--json")
    assert done.code == 0, done.err
    assert "fewer than 16" in done.err
    (record,) = json.loads(done.out)
    assert set(record["short_classes"].values()) == {4}
    assert record["num_train"] == 12


def test_names_too_long_for_the_text_tower(vlprompt: Vlprompt, clip_dir: Path, own_photos: Path, trained: Path) -> None:
    (own_photos / "red").rename(own_photos / ("very " * 40 + "long"))
    done = vlprompt(*train_arguments(clip_dir, own_photos), "--out", "run")
    assert done.code == DATA
    assert "too long" in done.err
    done = vlprompt("predict", trained, own_photos / "green", "--classes", f"cat,{'very ' * 40}long")
    assert done.code == DATA
    assert "too long" in done.err


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["text_projection.weight"]


def extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["text_model.encoder.layers.9.mlp.fc1.bias"] = torch.zeros(4)


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    tensors["visual_projection.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(("spoil", "name"), [(missing, "missing"), (extra, "unexpected"), (misshapen, "shape (3, 3)")])
def test_checkpoints_that_do_not_fit(
    vlprompt: Vlprompt, photos: Path, tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], None], name: str
) -> None:
    path = tiny.clip_dir(tmp_path / "clip") / "model.safetensors"
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path)
    done = vlprompt(*train_arguments(tmp_path / "clip", photos), "--out", "run")
    assert done.code == DATA
    assert name in done.err
    assert vlprompt("models", tmp_path / "clip").code == DATA


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_checkpoints_with_a_file_missing_or_damaged(
    vlprompt: Vlprompt, photos: Path, tmp_path: Path, file: str
) -> None:
    path = tiny.clip_dir(tmp_path / "clip") / file
    path.write_bytes(path.read_bytes()[:100])
    done = vlprompt("models", tmp_path / "clip")
    assert done.code == DATA
    assert file in done.err
    path.unlink()
    done = vlprompt("models", tmp_path / "clip")
    assert done.code == DATA
    assert file in done.err


def test_a_prompt_for_another_backbone(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    other = tiny.clip_dir(tmp_path / "other", seed=1)
    done = vlprompt("eval", trained, "--data", photos, "--model", other)
    assert done.code == USAGE
    assert "own backbone" in done.err
    own = shutil.copytree(trained, tmp_path / "moved")
    facts = json.loads((own / "seed1" / "prompt.json").read_text(encoding="utf-8"))
    (own / "seed1" / "prompt.json").write_text(json.dumps(facts | {"model": str(other)}), encoding="utf-8")
    done = vlprompt("predict", own / "seed1", photos / "red" / "0.png")
    assert done.code == USAGE
    assert "weights" in done.err


def test_a_damaged_prompt(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    own = shutil.copytree(trained / "seed1", tmp_path / "prompt")
    path = own / "prompt.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    done = vlprompt("predict", own, photos / "red" / "0.png")
    assert done.code == DATA
    assert "prompt.safetensors" in done.err
    path.unlink()
    assert vlprompt("explain", own).code == DATA


def test_an_output_directory_in_use_and_nothing_in_it_is_lost(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    command = [*train_arguments(clip_dir, photos), "--out", "run"]
    assert vlprompt(*command).code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    done = vlprompt(*command, "--shots", 3)
    assert done.code == USAGE
    assert "another configuration" in done.err
    assert "shots: 2 -> 3" in done.err
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work", encoding="utf-8")
    done = vlprompt(*train_arguments(clip_dir, photos), "--out", "mine")
    assert done.code == USAGE
    assert "thesis.txt" in done.err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_loss_that_is_not_finite_names_step_and_files(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    steep = ["--set", "lr=1e30", "--set", "warmup_epochs=0", "--set", "warmup_lr=1e30"]
    done = vlprompt(*train_arguments(clip_dir, photos), "--out", "run", *steep)
    assert done.code == NUMERICAL
    assert "epoch" in done.err
    assert ".png" in done.err
    assert not Path("run/seed1/result.json").exists()
