"""The folders that pictures with masks are published in, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlprompt.data.masks import IGNORED, VOC, open_masks
from vlprompt.errors import UserError


def picture(path: Path, values: list[list[int]] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        Image.new("RGB", (2, 2), "red").save(path)
        return
    mask = Image.fromarray(np.array(values, dtype=np.uint8)).convert("P")
    mask.putdata([one for row in values for one in row])
    mask.save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for name in ("2007_000032", "2007_000039", "2008_000001"):
        picture(tmp_path / f"JPEGImages/{name}.jpg")
    for name in ("2007_000032", "2007_000039"):
        picture(tmp_path / f"SegmentationClass/{name}.png", [[0, 1], [20, 255]])
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2007_000039\n", encoding="utf-8")
    return tmp_path


def test_pascal_voc(voc: Path) -> None:
    found = open_masks(voc)
    assert (found.layout, found.class_names) == ("voc", VOC)
    ((image, mask),) = found.pairs  # those of the list
    assert (image.name, mask.name) == ("2007_000039.jpg", "2007_000039.png")
    assert found.labels(mask).tolist() == [[IGNORED, 0], [19, IGNORED]]
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    assert len(open_masks(voc).pairs) == 2


def test_coco_stuff(tmp_path: Path) -> None:
    picture(tmp_path / "images/val2017/000000000139.jpg")
    picture(tmp_path / "annotations/val2017/000000000139.png", [[0, 1], [2, 255]])
    (tmp_path / "labels.txt").write_text("0: unlabeled\n1: person\n2: bicycle\n3: street sign\n", encoding="utf-8")
    found = open_masks(tmp_path)
    assert (found.layout, found.class_names) == ("coco-stuff", ("person", "bicycle", "street sign"))
    assert found.labels(found.pairs[0][1]).tolist() == [[0, 1], [2, IGNORED]]


def test_ade20k(tmp_path: Path) -> None:
    picture(tmp_path / "images/validation/ADE_val_00000001.jpg")
    picture(tmp_path / "annotations/validation/ADE_val_00000001.png", [[0, 1], [2, 3]])
    rows = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t11\t1\t1\twall\n2\t0.1\t6\t5\t1\tbuilding, edifice\n"
    (tmp_path / "objectInfo150.txt").write_text(rows, encoding="utf-8")
    found = open_masks(tmp_path)
    assert (found.layout, found.class_names) == ("ade20k", ("wall", "building"))
    assert found.labels(found.pairs[0][1]).tolist() == [[IGNORED, 0], [1, IGNORED]]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of pictures with masks"):
        open_masks(tmp_path)
    picture(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="there is no mask"):
        open_masks(tmp_path)
    picture(tmp_path / "masks/b.png", [[0, 1]])
    with pytest.raises(UserError, match="1 lack a picture or a mask: b"):
        open_masks(tmp_path)
    picture(tmp_path / "images/b.jpg")
    with pytest.raises(UserError, match=r"classes\.txt"):
        open_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ncat\n", encoding="utf-8")
    with pytest.raises(UserError, match="2 names, 1 of them different"):
        open_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    found = open_masks(tmp_path)
    Image.new("RGB", (2, 2)).save(found.pairs[0][1])
    with pytest.raises(UserError, match="one number for every pixel"):
        found.labels(found.pairs[0][1])
    found.pairs[0][1].write_bytes(b"no picture")
    with pytest.raises(UserError, match="no PNG"):
        found.labels(found.pairs[0][1])
