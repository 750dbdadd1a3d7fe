"""A prompt's answers for every patch and pixel of a picture: logits, class maps, and what those are worth against masks.

Each patch has an embedding (`Clip.encode_patches`: the value path of the last layer, MaskCLIP, arXiv 2112.01071), which is compared with
the class features as a whole image's would be. Letters: B images, C classes, h and w patches, H and W pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vlprompt import artifact
from vlprompt.data.images import open_image
from vlprompt.data.masks import IGNORED, Masked
from vlprompt.data.views import FILTERS, normalise
from vlprompt.engine.evaluate import Classifier, check_classes
from vlprompt.engine.forward import asked, reads_frozen
from vlprompt.engine.observer import Observer
from vlprompt.errors import UserError
from vlprompt.losses import after, answers
from vlprompt.records import harmonic
from vlprompt.types import Features, plain_name

LEGEND, LINE, OPACITY, MOST = 12, 18, 0.6, 12
"""Pixels of a legend's sign and of its lines, the share of colours, and the classes in a legend."""
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


def pixel_classifier(
    run: Path, names: Sequence[str] | None, *, clip: artifact.Backbone, device: str
) -> tuple[Classifier, artifact.Learned, str]:
    """(the classifier of a run's best seed on these classes (None: its own), what was learned, why this seed).

    UserError: a method that learns at test time, other classes than a prompt can answer for.
    """
    picked = artifact.pick(run)
    learned, clip = artifact.loaded(picked.directory, clip, device=device)
    classes = tuple(names) if names is not None else tuple(learned.class_names)
    check_classes(learned.method.prompt, learned.class_names, classes, labelled=names is None)
    return Classifier(clip, learned.method, learned.prompt, classes, learned.template), learned, picked.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """What class maps are worth, percent. IoU is of all pixels together; classes that are in no mask do not count."""

    images: int
    pixel_accuracy: float
    miou: float
    iou: dict[str, float]
    """Of every class that is in a mask."""
    seen: float | None
    """The mean over the classes that the prompt was learned on; None: none of them is in a mask."""
    unseen: float | None

    @property
    def hiou(self) -> float | None:
        """The harmonic mean of seen and unseen (Xian et al., arXiv 1707.00600, for IoU as in ZSSeg); None: without both."""
        return None if self.seen is None or self.unseen is None else harmonic(self.seen, self.unseen)

    def as_dict(self) -> dict[str, object]:
        means = {"pixel_accuracy": self.pixel_accuracy, "miou": self.miou, "hiou": self.hiou}
        return {"images": self.images, **means, "seen": self.seen, "unseen": self.unseen, "iou": self.iou}


def confusion(label_HW: NDArray[np.int64], predicted_HW: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(C, C) pixels: [true class, predicted class], of the pixels that have one."""
    known = label_HW != IGNORED
    both = label_HW[known] * classes + predicted_HW[known]
    return np.bincount(both, minlength=classes * classes).reshape(classes, classes)


def mask_scores(table_CC: NDArray[np.int64], names: Sequence[str], learned: Sequence[str], images: int) -> MaskScores:
    """All metrics of a confusion table. UserError: no pixel has a class."""
    there = table_CC.sum(axis=1) > 0
    if not there.any():
        raise UserError("no pixel of the masks has a class of their list.")
    hit = np.diag(table_CC).astype(np.float64)
    iou_C = 100 * hit / np.maximum(table_CC.sum(axis=0) + table_CC.sum(axis=1) - hit, 1)
    known = {plain_name(name) for name in learned}
    own = np.array([plain_name(name) in known for name in names])

    def mean(which: NDArray[np.bool_]) -> float | None:
        return float(iou_C[which & there].mean()) if (which & there).any() else None

    return MaskScores(
        images=images,
        pixel_accuracy=float(100 * hit.sum() / table_CC.sum()),
        miou=float(iou_C[there].mean()),
        iou={name: float(value) for name, value, one in zip(names, iou_C, there, strict=True) if one},
        seen=mean(own),
        unseen=mean(~own),
    )


def evaluate_masks(
    run: Path, masked: Masked, *, clip: artifact.Backbone, device: str, short: int | None, observer: Observer
) -> MaskScores:
    """Test the best seed of a run on pictures with masks; every class of their list is asked for."""
    classifier, learned, reason = pixel_classifier(run, masked.class_names, clip=clip, device=device)
    observer.note(f"Tested: {reason}.")
    observer.stage("pictures", len(masked.pairs))
    count = len(masked.class_names)
    table = np.zeros((count, count), dtype=np.int64)
    for picture, mask in masked.pairs:
        label = masked.labels(mask)
        found = picture_logits(classifier, open_image(picture), short=short)
        table += confusion(label, class_map(found, (label.shape[1], label.shape[0]))[0], count)
        observer.advance(1, {})
    return mask_scores(table, masked.class_names, learned.class_names, len(masked.pairs))


def colours(number: int) -> NDArray[np.uint8]:
    """(C, 3): colours of classes; neighbours in the list differ in hue."""
    steps = (
        colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.55 + 0.4 * (i % 2), 0.95 - 0.3 * (i % 3) / 2) for i in range(number)
    )
    return (255 * np.array(list(steps))).round().astype(np.uint8)


def overlay(image: Image.Image, label_HW: NDArray[np.int64], names: Sequence[str]) -> Image.Image:
    """The picture below its classes' colours, and a legend of the classes in it by their share of the pixels."""
    paint = Image.fromarray(colours(len(names))[label_HW])
    legend = [(f"{names[label]} {100 * share:.0f} %", label) for label, share in _shares(label_HW)[:MOST]]
    font = ImageFont.load_default(13)
    width = max(image.width, int(max(font.getlength(text) for text, _ in legend)) + 3 * LEGEND)
    sheet = Image.new("RGB", (width, image.height + LINE * len(legend) + LEGEND), "white")
    sheet.paste(Image.blend(image, paint, OPACITY))
    pen = ImageDraw.Draw(sheet)
    for row, (text, label) in enumerate(legend):
        y = image.height + LEGEND // 2 + LINE * row
        pen.rectangle(
            (LEGEND // 2, y + 2, LEGEND // 2 + LEGEND, y + 2 + LEGEND), fill=tuple(map(int, colours(label + 1)[label]))
        )
        pen.text((2 * LEGEND, y), text, fill="black", font=font)
    return sheet


def share_of(label_HW: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Class -> its share of the pixels, for those in the picture, by falling share."""
    return {names[label]: share for label, share in _shares(label_HW)}


def _shares(label_HW: NDArray[np.int64]) -> list[tuple[int, float]]:
    count = np.bincount(label_HW.ravel())
    order = np.argsort(-count, kind="stable").tolist()
    return [(label, float(count[label] / label_HW.size)) for label in order if count[label]]
