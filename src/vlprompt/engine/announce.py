"""One line before learning: what is learned, from how much, for how long, and in how much memory."""

from __future__ import annotations

from vlprompt.engine.duration import Duration, in_words, measure
from vlprompt.engine.images import Images
from vlprompt.engine.optim import batches
from vlprompt.engine.train import Lesson, estimate_step, new_prompt
from vlprompt.towers import Clip
from vlprompt.types import Method


def start_line(clip: Clip, method: Method, lesson: Lesson, images: Images, *, done: int = 0) -> str:
    """For example: ``coop on pocket-s: 3,072 numbers are learned, 5,373,889 stay frozen; 40 classes, 640 training images, ...``.

    done: epochs that are behind it, where a run goes on. Some steps are taken to time them (`duration.measure`).
    """
    spec, schedule = method.prompt, method.schedule
    assert spec is not None, f"{method.name} learns nothing"
    assert schedule is not None, f"{method.name} has no gradient steps"
    prompt = new_prompt(clip, spec, len(lesson.class_names), lesson.seed)
    learned = sum(parameter.numel() for parameter in prompt.parameters())
    frozen = sum(parameter.numel() for parameter in clip.parameters())
    steps = len(batches(len(lesson.samples), schedule.batch, seed=lesson.seed, epoch=0))
    words = {"epochs": "a fresh view each epoch", "centre": "not cropped"}
    views = words[lesson.views] if isinstance(lesson.views, str) else f"{min(lesson.views, schedule.epochs)} views each"
    need = estimate_step(clip, method, lesson)
    part = f", {need.max_rows} of {need.rows} text rows at a time" if need.max_rows is not None else ""
    return (
        f"{method.name} on {clip.name}: {learned:,} numbers are learned, {frozen:,} stay frozen; {len(lesson.class_names)} classes, "
        f"{len(lesson.samples)} training images, {views}; {schedule.epochs} epochs of {steps} steps; about "
        f"{need.total / 2**30:.2g} GiB of memory{part}; "
        f"{said_of(measure(clip, method, lesson, images, max_rows=need.max_rows, done=done))}."
    )


def said_of(duration: Duration) -> str:
    """For example: ``about 12 min (0.21 s a step, timed on 2; 12,800 image views to encode, 0.04 s each)``."""
    first = f"; {duration.images:,} image views to encode, {duration.image:.2g} s each" if duration.images else ""
    return f"{in_words(duration.seconds)} ({duration.step:.2g} s a step, timed on {duration.timed}{first})"
