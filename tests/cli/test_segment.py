"""Class maps: the command, the scores written out by hand, and vectors in transformers' open-vocabulary models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.cli.conftest import Vlprompt
from tests.tiny import clip_dir as tiny_dir
from vlprompt.data.masks import IGNORED
from vlprompt.engine.dense import confusion, mask_scores
from vlprompt.errors import UserError

NAMES = ["cat", "dog", "bird"]


@pytest.fixture
def run(vlprompt: Vlprompt, clip_dir: Path, photos: Path, tmp_path: Path) -> Path:
    """A zero-shot run on the tiny model."""
    out = tmp_path / "zero"
    done = vlprompt("train", "--data", photos, "--model", clip_dir, "--method", "zero-shot", "--shots", 1, "--out", out)
    assert done.code == 0, done.err
    return out


def masked(path: Path, names: list[str]) -> Path:
    """Two pictures of other sizes than the tower's, and their masks."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (path / part).mkdir(parents=True)
    for name, (height, width) in {"one": (40, 64), "two": (50, 33)}.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path / f"images/{name}.png")
        mask = rng.integers(0, len(names) + 1, (height, width), dtype=np.uint8)
        Image.fromarray(mask).save(path / f"masks/{name}.png")
    (path / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    return path


def test_the_scores_are_those_of_counting_by_hand() -> None:
    label = np.array([[0, 0, 1, IGNORED], [2, 2, 1, IGNORED]])
    found = np.array([[0, 1, 1, 0], [2, 0, 1, 3]])
    scores = mask_scores(confusion(label, found, 4), ["A_cat", "dog", "bird", "car"], ["a cat", "horse"], 1)
    assert scores.iou == {"A_cat": pytest.approx(100 / 3), "dog": pytest.approx(200 / 3), "bird": pytest.approx(50)}
    assert scores.miou == pytest.approx(50)
    assert scores.pixel_accuracy == pytest.approx(100 * 4 / 6)
    assert scores.seen == pytest.approx(100 / 3)
    assert scores.unseen == pytest.approx((200 / 3 + 50) / 2)
    assert scores.hiou == pytest.approx(2 / (3 / 100 + 2 / (200 / 3 + 50)))
    with pytest.raises(UserError, match="no pixel"):
        mask_scores(confusion(np.full((1, 1), IGNORED), np.zeros((1, 1), int), 4), ["a", "b", "c", "d"], [], 1)


def test_segment_writes_a_map_and_a_picture_for_each(vlprompt: Vlprompt, run: Path, tmp_path: Path) -> None:
    data = masked(tmp_path / "data", NAMES)
    out = tmp_path / "maps"
    options = ["--classes", ",".join(NAMES), "--out", out]
    rows = json.loads(vlprompt("segment", run, data / "images", *options, "--short", 40, "--json").out)
    assert [Path(row["path"]).name for row in rows] == ["one.png", "two.png"]
    label = np.load(out / "one.npy")
    assert label.shape == (40, 64)
    shares = {NAMES[i]: (label == i).mean() for i in np.unique(label)}
    assert rows[0]["share"] == pytest.approx(shares)
    with Image.open(out / "one.png") as shown:
        assert shown.width >= 64
        assert shown.height > 40
    assert "one.png" in vlprompt("segment", run, data / "images/one.png", *options).out
    before = (data / "images/one.png").read_bytes()
    done = vlprompt("segment", run, data / "images/one.png", "--classes", ",".join(NAMES), "--out", data / "images")
    assert (done.code, "one.png would be lost" in done.err) == (2, True)
    assert (data / "images/one.png").read_bytes() == before


def test_eval_scores_pixels(vlprompt: Vlprompt, run: Path, tmp_path: Path) -> None:
    data, out = masked(tmp_path / "data", [*NAMES, "truck"]), tmp_path / "scores"
    facts = json.loads(vlprompt("eval", run, "--masks", data, "--out", out, "--json").out)
    assert facts == json.loads((out / "masks.json").read_text(encoding="utf-8"))
    segment = tmp_path / "maps"
    vlprompt("segment", run, data / "images", "--classes", data / "classes.txt", "--out", segment)
    table = np.zeros((4, 4), int)
    for name in ("one", "two"):
        with Image.open(data / f"masks/{name}.png") as mask:
            value = np.array(mask)
        known = value < 4
        np.add.at(table, (value[known], np.load(segment / f"{name}.npy")[known]), 1)
    assert facts["pixel_accuracy"] == pytest.approx(100 * np.trace(table) / table.sum())
    assert "mIoU" in vlprompt("eval", run, "--masks", data).out


def test_what_cannot_be_done_is_said(vlprompt: Vlprompt, run: Path, tmp_path: Path) -> None:
    data = masked(tmp_path / "data", NAMES)
    assert "one of them" in vlprompt("eval", run).err
    assert "one of them" in vlprompt("eval", run, "--data", "x", "--masks", data).err
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / folder / "same.png")
    assert "same name" in vlprompt("segment", run, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "o").err
    assert "32 or more" in vlprompt("segment", run, data / "images/one.png", "--short", 8, "--out", tmp_path / "o").err


def vectors_of(vlprompt: Vlprompt, model: Any, prefix: str, photos: Path, tmp_path: Path) -> tuple[torch.Tensor, Any]:
    """Class vectors of a zero-shot run on the text tower that an open-vocabulary model has inside; and its template's sentences."""
    directory = tiny_dir(tmp_path / "inside", embed_dim=model.config.projection_dim)
    from safetensors.torch import load_file

    tensors = load_file(directory / "model.safetensors")
    own = {name.removeprefix(prefix): one for name, one in model.state_dict().items() if name.startswith(prefix)}
    text = {name: one.contiguous() for name, one in own.items() if name.startswith(("text_model.", "text_projection"))}
    assert {name for name in tensors if name.startswith("text")} <= text.keys()
    save_file(
        {**tensors, **{name: one for name, one in text.items() if name in tensors}}, directory / "model.safetensors"
    )
    run = tmp_path / "run"
    done = vlprompt(
        "train", "--data", photos, "--model", directory, "--method", "zero-shot", "--shots", 1, "--out", run
    )
    assert done.code == 0, done.err
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    vlprompt("export", "class-vectors", run, "--names", tmp_path / "names.txt", "--out", tmp_path / "vectors.npy")
    from vlprompt.artifact import loaded, pick

    learned, clip = loaded(pick(run).directory)
    sentences = [learned.template.format(name) for name in NAMES]
    ids = [[*clip.tokenizer.opening, *clip.tokenizer.encode(one), *clip.tokenizer.closing] for one in sentences]
    length = max(map(len, ids))
    padded = torch.tensor([[*one, *[clip.tokenizer.end_id] * (length - len(one))] for one in ids])
    return torch.from_numpy(np.load(tmp_path / "vectors.npy")), padded


def tower_of(clip_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    raw = json.loads((clip_dir / "config.json").read_text(encoding="utf-8"))
    return raw["text_config"], {**raw["vision_config"], "num_hidden_layers": 3}


def test_clipseg_takes_the_vectors(vlprompt: Vlprompt, clip_dir: Path, photos: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text, vision = tower_of(clip_dir)
    config = transformers.CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=32,
        reduce_dim=16,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=2,
    )
    torch.manual_seed(0)
    model = transformers.CLIPSegForImageSegmentation(config).eval()
    vectors, ids = vectors_of(vlprompt, model, "clip.", photos, tmp_path)
    pixels = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    with torch.no_grad():
        asked = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        given = model(pixel_values=pixels, conditional_embeddings=vectors).logits
    assert asked.std() > 0
    torch.testing.assert_close(given, asked, rtol=1e-4, atol=1e-5)


def test_owl_vit_takes_the_vectors(vlprompt: Vlprompt, clip_dir: Path, photos: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text, vision = tower_of(clip_dir)
    config = transformers.OwlViTConfig(text_config=text, vision_config=vision, projection_dim=64)
    torch.manual_seed(0)
    model = transformers.OwlViTForObjectDetection(config).eval()
    vectors, ids = vectors_of(vlprompt, model, "owlvit.", photos, tmp_path)
    with torch.no_grad():
        out = model(pixel_values=torch.randn(1, 3, 32, 32), input_ids=ids, attention_mask=torch.ones_like(ids))
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(unit, out.text_embeds[0], rtol=1e-4, atol=1e-5)
        features = out.image_embeds.flatten(1, 2)
        given, _ = model.class_predictor(features, vectors[None], torch.ones(1, 3, dtype=torch.bool))
    assert out.logits.std() > 0
    torch.testing.assert_close(given, out.logits, rtol=1e-3, atol=1e-4)
