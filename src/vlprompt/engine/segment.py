"""A learned prompt on every pixel: class maps of pictures, and what they are worth against masks. Letters: C classes, H and W pixels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlprompt import artifact
from vlprompt.data.images import open_image
from vlprompt.data.masks import IGNORED, Masked
from vlprompt.engine.dense import class_map, picture_logits
from vlprompt.engine.evaluate import Classifier, check_classes
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.errors import UserError
from vlprompt.records import harmonic
from vlprompt.types import plain_name

LEGEND, LINE, OPACITY = 12, 18, 0.6


def pixel_classifier(
    run: Path, names: Sequence[str] | None, *, clip: artifact.Backbone = None, device: str = "cpu"
) -> tuple[Classifier, artifact.Learned, str]:
    """(the classifier of a run's best seed on these classes (None: its own), what was learned, why this seed).

    UserError: a method that learns at test time, other classes than a prompt can answer for.
    """
    picked = artifact.pick(run)
    learned, clip = artifact.loaded(picked.directory, clip, device=device)
    classes = tuple(names) if names is not None else tuple(learned.class_names)
    check_classes(learned.method.prompt, learned.class_names, classes, labelled=names is None)
    return Classifier(clip, learned.method, learned.prompt, classes, learned.template), learned, picked.reason


def segmented(classifier: Classifier, image: Image.Image, *, short: int | None = None) -> NDArray[np.int64]:
    """(H, W): the class of every pixel of a picture."""
    return class_map(picture_logits(classifier, image, short=short), image.size)[0]


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
    run: Path,
    masked: Masked,
    *,
    clip: artifact.Backbone = None,
    device: str = "cpu",
    short: int | None = None,
    observer: Observer = SILENT,
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


MOST = 12
"""Classes in a legend."""


def share_of(label_HW: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Class -> its share of the pixels, for those in the picture, by falling share."""
    return {names[label]: share for label, share in _shares(label_HW)}


def _shares(label_HW: NDArray[np.int64]) -> list[tuple[int, float]]:
    count = np.bincount(label_HW.ravel())
    order = np.argsort(-count, kind="stable").tolist()
    return [(label, float(count[label] / label_HW.size)) for label in order if count[label]]
