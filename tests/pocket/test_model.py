"""The shipped model: it loads as a CLIPModel, is small, and sees something."""

from __future__ import annotations

import json

import pytest
import torch
from evaluate import encode_images, encode_texts, score
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizerFast

from vlprompt import pocket

# Well under what LOG.md reports, above chance (20 % for 5 classes, 2.1 % for 47).
FLOOR = {
    "clipart-living": 30.0, "clipart-things": 16.0, "emoji-animals": 30.0, "emoji-food": 27.0, "emoji-groups": 37.0,
    "emoji-objects": 14.0, "emoji-people": 33.0, "emoji-subgroups": 22.0, "emoji-symbols": 31.0, "emoji-travel": 38.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    return CLIPModel.from_pretrained(pocket.model_dir(), dtype=torch.float32).eval()


def test_it_is_small_and_in_float16(model: CLIPModel) -> None:
    assert sum(p.numel() for p in model.parameters()) <= 5_000_000
    assert json.loads((pocket.model_dir() / "config.json").read_text(encoding="utf-8"))["dtype"] == "float16"
    assert (pocket.model_dir() / "model.safetensors").stat().st_size < 11_000_000


def test_the_tokenizer_is_one_of_clip(model: CLIPModel) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(pocket.model_dir())
    start, *_, end = tokenizer("A drawing of  MARINE animals.")["input_ids"]
    text = model.config.text_config
    assert (start, end) == (text.bos_token_id, text.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert tokenizer.tokenize("A drawing of  MARINE animals.") == [
        "a</w>", "drawing</w>", "of</w>", "marine</w>", "animals</w>", ".</w>",
    ]  # fmt: skip


def test_transformers_reads_the_end_token(model: CLIPModel) -> None:
    texts = ["a drawing of birds.", "a picture of religious and zodiac symbols."]
    tokens = CLIPTokenizerFast.from_pretrained(pocket.model_dir())(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.text_projection(model.text_model(**tokens).pooler_output)
    assert (theirs - encode_texts(model, pocket.model_dir(), texts)).abs().max() < 1e-4


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_zero_shot_on_validation_images_is_above_a_floor(model: CLIPModel, name: str) -> None:
    facts, rows = pocket.info(name), [r for r in pocket.rows(name) if r.split == "val"]
    images = normalize(encode_images(model, pocket.model_dir(), [r.key for r in rows]), dim=-1)
    texts = encode_texts(model, pocket.model_dir(), [facts.template.format(c) for c in facts.class_names])
    predicted = (images @ normalize(texts, dim=-1).T).argmax(1)
    assert score(predicted.numpy(), torch.tensor([r.label for r in rows]).numpy()) > FLOOR[name]
