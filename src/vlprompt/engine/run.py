"""A run directory: every seed of one method on one data set, each from its images to its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprompt import artifact, disk, reading, records
from vlprompt.artifact import Learned
from vlprompt.data import Dataset, open_dataset, split_by_rule
from vlprompt.data.splits import fewer_tests, halves
from vlprompt.disk import locked
from vlprompt.engine.checkpoint import CHECKPOINT
from vlprompt.engine.choose import AUTO, CHOICE, as_dict, choose
from vlprompt.engine.confidence import Confidence
from vlprompt.engine.config import Means, RunConfig, another, claimed, differences, require_own
from vlprompt.engine.evaluate import Questions, best_words
from vlprompt.engine.images import Images, open_model
from vlprompt.engine.job import (
    CONFIG,
    Drawn,
    Job,
    Learning,
    Work,
    learn_all,
    prepare,
    test,
    with_teacher,
)
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.prospect import PARTS, by_folds, can_measure, cheap, in_folds, measure_curve, pooled
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import ignored, recipe_of, resolve
from vlprompt.records import CURVE, Record


def train_run(config: RunConfig, observer: Observer = SILENT) -> list[Record]:
    """Learn and test every seed of a run; finished seeds of the same configuration are read back, not repeated.

    UserError: anything that the user can mend, named. KeyboardInterrupt leaves a run that `resume` continues with.
    """
    hint = ", or --resume to add to what is there"
    require_own(config.out, "" if config.resume else "seed", "run", hint=hint)
    opened = None
    if config.method == AUTO:
        config, opened = chosen(config, observer)
    recipe = recipe_of(config.method, config.protocol, config.model, config.recipe)
    resolve(config.method, config.overrides, shots=config.shots, recipe=recipe)  # refused before anything is read
    for name in ignored(config.method, config.overrides):
        observer.note(f"{config.method} takes no gradient steps: {name} is ignored.")
    job = job_of(config, observer, opened)
    with locked(config.out):
        out: list[Record] = []
        drawings: dict[Path, Drawn] = {}
        for number in range(0, len(config.seeds), config.replicas):
            seeds = config.seeds[number : number + config.replicas]
            placed = [(dataclasses.replace(job, seed=seed), config.out / f"seed{seed}") for seed in seeds]
            ended = learned_and_tested(placed, config, drawings, observer)
            done = [one for one in ended if not isinstance(one, UserError)]
            for record in done:
                observer.finished(record)
            for one in ended:
                if isinstance(one, UserError):
                    raise one
            out += done
        if config.curve or (config.curve is None and cheap(out)):
            _curves(job, drawings, config, observer)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What is read of `choice.json`."""

    method: str
    overrides: Mapping[str, object]
    sentence: str
    seconds: float
    asked: Mapping[str, object]


def chosen(config: RunConfig, observer: Observer) -> tuple[RunConfig, tuple[Dataset, Images] | None]:
    """The configuration with a method in place of `auto`, and what was opened to choose it.

    A run directory keeps its choice in `choice.json`, so it is made once. UserError: it was made for other images or options; or
    options are given and nobody says whose.
    """
    path = config.out / CHOICE
    asked = {name: getattr(config, name) for name in ("model", "shots", "recipe", "subset", "template", "views")}
    asked["data"] = Path(config.data).name
    if path.is_file():
        told, opened = reading.typed(_Chosen, reading.json_object(path), str(path)), None
        if changed := differences(told.asked, asked):
            raise another(config.out, changed)
    else:
        opened = open_all(config, observer)
        given: dict[str, Any] = {name: one for name, one in asked.items() if name != "data"}
        untested = dataclasses.replace(opened[0], test=())
        choice = choose(opened[1], untested, seed=config.seeds[0], observer=observer, **given)
        stored = as_dict(choice) | {"asked": asked}
        disk.write_json(path, stored)
        told = reading.typed(_Chosen, stored, str(path))
    observer.note(f"Chosen: {told.sentence} It took {told.seconds:.0f} s. Another one: --method NAME.")
    return dataclasses.replace(config, method=told.method, overrides={**told.overrides, **config.overrides}), opened


def open_all(config: RunConfig, observer: Observer, *, val_as_test: bool = True) -> tuple[Dataset, Images]:
    """The data set in its parts, and the model. val_as_test: as `open_dataset`."""
    dataset = open_dataset(config.data, strict=config.strict, val_as_test=val_as_test and not config.folds)
    if config.folds and dataset.test:
        observer.note(f"--folds asks about the other images: {len(dataset.test)} test images are left out.")
    dataset = pooled(dataset) if config.folds else restrict_tests(split_by_rule(dataset), config)
    for note in dataset.notes:
        observer.note(note)
    return dataset, open_model(config.model, config.dtype, config.device, config.cache, observer)


def restrict_tests(dataset: Dataset, config: RunConfig) -> Dataset:
    """The data set with at most `max_test` test images of the classes that are asked about."""
    if config.max_test is None or config.subset == "all":
        return fewer_tests(dataset, config.max_test)
    base, novel = halves(len(dataset.class_names))
    labels = base if config.subset == "base" else novel
    asked = tuple(one for one in dataset.test if one.label in labels)
    return fewer_tests(dataclasses.replace(dataset, test=asked), config.max_test)


def job_of(config: RunConfig, observer: Observer = SILENT, opened: tuple[Dataset, Images] | None = None) -> Job:
    """The job of a run's first seed: its images, model and teacher opened, every choice made."""
    dataset, images = opened or open_all(config, observer)
    same = ("model", "shots", "overrides", "recipe", "subset", "template", "views", "init", "strict")
    given = {name: getattr(config, name) for name in same}
    job = prepare(images, dataset, config.method, seed=config.seeds[0], asked={"data": config.data}, **given)
    return dataclasses.replace(with_teacher(job, config.teacher, config.cache, observer), folds=config.folds)


def learned_and_tested(
    placed: Sequence[tuple[Job, Path]],
    config: RunConfig,
    drawings: dict[Path, Drawn],
    observer: Observer,
    protocol: str = "",
) -> list[Record | UserError]:
    """Some jobs with their directories, learned together: sample, learn, test, and write everything; `result.json` last.

    Finished ones are read back. A place has the error where that job failed; `drawings` gets what each one drew.
    """
    found: dict[Path, Record | UserError] = {}
    works = []
    for job, at in placed:
        drawn = job.draw()
        drawn = in_folds(drawn, job) if config.folds else drawn
        work = Work(job=job, drawn=drawn, at=at)
        drawings[at] = drawn
        if (done := _claim(work, config, resume=config.resume)) is not None:
            found[at] = done
        else:
            works.append(work)
    for work, new in zip(works, learn_all(works, config, observer=observer) if works else [], strict=True):
        part_of = protocol or config.protocol
        ended = new if isinstance(new, UserError) else _tested(work, *new, protocol=part_of, observer=observer)
        found[work.directory] = ended
    return [found[at] for _, at in placed]


def _curves(job: Job, drawings: Mapping[Path, Drawn], config: RunConfig, observer: Observer) -> None:
    """The curve of each seed that has none yet."""
    for seed in config.seeds:
        job, place = dataclasses.replace(job, seed=seed), config.out / f"seed{seed}"
        drawn = drawings[place]
        if (place / CURVE).is_file() or not can_measure(drawn, job):
            continue
        opened = job.dataset, job.images.quiet()
        shots = [None if job.shots is None else max(1, int(part * job.shots)) for part in PARTS]
        smaller = [job_of(dataclasses.replace(config, shots=few, seeds=(seed,)), opened=opened) for few in shots]
        measure_curve(drawn, job, smaller, place, observer)


def _tested(work: Work, learned: Learned, learning: Learning, *, protocol: str, observer: Observer) -> Record:
    """Test a seed's prompt, and write both."""
    job, drawn = work.job, work.drawn
    directory = work.directory
    sample, images = drawn.sample, job.images
    part = job.tested_part(sample)
    asked = Questions(
        dataset=job.dataset.name,
        class_names=part.class_names,
        samples=drawn.test,
        template=job.template,
        split_hash=drawn.split.hash,
        protocol=protocol,
        subset=job.subset,
        skipped=drawn.skipped,
        test_of=job.dataset.test_of,
        words=best_words(images.clip, sample.class_names, job.template, images, sample.val or sample.train),
        told=by_folds(drawn, job, observer) if job.folds else None,
        folds=job.folds,
        val=part.val,
    )
    record, answers = test(learned, learning, asked, images, recipe_hash=recipes.hash_of(job.recipe))
    facts = {
        **learned.facts,
        **({"hand_written": record.hand_written} if record.hand_written else {}),
        **Confidence(temperature=record.temperature, reject_below=record.reject_below).facts,
        "metrics": {"top1": record.top1, "zero_shot_top1": record.zero_shot_top1, "val_top1": record.val_top1},
    }
    artifact.save(directory, dataclasses.replace(learned, facts=facts))
    records.write(directory, record, answers)
    return record


def _claim(work: Work, means: Means, *, resume: bool) -> Record | None:
    """The record of a finished seed; None: there is something to do. UserError as `claimed`."""
    directory = work.directory
    done, begun = records.finished(directory), (directory / CHECKPOINT).is_file()
    if not done and not begun:
        return None
    record = records.read(directory) if done else None
    claimed(
        directory / CONFIG,
        work.job.document(work.drawn, means),
        result=directory / records.RESULT,
        prompts=[directory / artifact.FACTS] if record and record.parameters else [],
        begun=begun,
        resume=resume,
    )
    return record
