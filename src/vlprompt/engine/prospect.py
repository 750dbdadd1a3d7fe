"""What a run's images say beyond one test: answers by folds where there are few, and what fewer of them would have taught."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vlprompt import disk, records
from vlprompt.data import Dataset, Sample
from vlprompt.engine.choose import answered, apart, deal, labels
from vlprompt.engine.evaluate import best_words, zero_shot
from vlprompt.engine.job import Drawn, Job
from vlprompt.engine.observer import Observer
from vlprompt.errors import data_error
from vlprompt.records import Record

CHEAP = 20.0
"""Seconds of learning and testing, all seeds together, up to which a curve is measured without being asked for (project's choice)."""
FEWEST = 4
"""Images of a class that has a quarter."""
PARTS = (0.25, 0.5)


def pooled(dataset: Dataset) -> Dataset:
    """All images that are not test images as training images, to be dealt into folds."""
    train = sorted((*dataset.train, *dataset.val), key=lambda one: (one.label, one.id))
    return dataclasses.replace(dataset, train=tuple(train), val=(), test=(), divided=True)


def in_folds(drawn: Drawn, job: Job) -> Drawn:
    """The sample with the images that folds can ask about as its test images. UserError: no class has two."""
    asked = sorted(place for fold in _dealt(drawn, job) for place in fold)
    if not asked:
        raise data_error(f"--folds {job.folds}: no class has two images, so none can be asked about. Add images.")
    return dataclasses.replace(drawn, test=tuple(drawn.sample.train[place] for place in asked))


def _dealt(drawn: Drawn, job: Job) -> list[list[int]]:
    """Places of the training images of each fold. Copies of each other are in none: they are learned from alone."""
    copies = Counter(one.content_hash for one in drawn.sample.train)
    dealt = deal(drawn.sample.train, seed=job.seed, folds=job.folds)
    folds = [[place for place in fold if copies[drawn.sample.train[place].content_hash] == 1] for fold in dealt]
    return [fold for fold in folds if fold]


def by_folds(drawn: Drawn, job: Job, observer: Observer) -> tuple[Tensor, Tensor]:
    """(the learned prompts' logits, the hand-written words') on `drawn.test`: each image is answered by what was learned, and by the
    words that were best, on the other folds."""
    sample, images = drawn.sample, job.images.quiet()
    job, folds = dataclasses.replace(job, images=images), _dealt(drawn, job)
    learned = torch.empty(len(sample.train), len(sample.class_names))
    by_hand = learned.clone()
    observer.stage(f"seed {job.seed}: {len(folds)} folds", len(folds))
    for fold in folds:
        train, asked = apart(sample.train, fold)
        learned[fold] = answered(job, job.lesson(sample, train), sample.val, asked)
        words = best_words(job.clip, sample.class_names, job.template, images, train)
        by_hand[fold] = zero_shot(job.clip, sample.class_names, words, job.template).logits(asked, images)
        observer.advance(1, {})
    places = sorted(place for fold in folds for place in fold)
    return learned[places], by_hand[places]


def can_measure(drawn: Drawn, job: Job) -> bool:
    """Whether a class has images of which a quarter can be taken, something is learned from them, and there are test images."""
    largest = max(Counter(one.label for one in drawn.sample.train).values())
    learns = job.method.learner is not None and job.method.at_test is None
    return learns and largest >= FEWEST and bool(drawn.test) and not job.folds


def cheap(found: Sequence[Record]) -> bool:
    """Whether a curve takes so little that nobody need ask for it."""
    return sum(one.seconds - one.seconds_features for one in found) <= CHEAP


def measure_curve(drawn: Drawn, job: Job, smaller: Sequence[Job], place: Path, observer: Observer) -> None:
    """Writes `curve.json` next to a seed's record: which test images a quarter, a half and all of its images taught to answer.

    smaller: the job with the settings for so many shots, for each of `PARTS`. What is learned from is nested: the first images of each
    class as they were drawn.
    """
    answers, train = records.read_predictions(place), drawn.sample.train
    assert answers is not None
    observer.stage(f"seed {job.seed}: with fewer images", len(PARTS))
    rows = []
    for part, one in zip(PARTS, smaller, strict=True):
        few = first(train, part)
        found = answered(one, one.lesson(drawn.sample, few), drawn.sample.val, drawn.test).argmax(1).numpy()
        rows.append((len(few), found == labels(drawn.test)))
        observer.advance(1, {})
    rows.append((len(train), answers.predicted == answers.label))
    digits = ["".join("1" if one else "0" for one in right.tolist()) for _, right in rows]
    disk.write_json(place / records.CURVE, {"images": [n for n, _ in rows], "right": digits})


def first(train: Sequence[Sample], part: float) -> list[Sample]:
    """A part of each class's images, at least one."""
    counts, seen, out = Counter(one.label for one in train), Counter[int](), []
    for one in train:
        if seen[one.label] < max(1, math.floor(part * counts[one.label])):
            out.append(one)
        seen[one.label] += 1
    return out
