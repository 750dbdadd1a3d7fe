"""The images that a seed learns from: the published sample, of images that can really be decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping

from vlprompt.data import Dataset, FewShot, Skipped, few_shot, restrict
from vlprompt.data.sources import strict_error
from vlprompt.data.splits import Subset
from vlprompt.engine.images import Images
from vlprompt.errors import data_error


def draw(
    dataset: Dataset,
    images: Images,
    skipped: MutableMapping[str, str],
    *,
    shots: int | None,
    seed: int,
    subset: Subset = "all",
    strict: bool = False,
    hold_out: bool = False,
) -> FewShot:
    """The few-shot sample of a seed, drawn of all classes before they are halved (as published).

    hold_out: as `few_shot`, for methods that choose on validation images.

    An image that cannot be decoded, or that is a copy of a test image, is added to `skipped`. The sample is drawn again without
    it (project's choice). UserError: with `strict` such an image; a class that has no image left.
    """
    while True:
        sample = restrict(few_shot(dataset, shots, seed, hold_out=hold_out), subset)
        before = len(skipped)
        good = images.usable((*sample.train, *sample.val), skipped, strict=strict)
        if dataset.tested is not None:
            copies = {one.id: "a copy of a test image" for one in good if dataset.tested.copy_of(one) is not None}
            if strict and copies:
                raise strict_error(dataset.name, [Skipped(*one) for one in copies.items()])
            skipped.update(copies)
        if len(skipped) == before:
            break
        dataset = dataclasses.replace(
            dataset,
            train=tuple(one for one in dataset.train if one.id not in skipped),
            val=tuple(one for one in dataset.val if one.id not in skipped),
        )
    empty = sorted(set(range(len(sample.class_names))) - {label for one in sample.train for label in one.labels})
    if empty:
        names = ", ".join(sample.class_names[label] for label in empty[:5])
        raise data_error(
            f"{dataset.name}: {len(empty)} of {len(sample.class_names)} classes have no training image that can be used ({names}). "
            f"{said_of_skipped(skipped) + ' ' if skipped else ''}Add images, or take the classes out."
        )
    return sample


def said_of_skipped(skipped: MutableMapping[str, str]) -> str:
    """How many files were skipped, by reason, each with the first of its files."""
    files: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        files.setdefault(reason, []).append(name)
    listed = "; ".join(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} ({reason})"
        for reason, names in list(files.items())[:5]
    )
    more = f"; and {len(files) - 5} more reasons" if len(files) > 5 else ""
    return f"{len(skipped)} image{'s were' if len(skipped) != 1 else ' was'} skipped: {listed}{more}."


def said_of_short(sample: FewShot, shots: int | None) -> str:
    listed = ", ".join(f"{name} ({count})" for name, count in list(sample.short.items())[:5])
    more = f" and {len(sample.short) - 5} more" if len(sample.short) > 5 else ""
    return f"fewer than {shots} training images in {listed}{more}; all of them are used."
