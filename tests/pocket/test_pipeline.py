"""The scripts that made the pocket, on a handful of made-up drawings."""

from __future__ import annotations

import json
import random
import struct
import zipfile
import zlib
from pathlib import Path

import archive
import choose
import emoji_sets
import fashion
import furniture
import icon_sets
import icons
import looks
import numpy as np
import photographs
import prepare
import pytest
import sets
import sources
import tokenizer
import torch
import train
from export import export
from pictures import Picture, archive_of
from transformers import CLIPModel, CLIPTokenizerFast

from tests.data import layouts

SMALL = train.Plan(
    batch=8, side=32, patch=8, width=32, layers=1, heads=1, text_width=32, text_layers=1, text_heads=1,
    embed=16, steps=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(made_sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered drawings, chosen sets and a tokenizer."""
    out = tmp_path_factory.mktemp("prepared")
    prepare.main(made_sources, out, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "SPLITS", {"train": 4, "val": 2, "test": 3})
        patch.setattr(sets, "ROOMY", {"train": 4, "val": 2, "test": 3})
        for module in (emoji_sets, choose):
            patch.setattr(module, "SPLITS", sets.SPLITS)
        patch.setattr(emoji_sets, "ROOMY", sets.ROOMY)
        choose.main(out)
    tokenizer.main(out, size=600)
    return out


def test_metadata_gives_titles_and_keywords_without_the_author(made_sources: Path) -> None:
    drawing = next(d for d in sources.clipart(made_sources) if d.key.endswith("bird_c_01"))
    assert (drawing.title, drawing.keywords, drawing.groups) == ("ccc bird", ("bird",), ("animals", "birds"))


def test_skin_tones_genders_and_hands_share_a_concept() -> None:
    codes = ("1F469-1F3FD-200D-1F373", "1F468-200D-1F373", "1F9D1-200D-1F373")
    assert len({sources.emoji_concept(c) for c in codes}) == 1
    assert sources.emoji_concept("1F3C3-1F3FE-200D-2640-FE0F") == sources.emoji_concept("1F3C3")


def test_broken_and_blank_drawings_are_left_out(folder: Path) -> None:
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    assert not [d["key"] for d in drawings if "broken" in d["key"] or "blank" in d["key"]]
    assert np.load(folder / "pixels.npy").shape == (len(drawings), 64, 64, 4)


def test_pretraining_shares_nothing_with_the_sets(folder: Path) -> None:
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    members = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
    rest = json.loads((folder / "pretrain.json").read_text(encoding="utf-8"))
    assert {m["class"] for m in members} == {"birds", "bugs", "fruit"}
    assert not {m["index"] for m in members} & set(rest)
    assert not [i for i in rest if drawings[i]["hand"] == "twemoji"]
    ours = {(drawings[m["index"]]["hand"], drawings[m["index"]]["concept"]) for m in members}
    assert not ours & {(drawings[i]["hand"], drawings[i]["concept"]) for i in rest}


def test_a_concept_and_its_near_duplicates_stay_together() -> None:
    assert sorted(map(sorted, sets.grouped([[0, 1], [2], [3]], [(1, 3), (2, 9)]))) == [[0, 1, 3], [2]]
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 4), dtype=np.uint8)
    twin = noise[:1].copy()
    twin[0, 0, 0] ^= 8
    prints = sets.fingerprints(np.concatenate([noise, twin]))
    assert sets.near_duplicates(prints, [0]) == [(0, 2)]


def test_the_archives_are_the_same_bytes_every_time(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        archive.main(folder, tmp_path / name)
    for name in archive.ARCHIVES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "images.zip") as made:
        images = json.loads(made.read("manifest.json"))["sets"]["clipart-living"]["images"]
        assert {i["path"] for i in images} <= set(made.namelist())


def test_a_domain_changes_pictures_as_it_says() -> None:
    drawing = np.zeros((64, 64, 4), np.uint8)
    drawing[16:48, 16:48] = (200, 30, 30, 255)
    assert set(np.unique(emoji_sets.changed(drawing, "twotone"))) == {0, 255}
    faint = emoji_sets.changed(drawing, "faint")
    assert int(faint.max()) - int(faint.min()) < 90
    assert emoji_sets.changed(drawing, "as drawn")[0, 0].tolist() == [255, 255, 255]


def test_an_icons_name_without_its_style_is_what_it_shows() -> None:
    names = {
        "key-bold": "key",
        "baseline-key-24px": "key",
        "nature-umbrella": "umbrella",
        "cat-2-remix": "cat",
        "bus": "bus",
    }
    assert {name: icons.stem(name) for name in names} == names
    assert icons.stem("hot-air-balloon-duotone") == "hot air balloon"
    assert icons.hand_of("lucide") == icons.hand_of("feather")
    assert icons.hand_of("ph") == "ph"
    collections = [one for members in icons.HANDS.values() for one in members.split()]
    assert len(collections) == len(set(collections))


def test_pretraining_may_see_no_icon_of_a_class() -> None:
    assert all(icon_sets.barred(words) for words in ("key", "ssh keys", "open box", "boxes", "price tag", "mail off"))
    assert not any(icon_sets.barred(words) for words in ("monkey", "cat", "hot air balloon", "carrot"))


def test_how_an_icon_looks_is_told_by_its_pixels() -> None:
    body = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="24" height="24">{}</svg>'
    ring = icons.draw(body.format('<circle cx="12" cy="12" r="10" fill="none" stroke="#000" stroke-width="2"/>'))
    disc = icons.draw(body.format('<circle cx="12" cy="12" r="5"/>'))
    red = icons.draw(body.format('<circle cx="12" cy="12" r="5" fill="#d22"/>'))
    assert [icons.look(one) for one in (ring, disc, red)] == ["outline", "filled", "coloured"]
    assert disc[32, 3:61].max() < 99  # a drawing is fitted to the picture, whatever its margins
    assert icons.draw(body.format("")) is None
    assert icons.draw("<svg") is None


def test_of_nearly_equal_icons_one_is_left_and_sizes_of_one_are_one() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (4, 8, 8), dtype=np.uint8).repeat(8, 1).repeat(8, 2) * 255
    pixels = np.repeat(noise[..., None], 3, axis=3)[[0, 1, 0, 2, 3]]
    rows = (("ph", "key"), ("ph", "key-2"), ("tabler", "key"), ("ci", "key-16"), ("ci", "key-20"))
    drawn = [icons.Icon(collection=c, name=n, hand=c, stem="key", licence="MIT") for c, n in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icon_sets, "look", lambda _: "outline")
        chosen = icon_sets.choose(drawn, pixels)
    assert [(i, split) for i, _, _, split in chosen] == [(3, "train"), (2, "train"), (1, "test")]


def test_a_model_of_a_house_has_one_class_and_a_switch_none() -> None:
    assert furniture.label_of("Bathtub", "Bathroom") == "bathroom things"
    assert furniture.label_of("Table lamp", "Living room") == "lamps"
    assert furniture.label_of("Light switch", "Lights") is None
    assert furniture.label_of("Rock", "Exterior") is None


def test_a_part_of_fashion_mnist_keeps_the_published_split(tmp_path: Path) -> None:
    expected = layouts.fashion(tmp_path)
    found = fashion.pictures(tmp_path)
    assert tuple(expected.class_names) == fashion.CLASSES
    assert [(p.split, p.label) for p in found if p.source == "t10k-images-idx3-ubyte.gz/9"] == [("test", "ankle boot")]
    assert len({p.source for p in found}) == len(found) == 30


def test_a_resource_file_is_read(tmp_path: Path) -> None:
    names = b"".join(struct.pack(">HI", len(n), 0) + n.encode("utf-16-be") for n in ("pets", "cat.webp"))
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", 0, 2, 1, 2) + struct.pack(">IHHHI", 14, 1, 0, 0, 0)
    packed = struct.pack(">I", 5) + zlib.compress(b"hello")
    head = 20
    content = struct.pack(">I", len(packed)) + packed
    places = (1, head, head + len(tree), head + len(tree) + len(content))
    (tmp_path / "a.rcc").write_bytes(b"qres" + struct.pack(">4I", *places) + tree + content + names)
    assert list(photographs.resources(tmp_path / "a.rcc")) == [("/pets/cat.webp", b"hello")]


def test_an_archive_of_pictures_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    row = {"label": "key", "split": "test", "concept": "c", "title": "key", "hand": "ph", "source": "ph:key"}
    both = [Picture(set=name, pixels=pixels, **row) for name in ("icons", "icons-filled")]
    for name in ("a.zip", "b.zip"):
        archive_of(tmp_path / name, icon_sets.FACTS, both, quality=None)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        entry = json.loads(made.read("manifest.json"))["sets"]["icons-filled"]
        assert (entry["domain_of"], entry["classes"]) == ("icons", ["key"])
        assert entry["images"][0]["path"] in made.namelist()


def test_a_caption_fits_a_picture_only_if_what_it_says_of_the_look_is_true() -> None:
    rng = random.Random(0)
    drawn = [looks.draw_look("noto", rng) for _ in range(200)]
    claims = [looks.claim(look, rng) for look in drawn]
    assert all(claim.fit(look) for claim, look in zip(claims, drawn, strict=True))
    outlined = looks.Claims(effect="outline")
    assert {look.effect for look in drawn if outlined.fit(look)} == {"outline"}
    assert "line" in looks.phrase(outlined, "drawing", "a cat", random.Random(1))
    assert "line" not in looks.phrase(looks.Claims(), "drawing", "a cat", random.Random(1))


def test_ten_steps_resumed_are_ten_steps(folder: Path, tmp_path: Path) -> None:
    whole = train.train(folder, tmp_path / "whole", SMALL)
    train.train(folder, tmp_path / "cut", SMALL, stop=4)
    resumed = train.train(folder, tmp_path / "cut", SMALL)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_export_loads_in_transformers(folder: Path, tmp_path: Path) -> None:
    model = train.build(SMALL, 600).eval()
    export(model, folder / "tokenizer.json", tmp_path)
    loaded = CLIPModel.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float16
    assert len(CLIPTokenizerFast.from_pretrained(tmp_path)) == 600
