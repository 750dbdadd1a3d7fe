"""From a picture to what the image tower sees: the published test transform, and numbered random training views."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vlprompt.data.images import opened
from vlprompt.data.samples import Sample
from vlprompt.types import Preprocess

AUGMENTATION_VERSION = 1
"""Part of every training view's seed and of the feature cache's key: raise it when `train_view` changes."""
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10
Result = TypeVar("Result")
WORKERS = min(8, os.cpu_count() or 1)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MAX_RESIZED = 1 << 24
"""Pixels of a resized test image above which only the part that is cropped is made (a picture of 1 x 60,000 pixels)."""


def test_view(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """(3, S, S) float32: short edge to `resize`, centre crop (or both edges to the crop, where the model's views are squashed), [0, 1],
    normalised.

    torchvision's arithmetic on Pillow images: long edge int(resize * long / short), offset int(round((edge - crop) / 2)),
    black padding where the resized image is smaller than the crop.
    """
    if preprocess.squash:
        return normalise(image.resize((preprocess.crop,) * 2, FILTERS[preprocess.filter]), preprocess)
    width, height = image.size
    short, long = min(width, height), int(preprocess.resize * max(width, height) / min(width, height))
    new = (preprocess.resize, long) if width <= height else (long, preprocess.resize)
    if new[0] * new[1] > MAX_RESIZED:
        return normalise(_crop_of_resized(image, new, preprocess), preprocess)
    if short != preprocess.resize:
        image = image.resize(new, FILTERS[preprocess.filter])
    return normalise(_centre_crop(image, preprocess.crop), preprocess)


test_view.__test__ = False  # type: ignore[attr-defined]  # pytest takes names in test_ for tests


VIEWS_PER_SEED = 1_000_000


def first_view(seed: int) -> int:
    """The number of a seed's first training view. Every seed sees different crops, so the spread over seeds has their part."""
    return (seed - 1) * VIEWS_PER_SEED


def train_view(image: Image.Image, preprocess: Preprocess, content_hash: str, view: int) -> Tensor:
    """(3, S, S) float32: random crop of view number `view` of an image, resized, flipped or not, normalised.

    torchvision's RandomResizedCrop (scale 0.08 to 1, ratio 3/4 to 4/3 log-uniform, ten tries, then the centre) and
    horizontal flip with probability 1/2. All randomness comes from (content hash, view, AUGMENTATION_VERSION): the same on
    every machine and in every run.
    """
    draws = uniforms(f"{AUGMENTATION_VERSION}/{view}/{content_hash}")
    return normalise(_cropped_and_flipped(image, preprocess, draws), preprocess)


def _cropped_and_flipped(image: Image.Image, preprocess: Preprocess, draws: Iterator[float]) -> Image.Image:
    left, top, width, height = crop_box(*image.size, draws)
    side = preprocess.crop
    image = image.crop((left, top, left + width, top + height))
    if image.size != (side, side):
        image = image.resize((side, side), FILTERS[preprocess.filter])
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if next(draws) < 0.5 else image


def crop_box(width: int, height: int, draws: Iterator[float]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop, as torchvision's ``RandomResizedCrop.get_params``.

    `draws` are uniform in [0, 1): per try area and ratio, and of the try that fits top and left.
    """
    for _ in range(TRIES):
        area = width * height * (SCALE[0] + (SCALE[1] - SCALE[0]) * next(draws))
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = math.exp(low + (high - low) * next(draws))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(next(draws) * (height - h + 1)), int(next(draws) * (width - w + 1))
            return left, top, w, h
    if width / height < RATIO[0]:
        w, h = width, round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w, h = round(height * RATIO[1]), height
    else:
        w, h = width, height
    return (width - w) // 2, (height - h) // 2, w, h


AnyView = int | range | None
"""Of an image: a training view's number; None: the test view; a range: the test view, and then these training views."""


def load_pixels(samples: Sequence[Sample], preprocess: Preprocess, view: AnyView) -> Tensor:
    """(B, 3, S, S) float32: the test view (`view` None) or training view number `view` of every sample; (B, 1 + V, 3, S, S) of a range.

    UserError with the image's id where one cannot be read.
    """
    return torch.stack(in_threads(lambda sample: pixels(sample, preprocess, view), samples))


ENOUGH = 2
"""Times the model's own size: what a JPEG file is decoded at where that is enough, as Pillow's `thumbnail` does by default."""


def pixels(sample: Sample, preprocess: Preprocess, view: AnyView, *, enough: bool = False) -> Tensor:
    """(3, S, S) float32: one sample's view, as `load_pixels`; it is decoded once for all views of a range.

    enough: large JPEG files are decoded at `ENOUGH` times the size that the model sees, not whole: much faster for pictures of a
    camera, and not the same pixels.
    """
    least = ENOUGH * max(preprocess.resize, preprocess.crop) if enough else 0
    with opened(sample.read(), name=sample.id, decoding=sample.decoding, least=least) as image:
        views = [None, *view] if isinstance(view, range) else [view]
        made = [
            test_view(image, preprocess) if one is None else train_view(image, preprocess, sample.content_hash, one)
            for one in views
        ]
    return torch.stack(made) if isinstance(view, range) else made[0]


def in_threads(work: Callable[[Sample], Result], samples: Sequence[Sample]) -> list[Result]:
    """Map over samples in a few threads: Pillow decodes and resizes outside the interpreter's lock."""
    if len(samples) < 2 * WORKERS or WORKERS == 1:
        return [work(sample) for sample in samples]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, samples))


def ahead(work: Callable[[Sample], Result], batches: Sequence[Sequence[Sample]]) -> Generator[list[Result], None, None]:
    """`work` of every sample, batch by batch: while the caller uses one batch, a few threads make the next."""
    with ThreadPoolExecutor(WORKERS) as pool:
        coming: list[Future[Result]] = []
        try:
            for batch in [*batches, ()]:
                ready, coming = coming, [pool.submit(work, sample) for sample in batch]
                if ready:
                    yield [future.result() for future in ready]
        finally:
            for future in coming:
                future.cancel()


def uniforms(key: str) -> Iterator[float]:
    """Uniform numbers in [0, 1) of 53 bits, of a key alone: from a Philox counter, whose raw stream NumPy keeps fixed."""
    seed = hashlib.sha256(key.encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(seed[:16], "little"))
    while True:
        yield (int(bits.random_raw()) >> 11) * 2.0**-53


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width < side or height < side:
        padded = Image.new("RGB", (max(width, side), max(height, side)))
        padded.paste(image, (max(0, side - width) // 2, max(0, side - height) // 2))
        image, (width, height) = padded, padded.size
    left, top = _offset(width, side), _offset(height, side)
    return image.crop((left, top, left + side, top + side))


def _offset(edge: int, side: int) -> int:
    return round((edge - side) / 2)


def _crop_of_resized(image: Image.Image, new: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    """The centre crop of `image` resized to `new`, without the rest: equal up to rounding."""
    side, box = preprocess.crop, list[float]()
    out = []
    for old, edge in zip(image.size, new, strict=True):
        start, length = (_offset(edge, side), side) if edge > side else (0, edge)
        box.append(start * old / edge)
        out.append((length, (start + length) * old / edge))
    (width, right), (height, bottom) = out
    part = image.resize((width, height), FILTERS[preprocess.filter], box=(box[0], box[1], right, bottom))
    return _centre_crop(part, side)


def normalise(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """(3, H, W) float32 of an RGB image: [0, 1], minus the mean, over the deviation."""
    pixels_HW3 = torch.from_numpy(np.array(image, dtype=np.uint8))
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    return pixels_HW3.permute(2, 0, 1).contiguous().float().div_(255).sub_(mean).div_(std)


PIXELS_VERSION = 1
"""Part of every augmented view's seed: raise it when `augmented_view` changes."""
OPERATIONS_DRAWN = 2
PROBABILITY = 0.6
Operation = Callable[[Image.Image, float], Image.Image]


def augmented_view(image: Image.Image, preprocess: Preprocess, content_hash: str, view: int) -> Tensor:
    """(3, S, S) float32: view number `view` of an image with the published augmentation, normalised.

    All randomness comes from (content hash, view, PIXELS_VERSION), as in `train_view`: no matter which process makes it.
    """
    draws = uniforms(f"pretrain/{PIXELS_VERSION}/{view}/{content_hash}")
    return normalise(two_operations(_cropped_and_flipped(image, preprocess, draws), draws), preprocess)


def two_operations(image: Image.Image, draws: Iterator[float]) -> Image.Image:
    """Two operations of the list, each left out with probability 0.4. `draws` are uniform in [0, 1)."""
    names = tuple(OPERATIONS)
    chosen = [names[int(next(draws) * len(names))] for _ in range(OPERATIONS_DRAWN)]
    for name in chosen:
        if next(draws) > PROBABILITY:
            continue
        low, high, operation = OPERATIONS[name]
        value = low + (high - low) * next(draws)
        if name in SIGNED and next(draws) > 0.5:
            value = -value
        image = operation(image, value)
    return image


def _sheared(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, x, 0, y, 1, 0))


def _moved(image: Image.Image, x: float, y: float) -> Image.Image:
    width, height = image.size
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, x * width, 0, 1, y * height))


OPERATIONS: dict[str, tuple[float, float, Operation]] = {
    "auto-contrast": (0, 1, lambda image, _: ImageOps.autocontrast(image)),
    "brightness": (0.1, 1.9, lambda image, value: ImageEnhance.Brightness(image).enhance(value)),
    "colour": (0.1, 1.9, lambda image, value: ImageEnhance.Color(image).enhance(value)),
    "contrast": (0.1, 1.9, lambda image, value: ImageEnhance.Contrast(image).enhance(value)),
    "equalise": (0, 1, lambda image, _: ImageOps.equalize(image)),
    "identity": (0, 1, lambda image, _: image),
    "invert": (0, 1, lambda image, _: ImageOps.invert(image)),
    "posterise": (4, 8, lambda image, value: ImageOps.posterize(image, int(value))),
    "rotate": (-30, 30, lambda image, value: image.rotate(value)),
    "sharpness": (0.1, 1.9, lambda image, value: ImageEnhance.Sharpness(image).enhance(value)),
    "shear-x": (-0.3, 0.3, lambda image, value: _sheared(image, value, 0)),
    "shear-y": (-0.3, 0.3, lambda image, value: _sheared(image, 0, value)),
    "solarise": (0, 256, lambda image, value: ImageOps.solarize(image, math.ceil(value))),
    "translate-x": (-0.3, 0.3, lambda image, value: _moved(image, value, 0)),
    "translate-y": (-0.3, 0.3, lambda image, value: _moved(image, 0, value)),
}
"""Name -> least value, greatest value, what it does."""
SIGNED = frozenset(("rotate", "shear-x", "shear-y", "translate-x", "translate-y"))
"""Whose sign is drawn once more."""
