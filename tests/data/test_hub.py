"""Data sets of the Hub: from `datasets` objects and local files, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.data.make import encoded, folder, noise
from vlprompt.data import open_dataset
from vlprompt.data.check import check
from vlprompt.errors import UserError

datasets = pytest.importorskip("datasets", reason="needs the extra hub-data")


def table(labels: list[object], kind: object, first: int = 0, **columns: list[object]) -> object:
    """A table with an image per label, numbered from `first`."""
    pictures = [{"bytes": encoded(noise(first + i)), "path": None} for i in range(len(labels))]
    features = {"image": datasets.Image(), "label": kind, **{name: datasets.Value("int64") for name in columns}}
    return datasets.Dataset.from_dict(
        {"image": pictures, "label": labels, **columns}, features=datasets.Features(features)
    )


def listed(tables: dict[str, object], **settings: str) -> object:
    from vlprompt.data.hub import listing_of

    return listing_of(tables, "made", **settings)  # type: ignore[arg-type]


def test_parts_classes_and_bytes() -> None:
    from vlprompt.data.listing import as_dataset

    kind = datasets.ClassLabel(names=["tabby_cat", "dog"])
    found = listed({"train": table([1, 0, 1], kind), "validation": table([0], kind), "test": table([1, -1], kind)})
    data = as_dataset(found)  # type: ignore[arg-type]
    assert data.class_names == ("tabby cat", "dog")
    assert [(s.id, s.label) for s in data.train] == [("train/0000000", 1), ("train/0000001", 0), ("train/0000002", 1)]
    assert [s.label for s in data.val] == [0]
    assert [s.label for s in data.test] == [1]
    assert data.train[2].read() == encoded(noise(2))
    assert dict(data.skipped) == {"test/0000001": "no class"}


def test_one_part_is_undivided_and_others_are_noted() -> None:
    kind = datasets.ClassLabel(names=["a", "b"])
    assert not listed({"train": table([0, 1], kind)}).divided  # type: ignore[attr-defined]
    found = listed({"train": table([0, 1], kind), "extra": table([0], kind)})
    assert found.notes == ("made: the parts extra are not used.",)  # type: ignore[attr-defined]
    only = listed({"everything": table([0, 1], kind)})
    assert len(only.entries) == 2  # type: ignore[attr-defined]


def test_labels_that_are_text_or_numbers() -> None:
    text = listed({"train": table(["oak", "birch", "oak"], datasets.Value("string"))})
    assert text.class_keys == ("birch", "oak")  # type: ignore[attr-defined]
    numbers = listed({"train": table([10, 2, -1], datasets.Value("int64"))})
    assert numbers.class_keys == ("2", "10")  # type: ignore[attr-defined]
    assert len(numbers.entries) == 2  # type: ignore[attr-defined]


def test_columns_that_are_not_clear_are_asked_for() -> None:
    kind = datasets.ClassLabel(names=["a", "b"])
    two = table([0, 1], kind, coarse=[0, 0]).cast_column("coarse", datasets.ClassLabel(names=["x"]))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no column 'nothing'"):
        listed({"train": two}, label="nothing")
    assert listed({"train": two}, label="coarse").class_keys == ("x",)  # type: ignore[attr-defined]
    assert listed({"train": two}).class_keys == ("a", "b")  # type: ignore[attr-defined]
    renamed = two.rename_column("label", "fine")
    with pytest.raises(UserError, match=r"several columns.*fine.*label=COLUMN"):
        listed({"train": renamed})
    pictures = two.remove_columns("image")
    with pytest.raises(UserError, match="image=COLUMN"):
        listed({"train": pictures})


def test_local_files_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kind = datasets.ClassLabel(names=["red fox", "owl"])
    place = tmp_path / "birds"
    place.mkdir()
    for part, labels, first in (("train", [0, 1, 0, 1], 0), ("test", [1, 0], 4)):
        table(list(labels), kind, first).to_parquet(str(place / f"{part}-00000-of-00001.parquet"))  # type: ignore[attr-defined]
    data = open_dataset(f"hub:{place}")
    assert (data.name, data.class_names) == ("birds", ("red fox", "owl"))
    assert (len(data.train), len(data.test)) == (4, 2)
    assert check(f"hub:{place}").ok
    images = folder(tmp_path / "plain", {"cat": 2, "dog": 3})
    assert open_dataset(f"hub:{images}?label=label").class_names == ("cat", "dog")


@pytest.mark.parametrize("spec", ["hub:", "hub:a/b?colour=red"])
def test_a_wrong_address(spec: str) -> None:
    with pytest.raises(UserError, match="Expected hub:OWNER/NAME"):
        open_dataset(spec)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        open_dataset(f"hub:{tmp_path / 'nothing'}")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'vlprompt\[hub-data\]'"):
        open_dataset("hub:owner/name")
