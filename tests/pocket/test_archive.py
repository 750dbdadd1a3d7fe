"""The shipped archive: enough images, splits that share nothing, pictures that decode."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from sets import fingerprints, near_duplicates

from vlprompt import pocket

LEAST = {"train": 16, "val": 4, "test": 10}


def picture(key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pocket.read(key))).convert("RGB"))


def test_one_set_has_forty_classes_and_two_are_smaller() -> None:
    sizes = sorted(len(pocket.info(name).class_names) for name in pocket.names())
    assert len(sizes) >= 3
    assert sizes[-1] >= 40
    assert sizes[0] >= 5


@pytest.mark.parametrize("name", pocket.names())
def test_every_class_has_enough_images_in_every_split(name: str) -> None:
    facts = pocket.info(name)
    counts = Counter((row.label, row.split) for row in pocket.rows(name))
    for label in range(len(facts.class_names)):
        assert all(counts[label, split] >= least for split, least in LEAST.items()), facts.class_names[label]
    assert sum(counts.values()) == len(pocket.rows(name))


@pytest.mark.parametrize("name", pocket.names())
def test_names_are_readable_distinct_sorted_and_the_template_takes_them(name: str) -> None:
    facts = pocket.info(name)
    lowered = [c.lower() for c in facts.class_names]
    assert lowered == sorted(set(lowered))
    assert facts.template.count("{}") == 1
    assert all("-" not in c and "_" not in c for c in facts.class_names)


@pytest.mark.parametrize("name", pocket.names())
def test_no_concept_is_in_two_splits(name: str) -> None:
    splits = defaultdict(set)
    for row in pocket.rows(name):
        splits[row.concept].add(row.split)
    assert [c for c, s in splits.items() if len(s) > 1] == []


def test_every_picture_decodes_and_no_two_are_equal() -> None:
    keys = [row.key for name in pocket.names() for row in pocket.rows(name)]
    seen = Counter(picture(key).tobytes() for key in keys)
    assert {picture(key).shape for key in keys[::50]} == {(64, 64, 3)}
    assert max(seen.values()) == 1


@pytest.mark.parametrize("name", pocket.names())
def test_near_duplicates_are_in_one_split(name: str) -> None:
    rows = pocket.rows(name)
    pictures = np.stack([picture(row.key) for row in rows])
    solid = np.full((*pictures.shape[:3], 1), 255, np.uint8)
    pairs = near_duplicates(fingerprints(np.concatenate([pictures, solid], axis=3)), range(len(rows)))
    torn = [(rows[a].key, rows[b].key) for a, b in pairs if rows[a].split != rows[b].split]
    # WebP moves a hash by a bit, so a pair just beyond the limit before encoding may be just within it after.
    assert len(torn) <= len(rows) // 100, torn


def test_the_manifest_names_a_hand_and_a_source_for_every_image() -> None:
    manifest = json.loads(pocket.read("manifest.json"))
    for entry in manifest["sets"].values():
        for image in entry["images"]:
            assert image["hand"] in {"openclipart", "twemoji", "noto"}
            assert image["source"]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'emoji-subgroups'"):
        pocket.info("emoji-subgroup")
    with pytest.raises(ValueError, match="did you mean 'pocket-s'"):
        pocket.model_dir("pocket-x")
    with pytest.raises(ValueError, match="no image"):
        pocket.read("nothing")
