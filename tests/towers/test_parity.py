"""Our towers against transformers; the published numbers are compared in `tests/verify`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from vlprompt.verify.compare import error


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
