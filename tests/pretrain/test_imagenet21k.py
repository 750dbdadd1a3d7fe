"""The ImageNet-21K layout: classes in the published order, names from published files, few-shot samples, what is odd reported."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from tests.pretrain.made import NAMES, USED, write_imagenet
from vlprompt.data import is_imagenet21k, open_imagenet21k, read_class_names
from vlprompt.errors import DATA, UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_imagenet(tmp_path_factory.mktemp("data") / "imagenet21k_resized")


def test_folders_and_names(whole: Path) -> None:
    corpus = open_imagenet21k(whole)
    assert is_imagenet21k(whole)
    assert corpus.class_names == ("cat", "dog", "bird", "red circle", "dog", "green truck")
    assert (len(corpus.train), len(corpus.held_out), corpus.held_out_part) == (5 * USED, 2 * USED, "val")
    first, last = corpus.train.sample(0), corpus.train.sample(len(corpus.train) - 1)
    assert (first.id, first.label) == ("imagenet21k_train/n00000001/n00000001_0.png", 0)
    assert (last.id, last.label) == ("imagenet21k_train/n00000006/n00000006_4.png", 5)
    assert first.read() == (whole / first.id).read_bytes()
    assert corpus.held_out.sample(3).label == 1
    with pytest.raises(IndexError):
        corpus.train.sample(len(corpus.train))


def test_odd_names_are_reported_and_nothing_is_mended_in_silence(whole: Path) -> None:
    said = " ".join(open_imagenet21k(whole).notes)
    assert "1 classes have synonyms; the first is used: n00000001 (cat, house cat)." in said
    assert "2 classes share 1 names and cannot be told apart by text: 'dog' (n00000002, n00000005)." in said
    assert "1 classes have no name and are left out: n00000007." in said


def test_few_shot_is_the_published_draw(whole: Path) -> None:
    corpus = open_imagenet21k(whole, shots=2, seed=42)
    stream = random.Random(42)
    wanted = [
        f"imagenet21k_train/{key}/{name}"
        for key in list(NAMES)[:USED]
        for name in stream.sample([f"{key}_{i}.png" for i in range(5)], 2)
    ]
    assert [corpus.train.sample(i).id for i in range(len(corpus.train))] == wanted
    assert len(corpus.held_out) == 2 * USED
    other = open_imagenet21k(whole, shots=2, seed=1)
    assert other.train.identity != corpus.train.identity
    assert open_imagenet21k(whole, shots=2, seed=42).train.identity == corpus.train.identity


def test_fewer_images_than_shots_are_all_used_and_said(whole: Path) -> None:
    corpus = open_imagenet21k(whole, shots=16)
    assert len(corpus.train) == 5 * USED
    assert any("fewer than 16" in note for note in corpus.notes)


def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "data")
    for file in (root / "imagenet21k_train" / "n00000002").iterdir():
        file.unlink()
    corpus = open_imagenet21k(root)
    assert "n00000002" in " ".join(corpus.notes)
    assert corpus.class_names == ("cat", "bird", "red circle", "dog", "green truck")
    assert {corpus.held_out.sample(i).label for i in range(len(corpus.held_out))} == set(range(5))


def test_every_published_form_of_names(tmp_path: Path) -> None:
    wanted = {key: names for key, names in NAMES.items() if names}
    (tmp_path / "lines.txt").write_text("".join(f"{key}\t{names}\n" for key, names in wanted.items()), encoding="utf-8")
    (tmp_path / "imagenet21k_wordnet_lemmas.txt").write_text("\n".join(wanted.values()), encoding="utf-8")
    (tmp_path / "imagenet21k_wordnet_ids.txt").write_text("\n".join(wanted), encoding="utf-8")
    (tmp_path / "names.json").write_text(
        json.dumps({key: names.split(", ") for key, names in wanted.items()}), encoding="utf-8"
    )
    index = {str(i): [key, names] for i, (key, names) in enumerate(wanted.items())}
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    tree = {"class_list": list(wanted), "class_tree_list": [[0]], "class_description": wanted}
    torch.save(tree, tmp_path / "imagenet21k_miil_tree.pth")
    for name in (
        "lines.txt",
        "imagenet21k_wordnet_lemmas.txt",
        "names.json",
        "index.json",
        "imagenet21k_miil_tree.pth",
    ):
        assert read_class_names(tmp_path / name) == wanted, name


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "one two\nthree"), ("a.json", "[1, 2]"), ("a.json", "{"), ("a.json", '{"a": [1]}'), ("a.pth", "no")],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_class_names(tmp_path / name)
    assert error.value.exit_code == DATA


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"class_description": Evil()}, tmp_path / "imagenet21k_miil_tree.pth")
    with pytest.raises(UserError):
        read_class_names(tmp_path / "imagenet21k_miil_tree.pth")
    assert not (tmp_path / "ran").exists()


def test_other_folders_are_not_this_layout(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert not is_imagenet21k(tmp_path)
    with pytest.raises(UserError):
        open_imagenet21k(tmp_path / "train")
