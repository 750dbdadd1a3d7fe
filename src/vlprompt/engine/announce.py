"""One line before learning: what is learned, from how much, for how long, and in how much memory."""

from __future__ import annotations

from vlprompt.engine.optim import batches
from vlprompt.engine.train import Lesson, estimate_step, new_prompt
from vlprompt.towers import Clip
from vlprompt.types import Method


def start_line(clip: Clip, method: Method, lesson: Lesson) -> str:
    """For example: ``coop on pocket-s: 640 numbers are learned, 4,690,112 stay frozen; 752 training images x 8 views; ...``."""
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
        f"{need.total / 2**30:.2g} GiB of memory{part}."
    )
