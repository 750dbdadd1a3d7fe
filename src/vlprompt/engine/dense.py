"""A prompt's answers for every patch of a picture, and for every pixel.

Each patch has an embedding (`Clip.encode_patches`: the value path of the last layer, MaskCLIP, arXiv 2112.01071), which is compared with
the class features as a whole image's would be. Letters: B images, C classes, h and w patches, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlprompt.data.views import FILTERS, normalise
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.forward import asked, reads_frozen
from vlprompt.errors import UserError
from vlprompt.losses import after, answers
from vlprompt.types import Features

BATCH = 8
"""Windows that are run at once."""
CLASSES = 16
"""Classes whose maps have the picture's size at once."""


@torch.no_grad()
def patch_logits(classifier: Classifier, pixels_B3SS: Tensor) -> Tensor:
    """Normalised pixels in the tower's size -> logits (B, C, h, w), float32: the prompt's score of every patch.

    What a prompt does with a whole image's features (adapters, caches) is done with each patch's; a prompt that reads the image reads the
    whole one. UserError: a method that learns at test time.
    """
    if classifier.method.at_test is not None:
        raise UserError(
            "this method learns from each test image, and has no answers for its parts. Use another method, for example coop."
        )
    clip, spec, found = classifier.clip, classifier.method.prompt, []
    for one in torch.split(pixels_B3SS.to(clip.device), 1 if classifier.text is None else len(pixels_B3SS)):
        text = classifier.text
        if text is None:
            frozen = clip.encode_images(one) if reads_frozen(spec, frozenset()) else None
            prompted = asked(classifier.prompt, spec, frozen, classifier.frozen_text)
            each = classifier.class_features(prompted).pooled
            text = Features(pooled=each[0] if each.dim() == 3 else each)
        else:
            prompted = classifier.prompted
        rows = clip.encode_patches(one, prompted)
        image = after(prompted.after_image, Features(pooled=rows.flatten(0, 2)))
        each = answers(prompted, image, text, clip.logit_scale)
        found.append(each.reshape(*rows.shape[:3], -1).movedim(-1, 1))
    return torch.cat(found)


def picture_logits(classifier: Classifier, image: Image.Image, *, short: int | None = None) -> Tensor:
    """A picture of any size -> logits (C, h, w), float32 on the CPU, of a grid of patches that covers it.

    short: the short edge, in pixels, to which it is resized first (None: the tower's size), both edges to whole patches. It is read in
    windows of the tower's size that overlap by half; a patch in several windows has the mean of its logits (project's choice).
    """
    clip = classifier.clip
    side, patch = clip.preprocess.crop, clip.config.patch_size
    if short is not None and short < side:
        raise UserError(f"short={short}: the tower reads squares of {side} pixels. Allowed: {side} or more.")
    scale = (short or side) / min(image.size)
    width, height = (max(side, round(edge * scale / patch) * patch) for edge in image.size)
    resized = image.resize((width, height), FILTERS[clip.preprocess.filter])
    places = list(product(*(_starts(edge // patch, side // patch) for edge in (height, width))))
    total: Tensor | None = None
    count = torch.zeros(height // patch, width // patch)
    n = side // patch
    for start in range(0, len(places), BATCH):
        chunk = places[start : start + BATCH]
        boxes = [(x * patch, y * patch, x * patch + side, y * patch + side) for y, x in chunk]
        pixels = torch.stack([normalise(resized.crop(box), clip.preprocess) for box in boxes])
        for (y, x), logits in zip(chunk, patch_logits(classifier, pixels).float().cpu(), strict=True):
            total = logits.new_zeros(len(logits), *count.shape) if total is None else total
            total[:, y : y + n, x : x + n] += logits
            count[y : y + n, x : x + n] += 1
    assert total is not None
    return total / count


def _starts(patches: int, window: int) -> list[int]:
    """Where windows begin on an edge, in patches: every half window, the last one at the end."""
    return [*range(0, patches - window, max(1, window // 2)), patches - window]


def heat(logits_Chw: Tensor, labels: Sequence[int], size: tuple[int, int]) -> NDArray[np.float32]:
    """(len(labels), H, W): where a picture speaks for classes (above 0) and against them, in units of the largest value.

    A patch's logit less the mean over all classes, so what all of them see alike is left out; one scale for all labels, between patches
    linear (project's choice). size: (width, height).
    """
    own = (logits_Chw - logits_Chw.mean(0))[list(labels)]
    found = F.interpolate(own[None], size=size[::-1], mode="bilinear", align_corners=False)[0]
    out: NDArray[np.float32] = (found / found.abs().max().clamp(min=1e-6)).numpy()
    return out


FOR, AGAINST = (220, 38, 38), (37, 99, 235)


def laid_over(image: Image.Image, heat_HW: NDArray[np.float32]) -> Image.Image:
    """The picture in grey, red where it speaks for a class and blue where it speaks against it."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None].repeat(3, -1)
    share = 0.75 * np.abs(heat_HW)[..., None]
    colour = np.where(heat_HW[..., None] > 0, FOR, AGAINST)
    return Image.fromarray((grey * (1 - share) + colour * share).round().astype(np.uint8))


def class_map(logits_Chw: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Logits of patches -> (class of each pixel, (H, W); its logit); size: (width, height). Between patches linear, a tie to the first."""
    best, label = torch.full(size[::-1], -torch.inf), torch.zeros(size[::-1], dtype=torch.int64)
    for first in range(0, len(logits_Chw), CLASSES):
        part = logits_Chw[None, first : first + CLASSES]
        value, which = F.interpolate(part, size=size[::-1], mode="bilinear", align_corners=False)[0].max(dim=0)
        higher = value > best
        best, label = torch.where(higher, value, best), torch.where(higher, which + first, label)
    return label.numpy(), best.numpy()
