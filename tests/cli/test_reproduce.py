"""`vlprompt reproduce` from a miniature of Caltech101 on disk to numbers beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.cli.conftest import Vlprompt
from tests.data import layouts
from tests.data.make import put
from vlprompt.methods import recipes

CLASSES = ("face", "leopard", "motorbike", "accordion")
QUICK = ("--set", "epochs=1", "--set", "n_ctx=2", "--views", 1, "--device", "cpu")
OWN = """
title = "CoOp on two sets"
method = "coop"
protocol = "few-shot"
choices = "published"
source = "someone/code: README.md"
model = "m"
shots = [1, 2]
seeds = [1, 2, 3]
views = 1
train = ["caltech101"]

[options]
n_ctx = 2

[schedule]
epochs = 1
batch = 8

[[published]]
value = 99.5
metric = "top1"
dataset = "caltech101"
shots = 2
source = "someone/code: README.md"

[[published]]
value = 12.5
metric = "top1"
dataset = "mean of 1"
shots = 1
source = "someone/code: README.md"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a miniature of Caltech101 and its split file."""
    folder = tmp_path / "sets/caltech-101"
    split: layouts.Split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for part, number in (("train", 3), ("val", 1), ("test", 2)):
            for i in range(number):
                path = f"{name}/{part}_{i:04}.jpg"
                put(folder / "101_ObjectCategories" / path)
                split[part].append([path, label, name])
    layouts.write_split(folder / "split_zhou_Caltech101.json", split)
    return tmp_path / "sets"


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A recipe of some milliseconds, found as the real ones are."""

    remembered = (recipes.names, recipes._read, recipes._files, recipes._loaded, recipes._overlays)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/own.toml").write_text(OWN, encoding="utf-8")
    monkeypatch.setattr(recipes, "FOLDER", tmp_path / "recipes")
    for one in remembered:
        one.cache_clear()
    yield "own"
    for one in remembered:
        one.cache_clear()


def test_a_row_is_run_and_put_beside_the_published_numbers(
    vlprompt: Vlprompt, root: Path, own_recipe: str, clip_dir: Path
) -> None:
    asked = ("reproduce", own_recipe, "--model", clip_dir, "--data-root", root, "--device", "cpu", "--out", "again")
    dry = vlprompt(*asked, "--dry-run")
    assert dry.code == 0, dry.err
    assert "6 cells, 6 to do" in dry.err
    assert not Path("again").exists()
    done = vlprompt(*asked, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["data"], found["missing"], found["changed"]) == (["caltech101"], [], [])
    assert [(one["shots"], one["seed"]) for one in found["runs"]] == [(s, n) for s in (1, 2) for n in (1, 2, 3)]
    two, one = found["numbers"]
    values = [run["top1"] for run in found["runs"] if run["shots"] == 2]
    assert two["ours"] == pytest.approx(sum(values) / 3)
    assert two["difference"] == pytest.approx(two["ours"] - 99.5)
    assert two["published"]["value"] == 99.5
    assert two["verdict"] in ("lower", "cannot tell")
    assert one["shots"] == 1
    shown = vlprompt(*asked)
    assert "0 to do" in shown.err
    assert "99.50" in shown.out
    assert f"{two['difference']:+.2f}" in shown.out
    assert two["verdict"] in shown.out
    assert "someone/code: README.md" in shown.err


def test_what_is_missing_or_changed_gets_no_verdict(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    row = ("reproduce", "coop-few-shot", "--model", clip_dir, "--data-root", root, "--shots", "1", *QUICK)
    done = vlprompt(*row, "--out", "again")
    assert done.code == 0, done.err
    assert "left out: imagenet, oxford_pets" in done.err
    assert "mean of 11: missing imagenet" in done.err
    assert "incomplete" in done.out
    assert "67.56" in done.out
    assert "no verdict: epochs=1, n_ctx=2, views=1 are not the recipe's" in done.err
    assert "caltech101" in done.out


def test_base_to_novel_with_both_halves(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    row = ("reproduce", "coop-base-to-novel", "--model", clip_dir, "--data-root", root, "--data", "caltech101", *QUICK)
    done = vlprompt(*row, "--set", "init=normal", "--seeds", "1", "--out", "again", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["subset"] for one in found["runs"]] == ["base", "novel"]
    assert [one["published"]["metric"] for one in found["numbers"]] == ["base", "novel", "harmonic_mean"]
    assert {one["verdict"] for one in found["numbers"]} == {"incomplete"}
    assert len(found["numbers"][0]["missing"]) == 10


def test_all_domains_of_imagenet(vlprompt: Vlprompt, tmp_path: Path, clip_dir: Path) -> None:
    root = tmp_path / "imagenets"
    for name in ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"):
        layouts.MAKERS[name](root / layouts.DIRECTORIES[name])
    row = ("reproduce", "coop-domain", "--model", clip_dir, "--data-root", root, *QUICK, "--set", "init=normal")
    done = vlprompt(*row, "--out", "again", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    by_name = {one["published"]["dataset"]: one for one in found["numbers"]}
    assert set(by_name) == {"imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r", "mean of 4"}
    four = [by_name[name]["ours"] for name in ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")]
    assert by_name["mean of 4"]["ours"] == pytest.approx(sum(four) / 4)
    assert by_name["mean of 4"]["published"]["value"] == 59.28
    assert {one["num_seeds"] for one in found["numbers"]} == {3}
    assert all(one["source"] == "imagenet" for one in found["runs"] if one["dataset"] != "imagenet")


def test_zero_shot_has_no_seeds(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    row = ("reproduce", "zero-shot-base-to-novel", "--model", clip_dir, "--data-root", root, "--device", "cpu")
    done = vlprompt(*row, "--out", "again", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [(one["subset"], one["shots"]) for one in found["runs"]] == [("base", 0), ("novel", 0)]
    assert found["numbers"][0]["missing"][0] == "imagenet"
    assert "caltech101" not in found["numbers"][0]["missing"]


def test_a_row_without_numbers_says_so(vlprompt: Vlprompt, root: Path, clip_dir: Path) -> None:
    row = ("reproduce", "plpp-coop-few-shot", "--model", clip_dir, "--data-root", root, "--shots", "1", *QUICK)
    done = vlprompt(*row, "--seeds", "1", "--out", "again")
    assert done.code == 0, done.err
    assert "No number of this row has a public source" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("coop-fewshot",), "Did you mean 'coop-few-shot'"),
        (("pomp-pretraining",), "vlprompt pretrain"),
        (("coop-few-shot",), "--data-root"),
        (("coop-few-shot", "--data", "dtd", "--data-root", "."), "vlprompt data get dtd"),
    ],
)
def test_what_cannot_be_reproduced(
    vlprompt: Vlprompt, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)
    done = vlprompt("reproduce", *arguments)
    assert done.code in (2, 3)
    assert words in done.err


@pytest.mark.slow
def test_with_a_checkpoint_of_vit_b_16s_shape(vlprompt: Vlprompt, root: Path, tmp_path: Path) -> None:
    sizes = {"text_width": 512, "image_width": 768, "text_layers": 12, "image_layers": 12, "heads": 4}
    model = tiny.clip_dir(
        tmp_path / "vit-b-16", embed_dim=512, image_size=224, patch_size=16, context_length=77, **sizes
    )
    facts = json.loads((model / "config.json").read_text(encoding="utf-8"))
    facts["text_config"]["num_attention_heads"], facts["vision_config"]["num_attention_heads"] = 8, 12
    (model / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    for name, shots, numbers in (("coop-few-shot", "1", 1), ("maple-base-to-novel", "16", 3)):
        row = ("reproduce", name, "--model", model, "--data-root", root, "--data", "caltech101", "--shots", shots)
        done = vlprompt(*row, "--set", "epochs=1", "--views", 1, "--device", "cpu", "--out", name, "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert [one["seed"] for one in found["runs"] if one["subset"] != "novel"] == [1, 2, 3]
        assert len(found["numbers"]) == numbers
        assert {one["verdict"] for one in found["numbers"]} == {"incomplete"}
