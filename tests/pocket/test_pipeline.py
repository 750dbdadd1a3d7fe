"""The scripts that made the pocket, on a handful of made-up drawings."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import archive
import choose
import emoji_sets
import looks
import numpy as np
import prepare
import pytest
import sets
import sources
import tokenizer
import torch
import train
from export import export
from transformers import CLIPModel, CLIPTokenizerFast

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
