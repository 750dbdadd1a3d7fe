"""How long learning is going to take: a few real steps and a few images are timed before it begins, and multiplied."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vlprompt.data import Sample
from vlprompt.engine.classes import draw
from vlprompt.engine.forward import Forward
from vlprompt.engine.images import BATCH, Images
from vlprompt.engine.optim import batches
from vlprompt.engine.precision import synchronize
from vlprompt.engine.several import targets
from vlprompt.engine.step import Share, gradients_of_all, weighted
from vlprompt.engine.train import Lesson, new_prompt, view_of
from vlprompt.towers import Clip
from vlprompt.types import Method, View

ENOUGH = 0.25
"""Seconds after which a probe stops: one slow step or image is enough, quick ones are repeated (project's choice)."""
MOST_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """What was timed, and what follows from it; checkpoints and the test are not in it."""

    step: float
    """Seconds of one step: prompt, towers, losses, gradients."""
    timed: int
    """Steps that were timed."""
    steps: int
    """Steps that are still to be taken."""
    image: float
    """Seconds of decoding and encoding one image; 0 where nothing is left to encode."""
    images: int
    """Images, counted once per view, that the feature cache does not have."""

    @property
    def seconds(self) -> float:
        """All steps, and the images before or between them."""
        return self.step * self.steps + self.image * self.images


def measure(
    clip: Clip, method: Method, lesson: Lesson, images: Images, *, max_rows: int | None, done: int = 0
) -> Duration:
    """Time what is to be learned from epoch `done` on. Nothing is learned, kept, or drawn that learning itself would miss."""
    schedule = method.schedule
    # The teacher's sentences are not read here: a step takes as long with any features.
    plain = replace(method, teacher=None)
    forward = Forward(clip, plain, lesson.class_names, lesson.template, max_rows=max_rows, taught=lesson.teacher)
    per_epoch = len(batches(len(lesson.samples), schedule.batch, seed=lesson.seed, epoch=0))
    step, timed = _step(forward, method, lesson, images, per_epoch)
    missing = 0
    if forward.reads_frozen:
        contents = {sample.picture_hash for sample in lesson.samples}
        views = {view_of(lesson.views, epoch, lesson.seed) for epoch in range(done, schedule.epochs)}
        missing = sum(len(contents - images.known(view)) for view in views)
    return Duration(
        step=step,
        timed=timed,
        steps=(schedule.epochs - done) * per_epoch,
        image=_image(lesson, images, missing) if missing else 0.0,
        images=missing,
    )


def stepping(forward: Forward, method: Method, lesson: Lesson, images: Images) -> Callable[..., float]:
    """A step of the lesson's first batch that can be taken again and again: it gives its seconds, and learns nothing.

    measured: each term's gradient is measured as well."""
    prompt = new_prompt(forward.clip, forward.spec, len(lesson.class_names), lesson.seed)
    index = batches(len(lesson.samples), method.schedule.batch, seed=lesson.seed, epoch=0)[0]
    batch = [lesson.samples[i] for i in index.tolist()]

    def take(*, measured: bool = False) -> float:
        began = time.perf_counter()
        losses = weighted(method.terms, _view(forward, method, lesson, images, batch, prompt))
        share = Share(method=method, losses=losses, parameters=list(prompt.parameters()))
        gradients_of_all([share], measured=measured)
        synchronize(forward.clip.device)
        return time.perf_counter() - began

    return take


def _step(forward: Forward, method: Method, lesson: Lesson, images: Images, per_epoch: int) -> tuple[float, int]:
    """Seconds of a step and how many were timed; the first, which also warms up, counts only where it is the only one.

    The first step of an epoch differentiates the terms one by one; it counts by its share of the epoch.
    """
    take = stepping(forward, method, lesson, images)
    took = [take()]
    while sum(took) < ENOUGH and len(took) <= MOST_STEPS:
        took.append(take())
    seconds = statistics.median(took[1:] or took)
    if len(method.terms) > 1:
        seconds += max(0.0, take(measured=True) - seconds) / per_epoch
    return seconds, max(1, len(took) - 1)


def _view(
    forward: Forward, method: Method, lesson: Lesson, images: Images, batch: Sequence[Sample], prompt: nn.Module
) -> View:
    """A batch's view; features are all ones, which take as long as any."""
    device, crop = forward.clip.device, view_of(lesson.views, 0, lesson.seed)
    labels = targets(batch, len(lesson.class_names), several=lesson.several)
    frozen = torch.ones(len(batch), forward.clip.facts.embed_dim) if forward.reads_frozen else None
    pixels = images.pixels(batch, crop) if forward.spec.reach.image_tower else None
    drawn = draw(method.steps.classes, len(lesson.class_names), seed=lesson.seed, epoch=0, step=0)
    taught = None
    if forward.taught is not None:
        taught = torch.ones(len(batch), forward.taught.clip.facts.embed_dim, device=device)
    ready = None if frozen is None else frozen.to(device)
    return forward(prompt, labels.to(device), ready, pixels, drawn, chance=0, taught_BE=taught)


def _image(lesson: Lesson, images: Images, missing: int) -> float:
    """Seconds per image: ever larger batches, until one takes long enough to be believed."""
    number = 1
    while True:
        samples = lesson.samples[:number]
        began = time.perf_counter()
        images.encode(samples, view_of(lesson.views, 0, lesson.seed))
        took = time.perf_counter() - began
        if took > ENOUGH or number >= min(BATCH, missing, len(lesson.samples)):
            return took / len(samples)
        number *= 4
