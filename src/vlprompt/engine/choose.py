"""Which method for these images: a few are learned from a part of the training images and asked about the rest. docs/choosing.md.

No validation image decides, and no test image is read: candidates are judged on training images that they did not learn from.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprompt.data import Dataset, FewShot, Sample
from vlprompt.data.splits import Subset
from vlprompt.engine.duration import measure
from vlprompt.engine.evaluate import Classifier, best_words, zero_shot
from vlprompt.engine.images import Images
from vlprompt.engine.job import Job, prepare
from vlprompt.engine.learn import grouped, learn_all
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.sampling import draw
from vlprompt.engine.train import Lesson, Task
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.types import Steps

AUTO, CHOICE = "auto", "choice.json"
FOLDS = 4
MAX_SECONDS = 30.0
"""What a candidate that learns by steps may take; a dearer one is not tried (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A method that is tried."""

    method: str
    overrides: Mapping[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.overrides.items())])


CANDIDATES = (
    Candidate(method="coop"),
    Candidate(method="lp-plus-plus"),
    Candidate(method="linear-probe"),
)
"""The one that can be asked about new class names first, then the quickest. The list was chosen on the cells of benchmarks/choosing.py."""
ONE_IMAGE = "coop"
"""The method where no class has two images, and nothing can be tried."""


def usual(recipe: str = "auto", *, of_one: bool = False) -> str:
    """The method where nobody names one: that of a recipe by name, else `auto`.

    of_one: something is asked for that belongs to one method (its options, a start, a teacher, new classes): then CoOp.
    """
    if recipes.known(recipe):
        return recipes.read(recipe).method
    return "coop" if of_one else AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A candidate and its right answers."""

    label: str
    right: NDArray[np.bool_] | None
    """Per image that was asked about; None: not tried."""
    seconds: float
    why_not: str = ""

    @property
    def accuracy(self) -> float | None:
        """Percent."""
        return None if self.right is None else float(100 * self.right.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen against what."""

    candidate: Candidate
    tried: tuple[Tried, ...]
    """The hand-written words first."""
    images: int
    """Training images that were asked about."""
    sentence: str
    seconds: float


def choose(
    images: Images,
    dataset: Dataset,
    *,
    shots: int | None,
    seed: int,
    subset: Subset = "all",
    candidates: Sequence[Candidate] = CANDIDATES,
    observer: Observer = SILENT,
    max_seconds: float = MAX_SECONDS,
    **given: Any,
) -> Choice:
    """Cross-validates the candidates on the few-shot training images and takes the best by `pick`.

    given: the model, and what else `job.prepare` takes. UserError as `job.prepare` and `sampling.draw`.
    """
    if dataset.several:
        said = "coop: the images have several labels each, and it learns from them."
        return Choice(candidate=Candidate(method="coop"), tried=(), images=0, sentence=said, seconds=0.0)
    began, quiet = time.perf_counter(), images.quiet()
    given |= {"shots": shots, "seed": seed, "subset": subset}
    jobs = [prepare(quiet, dataset, one.method, overrides=one.overrides, **given) for one in candidates]
    skipped = {skip.id: skip.reason for skip in dataset.skipped}
    sample = draw(dataset, images, skipped, shots=shots, seed=seed, subset=subset, hold_out=True)
    folds = deal(sample.train, seed=seed)
    if not folds:
        return Choice(
            candidate=next((one for one in candidates if one.method == ONE_IMAGE), candidates[0]),
            tried=(),
            images=0,
            sentence=f"{ONE_IMAGE}, untried: no class has two training images, one to learn from and one to ask about.",
            seconds=time.perf_counter() - began,
        )
    images.features((*sample.train, *sample.val), None)
    observer.stage("choosing a method", len(candidates))
    tried = [_words(jobs[0], sample, folds)]
    for one, job in zip(candidates, jobs, strict=True):
        tried.append(_tried(one, job, sample, folds, max_seconds))
        observer.advance(1, {})
    chosen = pick(tried[1:])
    return Choice(
        candidate=candidates[chosen],
        tried=tuple(tried),
        images=sum(len(fold) for fold in folds),
        sentence=_sentence(tried, chosen + 1),
        seconds=time.perf_counter() - began,
    )


def deal(samples: Sequence[Sample], *, seed: int, folds: int = FOLDS) -> list[list[int]]:
    """Places of the images of each fold, every class dealt evenly; a class with one image is in none. At most as many folds as images
    of the largest class; empty where no class has two."""
    groups: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(sample.label, []).append(place)
    most = max((len(group) for group in groups.values()), default=0)
    out: list[list[int]] = [[] for _ in range(min(folds, most))]
    if most < 2:
        return []
    random, at = np.random.default_rng(seed), 0
    for group in groups.values():
        if len(group) > 1:
            for place in random.permutation(group).tolist():
                out[at % len(out)].append(place)
                at += 1
    return [sorted(fold) for fold in out if fold]


def _words(job: Job, sample: FewShot, folds: Sequence[Sequence[int]]) -> Tried:
    """Hand-written words, chosen on what is learned from."""
    began, right = time.perf_counter(), []
    for fold in folds:
        train, asked = apart(sample.train, fold)
        words = best_words(job.clip, sample.class_names, job.template, job.images, train)
        logits = zero_shot(job.clip, sample.class_names, words, job.template).logits(asked, job.images)
        right.append(logits.argmax(1).numpy() == labels(asked))
    return Tried(label="hand-written words", right=np.concatenate(right), seconds=time.perf_counter() - began)


def _tried(one: Candidate, job: Job, sample: FewShot, folds: Sequence[Sequence[int]], max_seconds: float) -> Tried:
    began = time.perf_counter()
    if job.method.chooses and not sample.val:
        return Tried(label=one.label, right=None, seconds=0.0, why_not="it needs validation images")
    parts = [apart(sample.train, fold) for fold in folds]
    lessons, asked = [job.lesson(sample, train) for train, _ in parts], [each for _, each in parts]
    if isinstance(job.method.learner, Steps):
        need = measure(job.clip, job.method, lessons[0], job.images, max_rows=None).seconds * len(folds)
        if need > max_seconds:
            return Tried(label=one.label, right=None, seconds=0.0, why_not=f"it would take {need:,.0f} s")
    found = all_answered(job, lessons, sample.val, asked)
    right = [logits.argmax(1).numpy() == labels(each) for logits, each in zip(found, asked, strict=True)]
    return Tried(label=one.label, right=np.concatenate(right), seconds=time.perf_counter() - began)


def apart(samples: Sequence[Sample], fold: Sequence[int]) -> tuple[list[Sample], list[Sample]]:
    """What is learned from, and what is asked about."""
    held = set(fold)
    return [one for place, one in enumerate(samples) if place not in held], [samples[place] for place in fold]


def answered(job: Job, lesson: Lesson, val: Sequence[Sample], asked: Sequence[Sample]) -> torch.Tensor:
    """(N, C) logits of what a job learns from a lesson."""
    return all_answered(job, [lesson], val, [asked])[0]


def all_answered(
    job: Job, lessons: Sequence[Lesson], val: Sequence[Sample], asked: Sequence[Sequence[Sample]]
) -> list[torch.Tensor]:
    """As `answered`, of several lessons with their images; learned together where they can be (`learn.alike`).

    UserError of the first that fails.
    """
    tasks = [Task(method=job.method, feed=lesson, val=val) for lesson in lessons]
    prompts = [prompt for group in grouped(tasks) for prompt in learn_all(job.clip, group, job.images)]
    found = []
    for prompt, lesson, images in zip(prompts, lessons, asked, strict=True):
        if isinstance(prompt, UserError):
            raise prompt
        method = job.taught(lesson.class_names)
        classifier = Classifier(job.clip, method, prompt, lesson.class_names, job.template)
        found.append(classifier.logits(images, job.images))
    return found


def labels(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(N,)"""
    return np.array([one.label for one in samples], dtype=np.int64)


def pick(tried: Sequence[Tried]) -> int:
    """The first candidate that is not worse than the best by more than one standard error of the paired difference over images.

    Source: the one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984), paired here (project's choice).
    """
    known = [number for number, one in enumerate(tried) if one.right is not None]
    if not known:
        return 0
    best = max(known, key=lambda number: tried[number].accuracy or 0.0)
    return next(number for number in known if _close(tried[number].right, tried[best].right))


def _close(one: NDArray[np.bool_] | None, best: NDArray[np.bool_] | None) -> bool:
    assert one is not None
    assert best is not None
    difference = best.astype(float) - one
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() <= error + 1e-9)


def _sentence(tried: Sequence[Tried], chosen: int) -> str:
    own, rest = tried[chosen], [one for place, one in enumerate(tried) if place != chosen]
    listed = ", ".join(
        f"{one.label} {one.accuracy:.1f}" if one.accuracy is not None else f"{one.label} not tried ({one.why_not})"
        for one in rest
    )
    said = "untried" if own.accuracy is None else f"{own.accuracy:.1f} %"
    return f"{own.label}: {said} on training images that it had not learned from; {listed}."


def as_dict(choice: Choice) -> dict[str, object]:
    tried = [
        {"label": one.label, "accuracy": one.accuracy, "seconds": round(one.seconds, 2), "why_not": one.why_not}
        for one in choice.tried
    ]
    candidate = dataclasses.asdict(choice.candidate)
    return candidate | {"sentence": choice.sentence, "images": choice.images, "seconds": choice.seconds, "tried": tried}
