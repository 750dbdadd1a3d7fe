"""Our towers against the numbers of the published implementations, and against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlprompt import parity
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip, assemble
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.towers.config import ClipConfig, TowerConfig
from vlprompt.types import Preprocess

INDEX = parity.index()
NAMES = INDEX["class_names"]
HALF = (0.5, 0.5, 0.5)


def error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float((ours.detach() - torch.from_numpy(theirs)).abs().max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def published() -> Clip:
    """The seeded weights of the cases: text width 512, image width 768, three layers each."""

    def tower(width: int, heads: int) -> TowerConfig:
        return TowerConfig(width=width, layers=3, heads=heads, hidden=4 * width, activation="quick_gelu")

    config = ClipConfig(
        embed_dim=512,
        text=tower(512, 8),
        image=tower(768, 12),
        vocab_size=49408,
        context_length=77,
        image_size=32,
        patch_size=16,
    )
    rows = parity.manifest(INDEX["weights"]["manifest"])
    weights = {name: torch.from_numpy(x) for name, x in parity.weights(rows, INDEX["weights"]["seed"]).items()}
    return assemble(
        config,
        weights,
        tokenizer=clip_tokenizer(),
        preprocess=Preprocess(resize=32, crop=32, mean=HALF, std=HALF),
        name="parity",
    )


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    spec = INDEX["images"]
    return torch.from_numpy(parity.images(spec["batch"], spec["size"], spec["seed"]))


def case_config(name: str) -> dict:
    return next(case for case in INDEX["cases"] if case["name"] == name)


def test_clip_vit(published: Clip, pixels: torch.Tensor) -> None:
    want = parity.case("clip_vit")
    sentences = case_config("clip_vit")["config"]["sentences"]
    for sentence, ids in zip(sentences, want["token_ids"]):
        ours = [published.tokenizer.start_id, *published.tokenizer.encode(sentence), published.tokenizer.end_id]
        assert ours == list(ids[: len(ours)])
        assert not ids[len(ours) :].any()
    text = published.encode_text(published.sentence_tokens(sentences))
    image = published.encode_images(pixels)
    assert error(text.pooled, want["text"]) <= 1e-5
    assert error(image.pooled, want["image"]) <= 1e-5
    assert error(published.logit_scale * image.unit @ text.unit.T, want["logits_per_image"]) <= 1e-5


@pytest.mark.parametrize("name", ["coop_end", "coop_words", "coop_middle", "coop_front", "coop_csc"])
def test_coop(published: Clip, pixels: torch.Tensor, name: str) -> None:
    want, case = parity.case(name), case_config(name)
    options = case["config"]
    spec = ContextSpec(
        n_ctx=options["n_ctx"],
        init=options.get("init", "normal"),
        position=options.get("position", "end"),
        per_class=options.get("csc", False),
    )
    prompt = spec.build(published.facts, torch.Generator().manual_seed(0), len(NAMES))
    if case["learned"]["seed"] is not None:
        values = parity.learned(case["learned"]["tensors"], case["learned"]["seed"])
        prompt.ctx.data = torch.from_numpy(values["prompt_learner.ctx"])
    prompted = prompt(None)
    text = published.encode_text(published.class_tokens(NAMES, prompted.layout), prompted)
    logits = published.logit_scale * published.encode_images(pixels).unit @ text.unit.T
    loss = F.cross_entropy(logits, torch.tensor(INDEX["labels"]))
    loss.backward()
    assert error(logits, want["logits"]) <= 1e-5
    assert error(loss, want["loss"]) <= 1e-5
    assert prompt.ctx.grad is not None
    assert error(prompt.ctx.grad, want["grad:prompt_learner.ctx"]) <= 1e-4


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_transformers_agrees_through_the_production_loader(tmp_path: Path, activation: str) -> None:
    transformers = pytest.importorskip("transformers")
    directory = tiny.clip_dir(tmp_path / "clip", activation=activation, image_width=96, heads=4, text_layers=2)
    reference = transformers.CLIPModel.from_pretrained(directory, attn_implementation="eager").eval()
    clip = tiny.load(directory)
    sentences = ["a photo of a cat.", "dog", "a red truck and a very long green tree house!"]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), pad_token="<|endoftext|>"
    )
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=pixels)
    text, image = clip.encode_text(clip.sentence_tokens(sentences)), clip.encode_images(pixels)
    assert error(text.unit, out.text_embeds.numpy()) <= 1e-5
    assert error(image.unit, out.image_embeds.numpy()) <= 1e-5
    assert error(clip.logit_scale * image.unit @ text.unit.T, out.logits_per_image.numpy()) <= 1e-5
