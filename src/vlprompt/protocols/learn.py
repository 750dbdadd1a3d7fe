"""Learning the prompt of a course: from training images, choosing on validation images. No test image can be reached here."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from torch import nn

from vlprompt import artifact, methods
from vlprompt.artifact import Learned
from vlprompt.data import Dataset, Split, restrict
from vlprompt.engine.config import RunConfig
from vlprompt.engine.evaluate import accuracy, classifier_of, training_hash
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.precision import peak_mib, reset_peak
from vlprompt.engine.run import Setup, begun, learn_seed, resolved
from vlprompt.engine.sampling import draw, said_of_skipped
from vlprompt.engine.train import view_of
from vlprompt.protocols.cells import Course, Means
from vlprompt.protocols.desk import Desk
from vlprompt.towers import Clip
from vlprompt.types import Method


def learned_already(directory: Path) -> bool:
    """Whether the course's prompt is there: `prompt.json` is written last."""
    return (directory / artifact.FACTS).is_file()


def learn(course: Course, directory: Path, desk: Desk, observer: Observer = SILENT) -> None:
    """Leave the course's prompt in `directory`, going on from its checkpoint if there is one.

    The caller holds the directory's lock. UserError as `train_run`.
    """
    material = desk.material(course.data)
    assert not material.test, "a course is given no test images"
    began = time.perf_counter()
    if course.shots == 0:
        found, learning = _given(course, material, desk)
    else:
        found, learning = _taught(course, directory, material, desk, observer)
    learning["seconds"] += time.perf_counter() - began
    learning["peak_mib"] = peak_mib(desk.clip(course.model, course.dtype).device)
    facts = {
        "dataset": course.dataset,
        "shots": course.shots,
        "seed": course.seed,
        "subset": course.subset,
        "recipe": course.recipe,
        "init": course.init_hash,
        "metrics": {"val_top1": learning["val_top1"]},
        "learning": learning,
    }
    artifact.save(directory, dataclasses.replace(found, facts={**facts, **found.facts}))


def _given(course: Course, material: Dataset, desk: Desk) -> tuple[Learned, dict[str, Any]]:
    """What needs no learning here: the hand-written template, or a pretrained prompt as it is."""
    clip = desk.clip(course.model, course.dtype)
    learning = {"seconds": 0.0, "seconds_features": 0.0, "num_train": 0, "num_val": 0, "val_top1": None}
    if not course.init:
        method = methods.resolve(course.method, course.overrides, recipe=course.recipe, dataset=course.dataset)
        return _learned(course, method, None, restrict(material, course.subset).class_names, clip), learning
    given = artifact.load(Path(course.init), clip)
    return dataclasses.replace(given, facts={"dataset": given.facts.get("dataset", "")}), learning


def _taught(
    course: Course, directory: Path, material: Dataset, desk: Desk, observer: Observer
) -> tuple[Learned, dict[str, Any]]:
    """The prompt, and what is to be known of how it was learned."""
    images = desk.images(course.model, course.dtype)
    features_began = images.seconds
    reset_peak(images.clip.device)
    config = config_of(course, directory, desk.means)
    method, init = begun(config, material, images.clip, course.recipe)
    setup = Setup(
        config=config,
        clip=images.clip,
        method=method,
        recipe=course.recipe,
        dataset=material,
        images=images,
        init=init,
    )
    skipped = {skip.id: skip.reason for skip in material.skipped}
    sample = draw(material, images, skipped, shots=course.shots, seed=course.seed, subset=course.subset)
    if skipped:
        observer.note(f"{material.name}: {said_of_skipped(skipped)}")
    desk.encode(images, sample.train, _cached_views(setup))
    desk.encode(images, sample.val, [None])
    split = Split(train=sample.train, val=sample.val, test=())
    chosen = resolved(setup, course.seed, sample, split)
    prompt, before = learn_seed(setup, sample, split, chosen, directory, observer)
    learned = _learned(course, setup.method, prompt, sample.class_names, images.clip)
    classifier = classifier_of(images.clip, setup.method, prompt, sample.class_names, course.template)
    return learned, {
        "seconds": before,
        "seconds_features": images.seconds - features_began,
        "num_train": len(sample.train),
        "num_val": len(sample.val),
        "val_top1": accuracy(classifier, sample.val, images),
        "skipped": skipped,
        "short_classes": dict(sample.short),
        "config_hash": chosen.hash,
        "training_hash": training_hash(sample.train),
    }


def _cached_views(setup: Setup) -> list[int | None]:
    """The views whose features learning reads over and over; none where it reads pixels, or each view once."""
    spec, schedule = setup.method.prompt, setup.method.schedule
    if spec is None or schedule is None:
        return [None]
    if setup.views == "epochs" or (spec.prompts_image and not spec.conditioned):
        return []
    return sorted({view_of(setup.views, epoch) for epoch in range(schedule.epochs)}, key=str)


def config_of(course: Course, directory: Path, means: Means) -> RunConfig:
    """The configuration of an ordinary run that learns the same."""
    return RunConfig(
        method=course.method,
        model=course.model,
        data=course.data,
        out=directory.parent,
        overrides=course.overrides,
        shots=course.shots,
        seeds=(course.seed,),
        recipe=course.recipe,
        init=Path(course.init) if course.init else None,
        subset=course.subset,
        views=course.views,
        device=means.device,
        dtype=course.dtype,
        cache=means.cache,
        resume=True,
        max_memory=means.max_memory,
        track=means.track,
    )


def _learned(
    course: Course, method: Method, prompt: nn.Module | None, class_names: tuple[str, ...], clip: Clip
) -> Learned:
    return Learned(
        method=method,
        prompt=prompt,
        class_names=class_names,
        template=course.template,
        model=course.model,
        weight_hash=clip.weight_hash,
    )
