"""The shipped archives: enough images, splits that share nothing, pictures that decode, licences."""

from __future__ import annotations

import functools
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import icon_sets
import icons
import numpy as np
import pytest
import sources
from pictures import prints
from PIL import Image
from scipy.spatial.distance import cdist
from sets import near_duplicates

from vlprompt import pocket

LEAST = {"train": 16, "val": 3, "test": 8}
SIDES = {"icons": 64, "icons-filled": 64, "icons-coloured": 64, "fashion": 28, "furniture": 128}
"""Of the square pictures; 64 where nothing is said."""
SETS, DOMAINS, (PRETRAINING,) = pocket.names("benchmark"), pocket.names("domain"), pocket.names("pretraining")


@functools.lru_cache(maxsize=8192)
def picture(key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pocket.read(key))).convert("RGB"))


def test_there_are_eight_sets_of_five_to_a_hundred_classes_one_of_them_large() -> None:
    sizes = sorted(len(pocket.info(name).class_names) for name in SETS)
    assert len(sizes) >= 8
    assert 72 <= sizes[-1] <= 100
    assert sizes[0] >= 5


def test_domains_have_the_classes_of_their_source_and_test_images_of_its_test_concepts() -> None:
    assert len(DOMAINS) >= 3
    for name in DOMAINS:
        facts = pocket.info(name)
        assert facts.domain_of in SETS
        assert facts.class_names == pocket.info(facts.domain_of).class_names
        assert {row.split for row in pocket.rows(name)} == {"test"}
        tested = {row.concept for row in pocket.rows(facts.domain_of) if row.split == "test"}
        # A concept of icons is a hand, and few hands draw in colour.
        assert {row.concept for row in pocket.rows(name)} <= tested or facts.domain_of == "icons"
        counts = Counter(row.label for row in pocket.rows(name))
        least = 10 if name.startswith("emoji") else 1
        assert min(counts[label] for label in range(len(facts.class_names))) >= least


def test_the_pretraining_set_has_a_thousand_concepts_and_no_image_of_another_set() -> None:
    rows = pocket.rows(PRETRAINING)
    counts = Counter(row.label for row in rows)
    assert len(counts) >= 1000
    assert min(counts.values()) >= 4
    others = {row.key for name in SETS + DOMAINS for row in pocket.rows(name)}
    assert not others & {row.key for row in rows}
    drawn = {(row.hand, row.concept) for name in SETS + DOMAINS for row in pocket.rows(name)}
    assert not drawn & {(row.hand, row.concept) for row in rows}


def test_all_images_take_at_most_twenty_megabytes() -> None:
    assert sum(path.stat().st_size for path in Path(pocket.__file__).parent.glob("*.zip")) <= 20_000_000


def test_the_large_sets_leave_little_to_chance() -> None:
    assert len([row for row in pocket.rows("icons") if row.split == "test"]) >= 1500
    assert len([row for row in pocket.rows("fashion") if row.split == "test"]) >= 2000


def test_no_hand_of_the_icons_is_in_two_splits_and_each_is_where_it_was_dealt() -> None:
    split_of = {hand: split for split, hands in icon_sets.HANDS.items() for hand in hands.split()}
    rows = [row for name in ("icons", *icon_sets.DOMAINS.values()) for row in pocket.rows(name)]
    assert len(split_of) == sum(len(hands.split()) for hands in icon_sets.HANDS.values())
    assert [row.key for row in rows if split_of[row.hand] != row.split] == []
    assert list(pocket.info("icons").class_names) == sorted(icon_sets.CLASSES)


def test_every_collection_of_icons_stands_in_the_notice_and_may_be_passed_on() -> None:
    notice = (Path(pocket.__file__).parent / "NOTICE").read_text(encoding="utf-8")
    part = notice.split("In icons.zip")[1].split("In fashion.zip")[0]
    licence, found = "", {}
    for line in part.splitlines():
        if re.fullmatch(r"  [\w.-]+:", line):
            licence = line.strip().rstrip(":")
        elif re.match(r"    \S", line):
            found[line.split()[0]] = licence
    with zipfile.ZipFile(Path(pocket.__file__).parent / "icons.zip") as archive:
        sets = json.loads(archive.read("manifest.json"))["sets"].values()
    used = {image["source"].split(":")[0] for entry in sets for image in entry["images"]}
    assert used == set(found)
    assert set(found.values()) <= icons.FREE


def test_every_photograph_names_its_author_and_page() -> None:
    (name,) = pocket.names("test")
    with zipfile.ZipFile(Path(pocket.__file__).parent / f"{name}.zip") as archive:
        images = json.loads(archive.read("manifest.json"))["sets"][name]["images"]
    assert len(images) >= 100
    assert all(re.fullmatch(r".+, https?://\S+", image["credit"]) for image in images)
    assert {image["split"] for image in images} == {"test"}
    assert min(min(picture(image["path"]).shape[:2]) for image in images) == 128


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
    assert name == PRETRAINING or all("-" not in c.replace("T-", "") and "_" not in c for c in facts.class_names)


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
    side = SIDES.get(name, 64)
    assert {picture(key).shape for key in keys} == {(side, side, 3)}
    assert max(seen.values()) == 1


@pytest.mark.parametrize("name", [name for name in SETS if name != "fashion"])  # its published split is kept as it is
def test_near_duplicates_are_in_one_split(name: str) -> None:
    rows = pocket.rows(name)
    pictures = [picture(row.key) for row in rows]
    if name == "icons":
        looks = icon_sets.reduced(np.stack(pictures))
        coarse = (
            looks.reshape(-1, 4, 4, 4, 4, 3).mean(axis=(2, 4)).reshape(len(rows), -1)
        )  # never further apart than the whole
        near = np.argwhere(cdist(coarse, coarse, "cityblock") / coarse.shape[1] < icon_sets.ALIKE - 1)
        pairs = [(int(a), int(b)) for a, b in near if np.abs(looks[a] - looks[b]).mean() < icon_sets.ALIKE - 1]
    else:
        pairs = near_duplicates(prints(pictures), range(len(rows)))
    torn = [(rows[a].key, rows[b].key) for a, b in pairs if rows[a].split != rows[b].split]
    # WebP moves a hash by a bit, so a pair just beyond the limit before encoding may be just within it after.
    assert len(torn) <= len(rows) // 100, torn


def test_the_manifest_names_a_hand_and_a_source_for_every_image() -> None:
    libraries = ("blendswap-cc-0", "blendswap-cc-by", "katorlegaz", "reallusion", "scopia")
    dealt = [hand for hands in icon_sets.HANDS.values() for hand in hands.split()]
    hands = {*sources.EMOJI_HANDS, "openclipart", "zalando", "gcompris", *libraries, *dealt}
    for path in Path(pocket.__file__).parent.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            for entry in json.loads(archive.read("manifest.json"))["sets"].values():
                assert all(image["hand"] in hands and image["source"] for image in entry["images"])


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'emoji-subgroups'"):
        pocket.info("emoji-subgroup")
    with pytest.raises(ValueError, match="Did you mean 'pocket-s'"):
        pocket.model_dir("pocket-x")
    with pytest.raises(ValueError, match="unknown embedded image"):
        pocket.read("nothing")
