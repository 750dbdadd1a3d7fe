"""Learning a method's prompt, in steps or at once. The one place where validation images may be chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.engine.forward import TEMPLATE, ensemble_text
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.train import Lesson, Task, new_prompt, train_all, view_of
from vlprompt.errors import UserError
from vlprompt.towers import Clip
from vlprompt.types import Fit, Given, Solver, Steps


def learn_all(
    clip: Clip, tasks: Sequence[Task], images: Images, observer: Observer = SILENT
) -> list[nn.Module | UserError]:
    """The learned prompts. Steps see the training images alone; what is fitted at once may choose on the validation images.

    Several go through the towers together: they are `alike`. A place has the error (exit 4) of a loss or gradient that is not finite.
    """

    def fit(solver: Solver, task: Task, val: Sequence[Sample], prompt: nn.Module) -> None:
        observer.note(solver.solve(prompt, _given(clip, task, val, images)))
        prompt.to(clip.device)

    if isinstance(tasks[0].method.learner, Steps):
        firsts = [(task, task.method.steps.first) for task in tasks]
        begun = [replace(task, first=partial(fit, solver, task, ()) if solver else None) for task, solver in firsts]
        found = train_all(clip, begun, images, observer)
        for task, prompt in zip(tasks, found, strict=True):
            if (last := task.method.steps.last) and isinstance(prompt, nn.Module):
                fit(last, task, task.val, prompt)
                prompt.requires_grad_(False)
        return found
    out: list[nn.Module | UserError] = []
    for task in tasks:
        prompt = new_prompt(clip, task.method.prompt, len(task.feed.class_names), task.feed.seed)
        if isinstance(task.method.learner, Fit):
            fit(task.method.learner.solver, task, task.val, prompt)
        out.append(prompt.requires_grad_(False))
    return out


def grouped(tasks: Sequence[Task]) -> list[list[Task]]:
    """All of them where they are `alike`, else each alone: what `learn_all` takes, in their order."""
    return [list(tasks)] if alike(tasks) else [[task] for task in tasks]


def alike(tasks: Sequence[Task]) -> bool:
    """Whether prompts can go through the towers together and gain by it.

    They have the same classes, steps and epochs, one context for all classes that does not depend on the image, no sampled classes, and
    no memory limit."""
    return len({_kind(one) for one in tasks}) == 1 and _kind(tasks[0]) is not None


def _kind(task: Task) -> object:
    method, feed = task.method, task.feed
    if not isinstance(method.learner, Steps) or feed.max_memory is not None:
        return None
    spec, steps = method.prompt, method.steps
    if spec.layout is None or not spec.layout.shared or spec.reach.sees or spec.reach.text_tower:
        return None
    if steps.classes is not None and steps.classes.drawn(len(feed.class_names)) is not None:
        return None
    done = task.start.epoch if task.start else 0
    number = (steps.schedule.epochs, steps.schedule.batch, feed.number, done)
    return spec.layout, type(steps.rule), spec.reach, feed.class_names, feed.template, number


def _given(clip: Clip, task: Task, val: Sequence[Sample], images: Images) -> Given:
    method, lesson = task.method, task.feed
    assert isinstance(lesson, Lesson), "what is fitted at once has all its images"

    def features(samples: Sequence[Sample], view: int | None = None) -> Tensor:
        return images.features(samples, view) if samples else torch.empty(0, clip.facts.embed_dim)

    def labelled(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        return features(samples), torch.tensor([sample.label for sample in samples], dtype=torch.int64)

    return Given(
        train=labelled(lesson.samples),
        val=labelled(val),
        view=lambda number: features(lesson.samples, view_of("epochs", number, lesson.seed)),
        text=lambda: ensemble_text(clip, lesson.class_names, method.teacher or TEMPLATE, lesson.template),
        scale=clip.logit_scale,
        seed=lesson.seed,
    )
