"""Features that are kept: the same bits in whatever company an image is encoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.make import sample
from vlprompt.data import FeatureStore, views
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.images import BLOCK, Images, in_blocks
from vlprompt.engine.precision import generator
from vlprompt.methods.resolve import resolve
from vlprompt.towers import load


def test_an_image_has_the_same_bits_in_any_company(tmp_path: Path) -> None:
    clip = load("pocket-s")
    samples = [sample(f"image {number}") for number in range(2 * BLOCK + 5)]
    whole = Images(clip, FeatureStore(tmp_path / "whole")).features(samples, None)
    parts = Images(clip, FeatureStore(tmp_path / "parts"))
    for picked in ([0], [7, 3, 20], list(range(20, -1, -1))):
        found = parts.features([samples[number] for number in picked], None)
        assert torch.equal(found, whole[picked])


@pytest.mark.parametrize("method", ["coop", "cocoop", "vpt"])
def test_a_loose_picture_has_the_same_answer_in_any_company(method: str) -> None:
    clip, chosen = load("pocket-s"), resolve(method, {"init": "normal"} if method != "vpt" else {})
    prompt = chosen.prompt.build(clip.facts, generator("company"), 3)
    classifier = Classifier(clip, chosen, prompt, ("cat", "dog", "tree"), "a photo of a {}.")
    samples, images = [sample(f"image {number}") for number in range(5)], Images(clip, None)
    together = classifier.logits(samples, images)
    assert together.std(0).min() > 0
    for number in range(5):
        assert torch.equal(classifier.logits(samples[number : number + 1], images)[0], together[number])


def test_blocks_are_of_one_size_and_nothing_is_lost() -> None:
    seen = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return pixels.flatten(1).sum(1, keepdim=True)

    for number in (1, BLOCK, BLOCK + 1, 3 * BLOCK):
        pixels = torch.randn(number, 3, 2, 2)
        assert torch.equal(in_blocks(encode, pixels, torch.device("cpu")), pixels.flatten(1).sum(1, keepdim=True))
    assert set(seen) == {BLOCK}


def test_cells_are_kept_alike(tmp_path: Path) -> None:
    model = load("pocket-m")
    assert model.reads_cells
    samples = [sample(f"image {number}") for number in range(3)]
    alone = Images(model, FeatureStore(tmp_path / "alone"))
    together = Images(model, FeatureStore(tmp_path / "together")).pixels(samples, None)
    assert all(torch.equal(alone.pixels([one], None)[0], cells) for one, cells in zip(samples, together, strict=True))


def test_the_views_of_an_image_are_decoded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = load("pocket-s")
    samples = [sample(f"image {number}") for number in range(3)]
    decoded = []
    opened = views.opened
    monkeypatch.setattr(views, "opened", lambda data, **how: decoded.append(how["name"]) or opened(data, **how))
    kept = Images(clip, FeatureStore(tmp_path / "cache"))
    found = kept.views(samples, 5)
    assert sorted(decoded) == sorted(one.id for one in samples)
    loose = Images(clip, None)
    assert torch.equal(found, loose.views(samples, 5))
    assert torch.equal(found[2], loose.views(samples[2:], 5)[0])
    for place, view in enumerate([None, 0, 1, 2, 3, 4]):
        torch.testing.assert_close(found[:, place], loose.features(samples, view), rtol=1e-4, atol=1e-4)
    decoded.clear()
    again = Images(clip, FeatureStore(tmp_path / "cache"))
    assert torch.equal(again.views(samples, 5), found)
    assert decoded == []
    again.views(samples[:1], 6)
    assert len(decoded) == 1
