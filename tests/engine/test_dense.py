"""Answers for every patch and pixel, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import tiny
from tests.oracle import towers as oracle
from vlprompt.data.views import normalise
from vlprompt.engine.dense import class_map, heat, laid_over, patch_logits, picture_logits
from vlprompt.engine.evaluate import Classifier
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip

NAMES = ["cat", "dog", "red bird"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny.clip(tmp_path_factory.mktemp("dense"))


def classifier(clip: Clip, method: str, names: list[str] = NAMES) -> Classifier:
    found = resolve(method, facts=clip.facts)
    prompt = found.prompt.build(clip.facts, torch.Generator().manual_seed(1), len(names))
    return Classifier(clip, found, prompt, names, "a photo of a {}.")


def plain_patches(clip: Clip, pixels: Tensor) -> Tensor:
    """(patches, E) of one image: row by row, MaskCLIP's last layer written out."""
    tower, size = clip.visual, clip.config.patch_size
    rows = [
        (tower.conv1.weight * pixels[None, :, i : i + size, j : j + size]).sum((1, 2, 3))
        for i in range(0, pixels.shape[1], size)
        for j in range(0, pixels.shape[2], size)
    ]
    x = oracle.norm(tower.ln_pre, torch.stack([tower.class_embedding, *rows]) + tower.positional_embedding)
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = oracle.block_step(block, x, [], None, tower.heads, causal=False)
    out = []
    for row in x[1:]:
        width = len(row)
        y = oracle.norm(last.ln_1, row)
        value = last.attn.in_proj_weight[2 * width :] @ y + last.attn.in_proj_bias[2 * width :]
        row = row + last.attn.out_proj.weight @ value + last.attn.out_proj.bias
        row = row + oracle.mlp(last, oracle.norm(last.ln_2, row))
        out.append(oracle.norm(tower.ln_post, row) @ tower.proj)
    return torch.stack(out)


def test_a_patch_has_the_value_paths_embedding(clip: Clip) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = clip.encode_patches(pixels)
    assert found.shape == (2, 4, 4, 32)
    for ours, image in zip(found, pixels, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), plain_patches(clip, image), rtol=1e-4, atol=1e-5)


def test_a_patchs_logits_are_the_cosines_of_its_embedding(clip: Clip) -> None:
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    asked = classifier(clip, "zero-shot")
    logits = patch_logits(asked, pixels)
    rows = torch.nn.functional.normalize(plain_patches(clip, pixels[0]), dim=-1)
    text = clip.encode_text(clip.class_tokens(NAMES, None, "a photo of a {}.")).unit
    expected = clip.logit_scale * text @ rows.T
    torch.testing.assert_close(logits[0].flatten(1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["coop", "cocoop", "maple", "clip-adapter"])
def test_every_kind_of_prompt_answers_for_patches_image_by_image(clip: Clip, method: str) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    asked = classifier(clip, method)
    both = patch_logits(asked, pixels)
    assert both.shape == (2, 3, 4, 4)
    torch.testing.assert_close(both[1], patch_logits(asked, pixels[1:])[0], rtol=1e-4, atol=1e-4)


def test_windows_of_a_large_picture_are_averaged(clip: Clip) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    image, asked = Image.fromarray(pixels), classifier(clip, "zero-shot")
    found = picture_logits(asked, image)
    assert found.shape == (3, 4, 6)
    left, right = (
        patch_logits(asked, normalise(image.crop((x, 0, x + 32, 32)), clip.preprocess)[None])[0] for x in (0, 16)
    )
    torch.testing.assert_close(found[:, :, :2], left[:, :, :2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, :, 2:4], (left[:, :, 2:] + right[:, :, :2]) / 2, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="32 or more"):
        picture_logits(asked, image, short=8)


def test_the_map_of_a_picture_is_the_best_class_of_each_pixel() -> None:
    logits = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(5))
    label, best = class_map(logits, (30, 20))
    whole = torch.nn.functional.interpolate(logits[None], size=(20, 30), mode="bilinear")[0]
    assert np.array_equal(label, whole.argmax(0).numpy())
    assert np.array_equal(best, whole.amax(0).numpy())


def test_what_has_no_patches_says_so(clip: Clip) -> None:
    with pytest.raises(UserError, match="learns from each test image"):
        patch_logits(classifier(clip, "tpt"), torch.zeros(1, 3, 32, 32))


def test_what_speaks_for_a_class_is_what_the_others_do_not_see() -> None:
    logits = torch.zeros(3, 2, 2) + 7.0
    logits[1, 0, 0] += 3.0
    for_one, against = heat(logits, (1, 2), (2, 2))
    np.testing.assert_allclose(for_one, [[1, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(against, [[-0.5, 0], [0, 0]], atol=1e-6)
    shown = np.asarray(laid_over(Image.new("RGB", (2, 2), "white"), for_one))
    assert shown[0, 0, 0] > shown[0, 0, 2]
    assert shown[1, 1].tolist() == [255, 255, 255]
