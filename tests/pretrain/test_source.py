"""What `--data` of pretraining may be, besides the large sets, and what is said of what it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images import write_squares
from vlprompt import pocket
from vlprompt.errors import DATA, UserError
from vlprompt.pretrain.source import POCKET, open_corpus


def test_a_folder_is_a_sample_with_its_validation_images_held_out(tmp_path: Path) -> None:
    write_squares(tmp_path / "data", dict.fromkeys(("red", "blue")), {"train": 3, "val": 2, "test": 1}, size=(32, 32))
    found = open_corpus(str(tmp_path / "data"), tmp_path, shots=2, seed=1)
    assert (found.class_names, len(found.train), len(found.held_out), found.held_out_part) == (
        ("blue", "red"),
        4,
        4,
        "val",
    )
    many = open_corpus(str(tmp_path / "data"), tmp_path, shots=5, seed=1)
    assert len(many.train) == 6
    assert any("fewer than 5 training images in 2 classes" in note for note in many.notes)


def test_without_validation_images_the_test_images_are_held_out_and_broken_files_are_counted(tmp_path: Path) -> None:
    root = write_squares(tmp_path / "data", dict.fromkeys(("red", "blue")), {"train": 2, "test": 2}, size=(32, 32))
    (root / "train" / "red" / "empty.png").write_bytes(b"")
    found = open_corpus(str(root), tmp_path, shots=None, seed=1)
    assert (found.held_out_part, len(found.held_out)) == ("test", 4)
    assert len(found.train) == 4
    assert "1 file was skipped; `vlprompt data check` lists them." in found.notes


def test_the_embedded_set_is_called_pocket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_corpus(POCKET, tmp_path, shots=1, seed=1)
    assert found.name == pocket.names("pretraining")[0]
    assert len(found.train) == len(found.class_names)
    everything = pocket.names()
    monkeypatch.setattr(pocket, "names", lambda kind=None: () if kind else everything)
    with pytest.raises(UserError, match=r"no pretraining set\. Give --data a folder") as problem:
        open_corpus(POCKET, tmp_path, shots=1, seed=1)
    assert problem.value.exit_code == DATA


def test_imagenet21k_that_is_not_here_says_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"data get|--data-root|VLPROMPT_DATA"):
        open_corpus("imagenet21k", tmp_path, shots=1, seed=1)


def test_class_names_are_for_sets_without_names(tmp_path: Path) -> None:
    write_squares(tmp_path / "data", dict.fromkeys(("red", "blue")), {"train": 1}, size=(32, 32))
    with pytest.raises(UserError, match="--class-names is for ImageNet-21K folders and shards"):
        open_corpus(str(tmp_path / "data"), tmp_path, shots=1, seed=1, class_names=tmp_path / "names.txt")
