"""The published test transform and the numbered training views, against torchvision's arithmetic restated."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.make import PLAIN, noise, sample
from vlprompt.data import load_pixels, views
from vlprompt.data.views import crop_box, train_view
from vlprompt.errors import UserError
from vlprompt.types import Preprocess

CLIP = Preprocess(
    resize=224,
    crop=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def restated_test_view(image: Image.Image, size: int, crop: int, mean: list[float], std: list[float]) -> torch.Tensor:
    """torchvision's Resize, CenterCrop, ToTensor and Normalize on a Pillow image, written out."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.BICUBIC)
    array = np.asarray(image)
    if crop > new_width or crop > new_height:
        left = (crop - new_width) // 2 if crop > new_width else 0
        top = (crop - new_height) // 2 if crop > new_height else 0
        right = (crop - new_width + 1) // 2 if crop > new_width else 0
        bottom = (crop - new_height + 1) // 2 if crop > new_height else 0
        array = np.pad(array, ((top, bottom), (left, right), (0, 0)))
        new_height, new_width = array.shape[:2]
    top, left = round((new_height - crop) / 2.0), round((new_width - crop) / 2.0)
    array = array[top : top + crop, left : left + crop]
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy()).to(torch.float32).div(255)
    return tensor.sub(torch.tensor(mean)[:, None, None]).div(torch.tensor(std)[:, None, None])


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))
def test_the_test_view_is_the_published_transform(width: int, height: int, resize: int, crop: int) -> None:
    image = noise(width * 100 + height, width, height)
    ours = views.test_view(image, Preprocess(resize=resize, crop=crop, mean=CLIP.mean, std=CLIP.std))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, restated_test_view(image, resize, crop, list(CLIP.mean), list(CLIP.std)))


def test_the_long_edge_is_cut_off_and_the_offset_rounds_to_even() -> None:
    """5 x 3 to short edge 2: long edge int(2 * 5 / 3) = 3. Offset of 3 -> 2: round(0.5) = 0, of 5 -> 2: round(1.5) = 2."""
    row = Image.new("RGB", (3, 2))
    for x in range(3):
        for y in range(2):
            row.putpixel((x, y), (x, x, x))
    small = Preprocess(resize=2, crop=2, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    assert views.test_view(row, small)[0].round().tolist() == [[0, 1], [0, 1]]
    wide = Image.new("RGB", (5, 2))
    for x in range(5):
        for y in range(2):
            wide.putpixel((x, y), (x, x, x))
    assert views.test_view(wide, small)[0].round().tolist() == [[2, 3], [2, 3]]
    assert views.test_view(noise(1, 5, 3), small).shape == (3, 2, 2)


def test_normalisation_by_hand() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 51))
    view = views.test_view(image, Preprocess(resize=8, crop=8, mean=(0.5, 0.5, 0.1), std=(0.5, 0.25, 0.1)))
    assert view[:, 3, 3].tolist() == pytest.approx([1.0, -2.0, 1.0], abs=1e-6)


def test_smaller_than_the_crop_is_padded_with_black() -> None:
    view = views.test_view(
        Image.new("RGB", (4, 4), (255, 255, 255)), Preprocess(resize=4, crop=7, mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    assert view[0].sum().item() == 16
    assert view[0, 1:5, 1:5].min().item() == 1


@pytest.mark.parametrize("size", [(300, 400), (500, 260), (224, 224), (100, 90), (640, 480)])
def test_the_test_view_is_that_of_transformers(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = noise("transformers", *size)
    theirs = CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"][0]
    assert (views.test_view(image, CLIP) - theirs).abs().max().item() < 1e-5


def test_a_very_long_picture_needs_little_memory_and_shows_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise("long", 6, 900)
    for upright in (image, image.transpose(Image.Transpose.ROTATE_90)):
        whole = views.test_view(upright, PLAIN)
        with monkeypatch.context() as patch:
            patch.setattr(views, "MAX_RESIZED", 64)
            part = views.test_view(upright, PLAIN)
        # Pillow changes the order of its two passes for very tall pictures, and rounds between them.
        assert (whole - part).abs().max().item() <= 8.01 / 255
        assert (whole - part).abs().mean().item() <= 1 / 255
    assert views.test_view(Image.new("RGB", (1, 60_000)), CLIP).shape == (3, 224, 224)


def restated_box(width: int, height: int, numbers: Iterator[float]) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params with given uniform numbers; (top, left, height, width)."""
    area = height * width
    log_ratio = [math.log(3.0 / 4.0), math.log(4.0 / 3.0)]
    for _ in range(10):
        target_area = area * (0.08 + (1.0 - 0.08) * next(numbers))
        aspect_ratio = math.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * next(numbers))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            i = math.floor(next(numbers) * (height - h + 1))
            j = math.floor(next(numbers) * (width - w + 1))
            return i, j, h, w
    in_ratio = float(width) / float(height)
    if in_ratio < min(3.0 / 4.0, 4.0 / 3.0):
        w = width
        h = round(w / (3.0 / 4.0))
    elif in_ratio > max(3.0 / 4.0, 4.0 / 3.0):
        h = height
        w = round(h * (4.0 / 3.0))
    else:
        w = width
        h = height
    return (height - h) // 2, (width - w) // 2, h, w


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_the_crop_box_is_torchvisions(width: int, height: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).random(40).tolist()
    left, top, w, h = crop_box(width, height, iter(numbers))
    assert (top, left, h, w) == restated_box(width, height, iter(numbers))
    assert 0 <= left <= left + w <= width
    assert 0 <= top <= top + h <= height


def test_crop_boxes_by_hand() -> None:
    # Half the area range: 0.54 * 10,000 = 5,400; ratio exp(0) = 1; side round(73.48) = 73; room 28, half of it 14.
    assert crop_box(100, 100, iter([0.5, 0.5, 0.5, 0.5])) == (14, 14, 73, 73)
    # The whole area at ratio 4/3 does not fit a square: ten tries, then all of it.
    assert crop_box(100, 100, iter([1.0, 1.0] * 10)) == (0, 0, 100, 100)
    # Too flat for any ratio: the middle, 4/3 as wide as high.
    assert crop_box(1000, 30, iter([1.0, 0.5] * 10)) == (480, 0, 40, 30)
    assert crop_box(30, 1000, iter([1.0, 0.5] * 10)) == (0, 480, 30, 40)


def test_crops_cover_the_published_ranges() -> None:
    """Areas uniform in 0.08 .. 1 and log-uniform ratios, before what does not fit is drawn again."""
    numbers = iter(np.random.default_rng(0).random(100_000).tolist())
    boxes = [crop_box(400, 400, numbers) for _ in range(4000)]
    areas = np.array([w * h for *_, w, h in boxes]) / 160_000
    ratios = np.array([w / h for *_, w, h in boxes])
    assert 0.075 < areas.min() < 0.09
    assert areas.max() > 0.95
    assert 0.74 < ratios.min() < 0.77
    assert 1.30 < ratios.max() < 1.35
    assert abs(np.log(ratios).mean()) < 0.01


def draws(content_hash: str, view: int) -> Iterator[float]:
    return views.uniforms(f"{views.AUGMENTATION_VERSION}/{view}/{content_hash}")


def test_a_training_view_is_a_crop_resized_and_perhaps_flipped() -> None:
    image = noise("picture", 40, 30)
    flips = 0
    for number in range(20):
        numbers = draws("ab" * 32, number)
        left, top, w, h = crop_box(40, 30, numbers)
        crop = image.crop((left, top, left + w, top + h)).resize((8, 8), Image.BICUBIC)
        flip = next(numbers) < 0.5
        flips += flip
        expected = torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1) / 255
        ours = train_view(image, PLAIN, "ab" * 32, number)
        assert torch.equal(ours, expected.flip(2) if flip else expected)
    assert 4 < flips < 16


def test_views_depend_on_image_number_and_version_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise("picture", 40, 30)
    first = train_view(image, PLAIN, "aa", 0)
    assert torch.equal(first, train_view(image, PLAIN, "aa", 0))
    assert not torch.equal(first, train_view(image, PLAIN, "aa", 1))
    assert not torch.equal(first, train_view(image, PLAIN, "ab", 0))
    torch.manual_seed(3)
    np.random.seed(3)
    assert torch.equal(first, train_view(image, PLAIN, "aa", 0))
    monkeypatch.setattr(views, "AUGMENTATION_VERSION", 2)
    assert not torch.equal(first, train_view(image, PLAIN, "aa", 0))


def test_the_random_numbers_are_these_on_every_machine() -> None:
    """If this fails, cached views no longer fit new ones: raise AUGMENTATION_VERSION."""
    assert views.AUGMENTATION_VERSION == 1
    numbers = draws("0" * 64, 3)
    assert [next(numbers) for _ in range(3)] == [0.8582543002539201, 0.05113777296201805, 0.05506913612019415]


def test_the_random_numbers_are_uniform() -> None:
    firsts = np.array([next(draws("f" * 64, view)) for view in range(4000)])
    counts = np.histogram(firsts, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # 0.1 % of the chi-squared distribution with 9 degrees of freedom


def test_load_pixels_is_one_by_one_in_order() -> None:
    samples = [sample(f"image {number}") for number in range(50)]
    for view in (None, 0, 5):
        batch = load_pixels(samples, PLAIN, view)
        assert batch.shape == (50, 3, 8, 8)
        for number in (0, 17, 49):
            image = noise(f"image {number}")
            one = (
                views.test_view(image, PLAIN)
                if view is None
                else train_view(image, PLAIN, samples[number].content_hash, view)
            )
            assert torch.equal(batch[number], one)


def test_load_pixels_names_the_image_that_cannot_be_read() -> None:
    samples = [sample(f"image {number}") for number in range(20)]
    with pytest.raises(UserError, match=r"^bad\.png: not an image"):
        load_pixels([*samples, sample("bad.png", data=b"x")], PLAIN, None)


def test_batches_are_made_ahead_and_not_all_at_once() -> None:
    samples = [sample(f"image {number}") for number in range(12)]
    batches = [samples[start : start + 3] for start in range(0, 12, 3)]
    begun: list[str] = []
    looks = views.ahead(lambda one: begun.append(one.id) or one.id, batches)
    assert next(looks) == [one.id for one in batches[0]]
    looks.close()
    assert len(begun) <= 6
    assert list(views.ahead(lambda one: one.id, batches)) == [[one.id for one in batch] for batch in batches]
    assert list(views.ahead(lambda one: one.id, [])) == []
