"""The shipped archive: enough images, splits that share nothing, pictures that decode."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import sources
from PIL import Image
from sets import fingerprints, near_duplicates

from vlprompt import pocket

LEAST = {"train": 16, "val": 4, "test": 10}
SETS, DOMAINS, (PRETRAINING,) = pocket.names("benchmark"), pocket.names("domain"), pocket.names("pretraining")


def picture(key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pocket.read(key))).convert("RGB"))


def test_there_are_eight_sets_of_five_to_fifty_classes_one_of_them_large() -> None:
    sizes = sorted(len(pocket.info(name).class_names) for name in SETS)
    assert len(sizes) >= 8
    assert 40 <= sizes[-1] <= 50
    assert sizes[0] >= 5


def test_domains_have_the_classes_of_their_source_and_test_images_of_its_test_concepts() -> None:
    assert len(DOMAINS) >= 3
    for name in DOMAINS:
        facts = pocket.info(name)
        assert facts.domain_of in SETS
        assert facts.class_names == pocket.info(facts.domain_of).class_names
        assert {row.split for row in pocket.rows(name)} == {"test"}
        tested = {row.concept for row in pocket.rows(facts.domain_of) if row.split == "test"}
        assert {row.concept for row in pocket.rows(name)} <= tested
        counts = Counter(row.label for row in pocket.rows(name))
        assert min(counts[label] for label in range(len(facts.class_names))) >= 10


def test_the_pretraining_set_has_a_thousand_concepts_and_no_image_of_another_set() -> None:
    rows = pocket.rows(PRETRAINING)
    counts = Counter(row.label for row in rows)
    assert len(counts) >= 1000
    assert min(counts.values()) >= 4
    others = {row.key for name in SETS + DOMAINS for row in pocket.rows(name)}
    assert not others & {row.key for row in rows}
    drawn = {(row.hand, row.concept) for name in SETS + DOMAINS for row in pocket.rows(name)}
    assert not drawn & {(row.hand, row.concept) for row in rows}


def test_all_images_take_at_most_twelve_megabytes() -> None:
    assert sum(path.stat().st_size for path in Path(pocket.__file__).parent.glob("*.zip")) <= 12_000_000


def test_openmoji_is_in_an_archive_of_its_own_with_its_licence() -> None:
    for path in Path(pocket.__file__).parent.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            hands = {i["hand"] for s in json.loads(archive.read("manifest.json"))["sets"].values() for i in s["images"]}
            alone = all(hand.startswith("openmoji") for hand in hands)
            assert alone == ("LICENSE.txt" in archive.namelist()) == any(hand.startswith("openmoji") for hand in hands)


@pytest.mark.parametrize("name", SETS)
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
    assert name == PRETRAINING or all("-" not in c and "_" not in c for c in facts.class_names)


@pytest.mark.parametrize("name", SETS)
def test_no_concept_is_in_two_splits(name: str) -> None:
    splits = defaultdict(set)
    for row in pocket.rows(name):
        splits[row.concept].add(row.split)
    assert [c for c, s in splits.items() if len(s) > 1] == []


def test_a_concept_keeps_its_split_in_all_emoji_sets() -> None:
    splits = defaultdict(set)
    for name in SETS:
        for row in pocket.rows(name):
            splits[row.concept].add(row.split)
    assert [c for c, s in splits.items() if len(s) > 1 and c.startswith("emoji")] == []


@pytest.mark.parametrize("name", SETS)
def test_every_picture_decodes_and_no_two_are_equal(name: str) -> None:
    keys = [row.key for row in pocket.rows(name)]
    seen = Counter(picture(key).tobytes() for key in keys)
    assert {picture(key).shape for key in keys} == {(64, 64, 3)}
    assert max(seen.values()) == 1


@pytest.mark.parametrize("name", SETS)
def test_near_duplicates_are_in_one_split(name: str) -> None:
    rows = pocket.rows(name)
    pictures = np.stack([picture(row.key) for row in rows])
    solid = np.full((*pictures.shape[:3], 1), 255, np.uint8)
    pairs = near_duplicates(fingerprints(np.concatenate([pictures, solid], axis=3)), range(len(rows)))
    torn = [(rows[a].key, rows[b].key) for a, b in pairs if rows[a].split != rows[b].split]
    # WebP moves a hash by a bit, so a pair just beyond the limit before encoding may be just within it after.
    assert len(torn) <= len(rows) // 100, torn


def test_the_manifest_names_a_hand_and_a_source_for_every_image() -> None:
    hands = {*sources.EMOJI_HANDS, "openclipart"}
    for path in Path(pocket.__file__).parent.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            for entry in json.loads(archive.read("manifest.json"))["sets"].values():
                assert all(image["hand"] in hands and image["source"] for image in entry["images"])


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'emoji-subgroups'"):
        pocket.info("emoji-subgroup")
    with pytest.raises(ValueError, match="did you mean 'pocket-s'"):
        pocket.model_dir("pocket-x")
    with pytest.raises(ValueError, match="no image"):
        pocket.read("nothing")
