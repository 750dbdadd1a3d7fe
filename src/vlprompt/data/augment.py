"""The published augmentation of prompt pretraining: a random crop, a flip, and two random operations on the pixels.

Source: amazon-science/prompt-pretraining, trainers/pomp.py (POMP, arXiv 2304.04704), whose trainer's list of operations has 15
entries and their ranges (Dassl, "randaugment2"). Each operation is drawn with replacement, applied with probability 0.6, at a
magnitude that is uniform in its range; geometric operations take either sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vlprompt.data.views import crop_box, normalise, uniforms
from vlprompt.types import Preprocess

Augmentation = Literal["published", "crop", "none"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("published", "crop", "none")
"""`published`: crop, flip and two operations; `crop`: crop and flip; `none`: the test view."""
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
    left, top, width, height = crop_box(*image.size, draws)
    side = preprocess.crop
    image = image.crop((left, top, left + width, top + height))
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    if next(draws) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalise(two_operations(image, draws), preprocess)


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
