"""Learning a method's prompt, in steps or at once. The one place where validation images may be chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.engine.forward import TEMPLATE, ensemble_text
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.train import Lesson, Task, new_prompt, train_all, view_of
from vlprompt.errors import UserError
from vlprompt.towers import Clip
from vlprompt.types import Fit, Given, Method, Solver, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Pupil:
    """One prompt to be learned: how, from what, and what may be chosen on."""

    method: Method
    lesson: Lesson
    val: Sequence[Sample]
    start: State | None = None
    checkpoints: Checkpoints | None = None


def learn_all(
    clip: Clip, pupils: Sequence[Pupil], images: Images, observer: Observer = SILENT
) -> list[nn.Module | UserError]:
    """The learned prompts. Steps see the training images alone; what is fitted at once may choose on the validation images.

    Several go through the towers together: they are `alike`. A place has the error (exit 4) of a loss or gradient that is not finite.
    """

    def fitted(solver: Solver, pupil: Pupil, prompt: nn.Module, val: Sequence[Sample]) -> None:
        observer.note(solver.solve(prompt, _given(clip, pupil.method, pupil.lesson, val, images)))
        prompt.to(clip.device)

    if isinstance(pupils[0].method.learner, Steps):
        tasks = []
        for pupil in pupils:
            solver = pupil.method.steps.first
            first = partial(fitted, solver, pupil, val=()) if solver else None
            tasks.append(
                Task(
                    method=pupil.method,
                    feed=pupil.lesson,
                    start=pupil.start,
                    first=first,
                    checkpoints=pupil.checkpoints,
                )
            )
        found = train_all(clip, tasks, images, observer)
        for pupil, prompt in zip(pupils, found, strict=True):
            if (last := pupil.method.steps.last) and isinstance(prompt, nn.Module):
                fitted(last, pupil, prompt, pupil.val)
                prompt.requires_grad_(False)
        return found
    out: list[nn.Module | UserError] = []
    for pupil in pupils:
        prompt = new_prompt(clip, pupil.method.prompt, len(pupil.lesson.class_names), pupil.lesson.seed)
        if isinstance(pupil.method.learner, Fit):
            fitted(pupil.method.learner.solver, pupil, prompt, pupil.val)
        out.append(prompt.requires_grad_(False))
    return out


def grouped(pupils: Sequence[Pupil]) -> list[list[Pupil]]:
    """All of them where they are `alike`, else each alone: what `learn_all` takes, in their order."""
    return [list(pupils)] if alike(pupils) else [[pupil] for pupil in pupils]


def alike(pupils: Sequence[Pupil]) -> bool:
    """Whether prompts can go through the towers together and gain by it.

    They have the same classes, steps and epochs, one context for all classes that does not depend on the image, no sampled classes, and
    no memory limit."""
    return len({_kind(one) for one in pupils}) == 1 and _kind(pupils[0]) is not None


def _kind(pupil: Pupil) -> object:
    method, lesson = pupil.method, pupil.lesson
    if not isinstance(method.learner, Steps) or lesson.max_memory is not None:
        return None
    spec, steps = method.prompt, method.steps
    if spec.layout is None or not spec.layout.shared or spec.reach.sees or spec.reach.text_tower:
        return None
    if steps.classes is not None and steps.classes.drawn(len(lesson.class_names)) is not None:
        return None
    done = pupil.start.epoch if pupil.start else 0
    number = (steps.schedule.epochs, steps.schedule.batch, len(lesson.samples), done)
    return spec.layout, type(steps.rule), spec.reach, lesson.class_names, lesson.template, number


def _given(clip: Clip, method: Method, lesson: Lesson, val: Sequence[Sample], images: Images) -> Given:
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
