"""One prompt, from all that decides it to its record: every path that learns one goes through here.

    job = prepare(images, dataset, "coop", ...)     every choice made, nothing drawn
    drawn = job.draw()                              the few-shot sample of its seed
    learned, learning = learn(job, drawn, means)    the prompt, and how it was learned
    record, answers = test(learned, learning, questions, images)

`Job` is all that decides a result, `Means` (`engine.config`) what does not. Who calls: a run directory (`engine.run`), a cell of a
grid (`bench.work`), `PromptClassifier.fit`; `test` serves saved prompts too (`engine.test`).
"""

from __future__ import annotations

import dataclasses
import random
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlprompt import artifact, disk
from vlprompt.artifact import Learned
from vlprompt.data import Dataset, FewShot, Sample, Split, restrict, write_split
from vlprompt.data.splits import Subset, said_of_uneven
from vlprompt.engine.checkpoint import Checkpoints, Curves, weights_found
from vlprompt.engine.confidence import Confidence, confidence_of
from vlprompt.engine.config import Means, default_views, hashed
from vlprompt.engine.duration import Duration, measure
from vlprompt.engine.evaluate import Classifier, Questions, check_classes, examine, training_hash
from vlprompt.engine.images import Images
from vlprompt.engine.learn import grouped
from vlprompt.engine.learn import learn_all as learn_tasks
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.optim import batches
from vlprompt.engine.precision import generator, reset_peak
from vlprompt.engine.sampling import draw, said_of_short, said_of_skipped
from vlprompt.engine.several import fitted, of, require_able, right_of
from vlprompt.engine.teacher import Teacher, left, open_teacher
from vlprompt.engine.train import Lesson, Task, estimate_step, in_words, new_prompt
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import recipe_of, resolve, whose
from vlprompt.records import Predictions, Record
from vlprompt.towers import Clip
from vlprompt.types import Method, Steps, Views

CONFIG, SPLIT = "config.json", "split.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What one seed learns from and is tested on."""

    sample: FewShot
    test: tuple[Sample, ...]
    """Usable test images. Learning does not get them: they count for the hash of the split."""
    skipped: dict[str, str]
    """Image -> why it cannot be used."""
    began: tuple[float, float]
    """The clock, and the seconds spent on features, before it was drawn."""

    @property
    def split(self) -> Split:
        return Split(train=self.sample.train, val=self.sample.val, test=self.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to be learned: all that decides it, with every choice made. `prepare` makes it."""

    method: Method
    model: str
    """As it was asked for: a pocket model's name, a directory or a Hub id."""
    images: Images
    """As the frozen model sees them."""
    dataset: Dataset
    template: str
    views: Views
    shots: int | None
    seed: int
    subset: Subset = "all"
    recipe: str = ""
    choices: str = "project"
    """Whose the settings are, as `whose` says it."""
    init: str = ""
    """SHA-256 of the learned tensors that the prompt begins with; empty: the method's own start."""
    teacher: Teacher | None = None
    """Another model that teaches."""
    folds: int = 0
    """Folds of the training images that are asked about in turn (`engine.prospect`); 0: the test images are."""
    strict: bool = False
    """Whether an image that cannot be used is an error."""
    asked: Mapping[str, object] = field(default_factory=dict)
    """What `config.json` says for people: where model and images lay."""

    @property
    def clip(self) -> Clip:
        return self.images.clip

    def taught(self, class_names: tuple[str, ...]) -> Method:
        """The method of a learned prompt of these classes: with what a teacher leaves in it."""
        method = self.method
        if self.teacher is None or not method.prompt.reach.teachers_text:
            return method
        kept = left(self.teacher, str(self.asked["teacher"]), class_names, self.template, method)
        return replace(method, taught=kept)

    @property
    def learned_part(self) -> Subset:
        """The classes that it learns from: without labels all, whatever it is tested on."""
        return self.subset if self.method.unlabelled is None else "all"

    def tested_part(self, sample: FewShot) -> FewShot:
        """Class names and validation images of the classes that it is tested on."""
        return sample if self.learned_part == self.subset else restrict(sample, self.subset)

    def draw(self) -> Drawn:
        """The few-shot sample of the seed and the test images, all of which decode. UserError as `sampling.draw`."""
        began = time.perf_counter(), self.images.seconds
        reset_peak(self.clip.device)
        skipped = {skip.id: skip.reason for skip in self.dataset.skipped}
        sample = draw(
            self.dataset,
            self.images,
            skipped,
            shots=self.shots if self.method.unlabelled is None else None,
            seed=self.seed,
            subset=self.learned_part,
            strict=self.strict,
            hold_out=self.method.chooses,
        )
        if number := self.method.unlabelled:
            random.Random(self.seed).shuffle(train := list(sample.train))
            sample = replace(sample, train=tuple(train[:number]))
        test = self.images.usable(restrict(self.dataset, self.subset).test, skipped, strict=self.strict)
        return Drawn(sample=sample, test=test, skipped=skipped, began=began)

    def lesson(self, sample: FewShot, train: Sequence[Sample], max_memory: int | None = None) -> Lesson:
        """What it learns from: these images, of the sample's classes."""
        return Lesson(
            samples=tuple(train),
            class_names=sample.class_names,
            template=self.template,
            seed=self.seed,
            views=self.views,
            max_memory=max_memory,
            teacher=self.teacher,
            several=self.dataset.several,
        )

    def said_of(self, drawn: Drawn) -> list[str]:
        """What the user should know of a sample."""
        sample, learner = drawn.sample, self.method.learner
        found = [said_of_skipped(drawn.skipped)] if drawn.skipped else []
        if sample.held_out:
            found.append(
                f"{self.dataset.name} has no validation images: {len(sample.val)} unused training images are held out to choose on."
            )
        if sample.short:
            found.append(said_of_short(sample, self.shots))
        if self.method.unlabelled is not None:
            own = " Its teacher is the model's own zero-shot answer: name a bigger model with --teacher."
            found.append(
                f"{self.method.name} learns from {len(sample.train)} images of all {len(sample.class_names)} classes and reads no label, "
                f"so --shots and --subset do not choose them (--set images=N does).{'' if self.teacher else own}"
            )
        elif isinstance(learner, Steps) and learner.schedule.draw != "classes":
            counts = Counter(sample.class_names[one.label] for one in sample.train)
            found += [f"{said}."] if (said := said_of_uneven(counts)) else []
        return found

    def document(self, drawn: Drawn, means: Means) -> dict[str, object]:
        """What `config.json` holds: all that decides the result, the hash of it, and what was asked for.

        Model and images count by their content: where they lie, where the run is written and which device computes are left out. The
        hash is SHA-256 (hex) of the values but the recipe's name, since two recipes with the same settings learn the same prompt, and
        the number of threads, which changes the last bits alone.
        """
        decides: dict[str, object] = {
            "method": self.method.name,
            "options": dict(self.method.options),
            "recipe": self.recipe,
            "weight_hash": self.clip.weight_hash,
            "dtype": str(self.clip.dtype).removeprefix("torch."),
            "dataset": self.dataset.name,
            "template": self.template,
            "split_hash": drawn.split.hash,
            "training_hash": training_hash(drawn.sample.train),
            "shots": self.shots,
            "subset": self.subset,
            "seed": self.seed,
            "views": self.views,
            **({"init": self.init} if self.init else {}),
            **({"folds": self.folds} if self.folds else {}),
            **({"class_names": drawn.sample.class_names} if self.dataset.renamed else {}),
            **({"teacher": self.teacher.hash} if self.teacher else {}),
            "threads": torch.get_num_threads(),
        }
        places = {"device": means.device, "strict": self.strict}
        asked = {name: self.asked[name] for name in ("model", "data") if name in self.asked} | places | dict(self.asked)
        return hashed(decides, but=("recipe", "threads")) | {"asked": asked}


def prepare(
    images: Images,
    dataset: Dataset,
    method: str,
    *,
    model: str,
    shots: int | None,
    seed: int,
    overrides: Mapping[str, object] | None = None,
    recipe: str = "auto",
    subset: Subset = "all",
    template: str | None = None,
    views: Views | None = None,
    init: Path | None = None,
    strict: bool = False,
    asked: Mapping[str, object] | None = None,
) -> Job:
    """A job with every choice made: the recipe's settings under the overrides, its template and its views where none are given.

    UserError, before an image is read: unknown names and options; a prompt that cannot be built for this model (image tokens for a
    ResNet, words of other lengths); an `init` that does not fit, as `artifact.start_from`.
    """
    clip, overrides = images.clip, overrides or {}
    name = recipe_of(method, "few-shot" if subset == "all" else "base-to-novel", model, recipe)
    chosen = resolve(method, overrides, shots=shots, recipe=name, dataset=dataset.name, facts=clip.facts)
    require_able(chosen, subset, several=dataset.several)
    classes, begins_with = len(restrict(dataset, subset).class_names), ""
    if init is not None:
        chosen, begins_with = artifact.start_from(init, chosen, clip, classes)
    else:
        with warnings.catch_warnings(action="ignore"):  # learning builds it again, and warns then
            chosen.prompt.build(clip.facts, generator("begun"), classes)
    usual = default_views(name, dataset.name, wanted=recipe)
    seen = usual if views is None else views
    return Job(
        method=chosen,
        model=model,
        images=images,
        dataset=dataset,
        template=template or recipe_template(name, dataset) or dataset.template,
        views=seen,
        shots=shots,
        seed=seed,
        subset=subset,
        recipe=name,
        choices=whose(
            chosen,
            overrides,
            name,
            dataset=dataset.name,
            shots=0 if chosen.learner is None else shots,
            changed=template is not None or bool(begins_with) or seen != usual,
        ),
        init=begins_with,
        strict=strict,
        asked={"model": model, **(asked or {}), **({"init": str(init)} if init else {})},
    )


def with_teacher(job: Job, model: str | None, cache: Path | None, observer: Observer = SILENT) -> Job:
    """The job with this model, or run with a learned prompt, as its teacher; None: the frozen model itself. UserError as `open_teacher`."""
    teacher = open_teacher(model, job.method, job.clip, cache, observer)
    return job if teacher is None or model is None else taught_by(job, teacher, model)


def taught_by(job: Job, teacher: Teacher, model: str) -> Job:
    """The job with this teacher, which was asked for as `model`."""
    method = job.method
    if method.prompt.reach.teachers_text:
        spec: Any = method.prompt
        method = replace(method, prompt=replace(spec, width=teacher.clip.facts.embed_dim))
    return replace(job, method=method, teacher=teacher, asked={**job.asked, "teacher": model})


def recipe_template(recipe: str, dataset: Dataset) -> str | None:
    """The template that a named recipe has for a data set."""
    return recipes.read(recipe).template(dataset.name) if recipe else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How a prompt was learned, as its record says it."""

    seconds: float = 0.0
    """Over all starts, from drawing the sample on."""
    seconds_features: float = 0.0
    num_train: int = 0
    num_val: int = 0
    val_top1: float | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    short_classes: Mapping[str, int] = field(default_factory=dict)
    val_from: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    config_hash: str = ""
    training_hash: str = ""
    peak_mib: float = 0.0


def learn(
    job: Job,
    drawn: Drawn,
    means: Means,
    *,
    checkpoints: Checkpoints | None = None,
    observer: Observer = SILENT,
) -> tuple[Learned, Learning]:
    """The learned prompt of a job, and how it was learned. No test image is read, and nothing is written.

    checkpoints: what hears of each epoch. UserError (exit 4): a loss or a gradient is not finite.
    """
    (found,) = learn_all([Work(job=job, drawn=drawn, checkpoints=checkpoints)], means, observer=observer)
    if isinstance(found, UserError):
        raise found
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job with its sample."""

    job: Job
    drawn: Drawn
    at: Path | None = None
    """The directory of `config.json`, `split.json`, the log and the checkpoint, from which it goes on; None: nothing is written."""
    checkpoints: Checkpoints | None = None
    """What stands in for that directory's."""

    @property
    def directory(self) -> Path:
        """`at`, of work that is written."""
        assert self.at is not None
        return self.at


def learn_all(
    works: Sequence[Work], means: Means, *, observer: Observer = SILENT
) -> list[tuple[Learned, Learning] | UserError]:
    """As `learn`, of several jobs with the same images' model; those that are alike take their steps together (`learn.alike`).

    Together or alone, a prompt is the same to about 1e-6, not to the bit. A place has the error where that job alone failed.
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        tasks, hashes = [], []
        for work in works:
            kept, config_hash = _kept(work, means, stack)
            for said in work.job.said_of(work.drawn):
                observer.note(f"{work.job.dataset.name}, seed {work.job.seed}: {said}")
            hashes.append(config_hash)
            tasks.append(
                Task(
                    method=work.job.method,
                    feed=work.job.lesson(work.drawn.sample, work.drawn.sample.train, means.max_memory),
                    val=work.drawn.sample.val,
                    start=kept.load() if kept is not None else None,
                    checkpoints=kept,
                )
            )
        prompts = [prompt for group in grouped(tasks) for prompt in _steps(works[0].job.images, group, observer)]
    each = (time.perf_counter() - began) * (len(works) - 1) / len(works)  # what the others took is not its own
    return [
        prompt if isinstance(prompt, UserError) else _ended(work, task, prompt, config_hash, each)
        for work, task, prompt, config_hash in zip(works, tasks, prompts, hashes, strict=True)
    ]


def _kept(work: Work, means: Means, stack: ExitStack) -> tuple[Checkpoints | None, str]:
    """What keeps a job's states, and the hash of its configuration; what decides it is written into its directory."""
    if work.at is None:
        return work.checkpoints, ""
    document = work.job.document(work.drawn, means)
    disk.write_json(work.at / CONFIG, document)
    write_split(work.at / SPLIT, work.drawn.split, dataset=work.job.dataset.name)
    config_hash = str(document["hash"])
    curves = stack.enter_context(closing(Curves(work.at))) if means.track else None
    kept = Checkpoints(directory=work.at, config_hash=config_hash, every=means.save_every, curves=curves)
    return kept, config_hash


def _steps(images: Images, group: Sequence[Task], observer: Observer) -> list[nn.Module | UserError]:
    first = group[0]
    if isinstance(first.method.learner, Steps) and isinstance(first.feed, Lesson) and observer is not SILENT:
        done = first.start.epoch if first.start else 0
        together = f" {len(group)} prompts are learned together." if len(group) > 1 else ""
        observer.note(start_line(images.clip, first.method, first.feed, images, done=done) + together)
    return learn_tasks(images.clip, group, images, observer)


def _ended(work: Work, task: Task, prompt: nn.Module, config_hash: str, others: float) -> tuple[Learned, Learning]:
    """The prompt of a job with what is known of it; others: seconds of the work that belong to other jobs."""
    job, sample = work.job, work.drawn.sample
    trained_on = training_hash(sample.train)
    learned = Learned(
        method=job.taught(sample.class_names),
        prompt=prompt,
        class_names=sample.class_names,
        template=job.template,
        model=job.model,
        weight_hash=job.clip.weight_hash,
        facts=_facts(job, work.drawn, trained_on, written=work.at is not None),
    )
    if job.dataset.several:
        seen, names = sample.val or sample.train, sample.class_names
        logits = Classifier(job.clip, learned.method, prompt, names, job.template).logits(seen, job.images)
        learned = replace(learned, facts={**learned.facts, **fitted(logits, seen, names).facts})
    began, features = work.drawn.began
    return learned, Learning(
        seconds=(task.start.seconds if task.start else 0.0) + time.perf_counter() - began - others,
        seconds_features=job.images.seconds - features,
        num_train=len(sample.train) if job.method.learner is not None else 0,
        num_val=len(sample.val),
        skipped=work.drawn.skipped,
        short_classes=dict(sample.short),
        val_from="training images" if sample.held_out else "",
        weights=weights_found(work.at, config_hash) if work.at is not None else {},
        config_hash=config_hash,
        training_hash=trained_on,
    )


def _facts(job: Job, drawn: Drawn, trained_on: str, *, written: bool) -> dict[str, object]:
    """What the artifact says of its learning."""
    return {
        "dataset": job.dataset.name,
        **({"data": job.asked["data"]} if "data" in job.asked else {}),
        "shots": job.shots,
        "seed": job.seed,
        "subset": job.subset,
        "recipe": job.recipe,
        "choices": job.choices,
        **({"split_hash": drawn.split.hash} if written else {}),
        "training_hash": trained_on,
        **({"init": job.init} if job.init else {}),
        **({"teacher": job.asked["teacher"]} if "teacher" in job.asked else {}),
    }


ASKED = ("dataset", "protocol", "subset", "split_hash", "skipped", "test_of", "folds")
KNOWN = ("weights", "config_hash", "num_train", "num_val", "val_from", "short_classes")
"""Fields of a record that are those of `Questions`, and of `Learning`."""


def test(
    learned: Learned, learning: Learning, asked: Questions, images: Images, *, recipe_hash: str
) -> tuple[Record, Predictions | None]:
    """The record of a prompt on some questions, with its answers (None without test images).

    What is known of its learning: `learning`, and the facts of `learned`. UserError: a prompt for its own classes alone is asked about
    others.
    """
    began, features = time.perf_counter(), images.seconds
    names, facts, method = asked.class_names, learned.facts, learned.method
    check_classes(method.prompt, learned.class_names, names, labelled=True)
    classifier = Classifier(images.clip, method, learned.prompt, names, asked.template)
    sure, val_top1 = Confidence(temperature=learned.temperature), learning.val_top1
    if asked.val:
        sure, val_top1 = _validated(classifier, asked.val, images, several=of(learned) is not None)
    fields, answers = examine(classifier, asked, images, temperature=sure.temperature, several=of(learned))
    record = Record(
        method=method.name,
        model=learned.model,
        shots=facts.get("shots"),
        seed=int(facts.get("seed") or 0),
        setting=method.setting,
        source="" if (source := str(facts.get("dataset", ""))) == asked.dataset else source,
        init=str(facts.get("init", "")),
        recipe=str(facts.get("recipe", "")),
        recipe_hash=recipe_hash,
        choices=str(facts.get("choices", "")),
        options=dict(method.options),
        epochs=0 if facts.get("shots") == 0 else method.epochs,
        seconds=learning.seconds + time.perf_counter() - began,
        seconds_features=learning.seconds_features + images.seconds - features,
        val_top1=val_top1,
        parameters=learned.num_parameters,
        **{name: getattr(asked, name) for name in ASKED},
        **{name: getattr(learning, name) for name in KNOWN},
        **dataclasses.asdict(sure),
        **fields,
    )
    return record, answers


def _validated(
    classifier: Classifier, val: Sequence[Sample], images: Images, *, several: bool
) -> tuple[Confidence, float]:
    """How sure the answers are, and how many of them are right, percent. Several labels for an image have thresholds instead."""
    logits, truth = classifier.logits(val, images), np.array([one.label for one in val])
    sure = Confidence() if several else confidence_of(logits, truth)
    return sure, float(100 * right_of(logits, val).mean())


def start_line(clip: Clip, method: Method, lesson: Lesson, images: Images, *, done: int = 0) -> str:
    """For example: ``coop on pocket-s: 3,072 numbers are learned, 5,373,889 stay frozen; 40 classes, 640 training images, ...``.

    done: epochs that are behind it, where a run goes on. Some steps are taken to time them (`duration.measure`).
    """
    schedule = method.schedule
    prompt = new_prompt(clip, method.prompt, len(lesson.class_names), lesson.seed)
    learned = sum(parameter.numel() for parameter in prompt.parameters())
    frozen = sum(parameter.numel() for parameter in clip.parameters())
    steps = len(batches(len(lesson.samples), schedule.batch, seed=lesson.seed, epoch=0))
    words = {"epochs": "a fresh crop each epoch", "centre": "not cropped"}
    views = (
        words[lesson.views]
        if isinstance(lesson.views, str)
        else f"{min(lesson.views, schedule.epochs)} random crops each"
    )
    need = estimate_step(clip, method, lesson)
    part = f", {need.max_rows} of {need.rows} text rows at a time" if need.max_rows is not None else ""
    return (
        f"{method.name} on {clip.name}: {learned:,} numbers are learned, {frozen:,} stay frozen; {len(lesson.class_names)} classes, "
        f"{len(lesson.samples)} training images, {views}; {schedule.epochs} epochs of {steps} steps; about "
        f"{need.total / 2**30:.2g} GiB of memory{part}; "
        f"{said_of(measure(clip, method, lesson, images, max_rows=need.max_rows, done=done))}."
    )


def said_of(duration: Duration) -> str:
    """For example: ``about 12 min (0.21 s a step, timed on 2; 12,800 pictures to encode, 0.04 s each)``."""
    first = f"; {duration.images:,} pictures to encode, {duration.image:.2g} s each" if duration.images else ""
    return f"{in_words(duration.seconds)} ({duration.step:.2g} s a step, timed on {duration.timed}{first})"
