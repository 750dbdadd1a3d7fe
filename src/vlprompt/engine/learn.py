"""Learning a method's prompt, in steps or at once. The one place where validation images may be chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vlprompt.data import Sample
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.engine.forward import TEMPLATE, ensemble_text
from vlprompt.engine.images import Images
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.train import Lesson, new_prompt, train, view_of
from vlprompt.towers import Clip
from vlprompt.types import Fit, Given, Method, Solver, Steps


def learn(
    clip: Clip,
    method: Method,
    lesson: Lesson,
    val: Sequence[Sample],
    images: Images,
    *,
    start: State | None = None,
    checkpoints: Checkpoints | None = None,
    observer: Observer = SILENT,
) -> nn.Module:
    """The learned prompt. Steps see the training images alone; what is fitted at once may choose on the validation images."""

    def fitted(solver: Solver, prompt: nn.Module, val: Sequence[Sample]) -> None:
        observer.note(solver.solve(prompt, _given(clip, method, lesson, val, images)))
        prompt.to(clip.device)

    learner = method.learner
    if isinstance(learner, Steps):
        first = partial(fitted, learner.first, val=()) if learner.first else None
        prompt = train(
            clip, method, lesson, images, start=start, first=first, checkpoints=checkpoints, observer=observer
        )
        if learner.last:
            fitted(learner.last, prompt, val)
        return prompt.requires_grad_(False)
    prompt = new_prompt(clip, method.prompt, len(lesson.class_names), lesson.seed)
    if isinstance(learner, Fit):
        fitted(learner.solver, prompt, val)
    return prompt.requires_grad_(False)


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
