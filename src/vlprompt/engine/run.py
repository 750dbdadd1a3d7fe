"""A run directory: every seed of one method on one data set, each from its images to its record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vlprompt import artifact, disk, reading, records
from vlprompt.artifact import Learned
from vlprompt.data import Dataset, FewShot, Sample, Split, open_dataset, restrict, split_by_rule, write_split
from vlprompt.disk import locked
from vlprompt.engine.checkpoint import CHECKPOINT, Checkpoints, State, tracked, weights_found
from vlprompt.engine.config import Resolved, RunConfig, default_views, differences
from vlprompt.engine.duration import Duration, measure
from vlprompt.engine.evaluate import Examined, accuracy, best_words, classifier_of, examine, training_hash
from vlprompt.engine.images import Images, open_images
from vlprompt.engine.learn import learn
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.optim import batches
from vlprompt.engine.precision import generator, reset_peak, resolve_device, slow_note
from vlprompt.engine.sampling import draw, said_of_held_out, said_of_short, said_of_skipped
from vlprompt.engine.train import Lesson, estimate_step, in_words, new_prompt
from vlprompt.errors import DATA, UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import ignored, recipe_of, resolve, whose
from vlprompt.records import Record
from vlprompt.towers import Clip, load
from vlprompt.types import Method, Steps, Views

CONFIG, SPLIT = "config.json", "split.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all seeds of a run share."""

    config: RunConfig
    clip: Clip
    method: Method
    recipe: str
    dataset: Dataset
    images: Images
    teacher: Images | None = None
    """Images as another model sees them, which teaches."""
    init: str = ""
    """SHA-256 of the learned tensors that the method's prompt begins with."""

    @property
    def views(self) -> Views:
        return self._views if self.config.views is None else self.config.views

    @property
    def _views(self) -> Views:
        return default_views(self.recipe, self.dataset.name, wanted=self.config.recipe)

    @property
    def template(self) -> str:
        return self.config.template or recipe_template(self.recipe, self.dataset) or self.dataset.template

    @property
    def choices(self) -> str:
        """Whose the settings are, as `whose` says it."""
        config = self.config
        changed = config.template is not None or bool(self.init) or self.views != self._views
        return whose(
            self.method,
            config.overrides,
            self.recipe,
            dataset=self.dataset.name,
            shots=0 if self.method.learner is None else config.shots,
            changed=changed,
        )


def train_run(config: RunConfig, observer: Observer = SILENT) -> list[Record]:
    """Learn and test every seed of a run; finished seeds of the same configuration are read back, not repeated.

    UserError: anything that the user can mend, named. KeyboardInterrupt leaves a run that `resume` goes on with.
    """
    recipe = recipe_of(config.method, config.protocol, config.model, config.recipe)
    resolve(config.method, config.overrides, shots=config.shots, recipe=recipe)  # refused before anything is read
    for name in ignored(config.method, config.overrides):
        observer.note(f"{config.method} takes no gradient steps: {name} is ignored.")
    _require_own(config.out, resume=config.resume)
    dataset = split_by_rule(open_dataset(config.data, strict=config.strict))
    for note in dataset.notes:
        observer.note(note)
    clip = load(config.model, device=resolve_device(config.device), dtype=config.dtype)
    if (said := slow_note(clip.dtype, clip.device)) is not None:
        observer.note(said)
    images = open_images(clip, config.cache, observer)
    method, init = begun(config, dataset, clip, recipe)
    setup = Setup(
        config=config,
        clip=clip,
        method=method,
        recipe=recipe,
        dataset=dataset,
        images=images,
        teacher=teacher_of(config, method, clip, observer),
        init=init,
    )
    with locked(config.out):
        out = []
        for seed in config.seeds:
            record = run_seed(setup, seed, observer)
            observer.finished(record)
            out.append(record)
        return out


def teacher_of(config: RunConfig, method: Method, clip: Clip, observer: Observer) -> Images | None:
    """The images as the other model that teaches sees them. UserError where the method has no teacher."""
    if config.teacher is None:
        return None
    if "teacher_logits" not in method.needs:
        raise UserError(
            f"{method.name!r} compares no answers with a teacher's, so --teacher changes nothing. Leave it away, or use rpp or prograd."
        )
    other = load(config.teacher, device=clip.device, dtype=config.dtype)
    return open_images(other, config.cache, observer)


def recipe_template(recipe: str, dataset: Dataset) -> str | None:
    """The template that a named recipe has of its own for a data set."""
    return recipes.read(recipe).template(dataset.name) if recipe else None


def begun(config: RunConfig, dataset: Dataset, clip: Clip, recipe: str) -> tuple[Method, str]:
    """The method on this data set, with the prompt that it begins with; and the SHA-256 of that one's tensors, or "".

    UserError, before an image is read, where the prompt cannot be built for this model (image tokens for a ResNet, words of other
    lengths), or where `config.init` does not fit, as `artifact.start_from`.
    """
    method = resolve(
        config.method, config.overrides, shots=config.shots, recipe=recipe, dataset=dataset.name, facts=clip.facts
    )
    classes = restrict(dataset, config.subset).class_names
    if config.init is not None:
        return artifact.start_from(config.init, method, clip, len(classes))
    with warnings.catch_warnings(action="ignore"):  # learning builds it again, and warns then
        method.prompt.build(clip.facts, generator("begun"), len(classes))
    return method, ""


def run_seed(setup: Setup, seed: int, observer: Observer) -> Record:
    """One seed: sample, learn, test, and write everything; `result.json` last."""
    config, clip, images = setup.config, setup.clip, setup.images
    directory = config.out / f"seed{seed}"
    began, features_began = time.perf_counter(), images.seconds
    reset_peak(clip.device)
    sample, test, skipped = _usable(setup, seed)
    split = Split(train=sample.train, val=sample.val, test=test)
    chosen = resolved(setup, seed, sample, split)
    if (record := _claim(directory, chosen, config)) is not None:
        return record
    if skipped:
        observer.note(f"seed {seed}: {said_of_skipped(skipped)} They are listed in result.json.")
    if sample.held_out:
        observer.note(f"seed {seed}: {said_of_held_out(setup.dataset, sample)}")
    prompt, before = learn_seed(setup, sample, split, chosen, directory, observer)
    parts = _examine(setup, sample, test, prompt)
    record = Record(
        method=setup.method.name,
        dataset=setup.dataset.name,
        protocol=config.protocol,
        shots=config.shots,
        seed=seed,
        subset=config.subset,
        setting=setup.method.setting,
        recipe=setup.recipe,
        recipe_hash=recipes.hash_of(setup.recipe),
        choices=setup.choices,
        options=dict(setup.method.options),
        weights=weights_found(directory, chosen.hash),
        epochs=setup.method.epochs,
        split_hash=split.hash,
        config_hash=chosen.hash,
        init=setup.init,
        seconds=before + time.perf_counter() - began,
        seconds_features=images.seconds - features_began,
        num_train=len(sample.train) if setup.method.learner is not None else 0,
        num_val=len(sample.val),
        val_from="training images" if sample.held_out else "",
        skipped=skipped,
        short_classes=dict(sample.short),
        parameters=sum(one.numel() for one in prompt.parameters()),
        **parts.fields,
    )
    artifact.save(directory, _learned(setup, sample, prompt, record))
    records.write(directory, record, parts.predictions)
    return record


def learn_seed(
    setup: Setup, sample: FewShot, split: Split, chosen: Resolved, directory: Path, observer: Observer
) -> tuple[nn.Module, float]:
    """The learning of one seed, from its checkpoint on if there is one; and the seconds that it took before that.

    `split` is what `split.json` says. No image of its test part is read: learning is given `sample` alone.
    """
    config = setup.config
    if sample.short:
        observer.note(f"seed {chosen.seed}: {said_of_short(sample, config.shots)}")
    disk.write_json(directory / CONFIG, chosen.document(config))
    write_split(directory / SPLIT, split, dataset=setup.dataset.name)
    plain = Checkpoints(directory=directory, config_hash=chosen.hash, every=config.save_every)
    with tracked(plain, config.track) as checkpoints:
        start = checkpoints.load()
        prompt = _learn(setup, sample, chosen.seed, start, checkpoints, observer)
    return prompt, start.seconds if start else 0.0


def resolved(setup: Setup, seed: int, sample: FewShot, split: Split) -> Resolved:
    """All that decides the result of a seed."""
    config = setup.config
    return Resolved(
        method=setup.method.name,
        options=dict(setup.method.options),
        recipe=setup.recipe,
        weight_hash=setup.clip.weight_hash,
        dtype=config.dtype,
        dataset=setup.dataset.name,
        template=setup.template,
        split_hash=split.hash,
        training_hash=training_hash(sample.train),
        shots=config.shots,
        subset=config.subset,
        seed=seed,
        views=setup.views,
        init=setup.init,
        teacher=setup.teacher.clip.weight_hash if setup.teacher else "",
    )


def _learn(
    setup: Setup, sample: FewShot, seed: int, start: State | None, checkpoints: Checkpoints, observer: Observer
) -> nn.Module:
    lesson = Lesson(
        samples=sample.train,
        class_names=sample.class_names,
        template=setup.template,
        seed=seed,
        views=setup.views,
        max_memory=setup.config.max_memory,
        teacher=setup.teacher,
    )
    clip, method, images = setup.clip, setup.method, setup.images
    if isinstance(method.learner, Steps):
        observer.note(start_line(clip, method, lesson, images, done=start.epoch if start else 0))
    return learn(clip, method, lesson, sample.val, images, start=start, checkpoints=checkpoints, observer=observer)


def _examine(setup: Setup, sample: FewShot, test: Sequence[Sample], prompt: nn.Module) -> Examined:
    """The learned prompt on the test images, and on the validation images."""
    names = sample.class_names
    classifier = classifier_of(setup.clip, setup.method, prompt, names, setup.template)
    words = best_words(setup.clip, names, setup.template, setup.images, sample.val or sample.train)
    examined = examine(
        classifier,
        test,
        setup.images,
        template=setup.template,
        class_names=names,
        model=setup.config.model,
        words=words,
    )
    examined.fields["val_top1"] = accuracy(classifier, sample.val, setup.images)
    return examined


def _learned(setup: Setup, sample: FewShot, prompt: nn.Module, record: Record) -> Learned:
    """What is saved as the artifact of a seed."""
    return Learned(
        method=setup.method,
        prompt=prompt,
        class_names=sample.class_names,
        template=setup.template,
        model=setup.config.model,
        weight_hash=setup.clip.weight_hash,
        facts={
            "dataset": setup.dataset.name,
            "data": setup.config.data,
            "shots": setup.config.shots,
            "seed": record.seed,
            "subset": setup.config.subset,
            "recipe": setup.recipe,
            "choices": setup.choices,
            "split_hash": record.split_hash,
            "training_hash": training_hash(sample.train),
            **({"init": setup.init} if setup.init else {}),
            **({"teacher": setup.config.teacher} if setup.teacher else {}),
            **({"hand_written": record.hand_written} if record.hand_written else {}),
            "metrics": {"top1": record.top1, "zero_shot_top1": record.zero_shot_top1, "val_top1": record.val_top1},
        },
    )


def _usable(setup: Setup, seed: int) -> tuple[FewShot, tuple[Sample, ...], dict[str, str]]:
    """The sample of a seed and the test images, all of which decode, and what was left out with the reason."""
    config, dataset, images = setup.config, setup.dataset, setup.images
    skipped = {skip.id: skip.reason for skip in dataset.skipped}
    sample = draw(
        dataset,
        images,
        skipped,
        shots=config.shots,
        seed=seed,
        subset=config.subset,
        strict=config.strict,
        hold_out=setup.method.chooses,
    )
    test = images.usable(restrict(dataset, config.subset).test, skipped, strict=config.strict)
    return sample, test, skipped


def _require_own(out: Path, *, resume: bool) -> None:
    """UserError where the run directory is a file, or holds something that is no run."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must be a directory.")
    if resume or not out.is_dir():
        return
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if names and not any(name.startswith("seed") for name in names):
        raise UserError(
            f"{out} is not empty and holds no run (found {', '.join(names[:3])}). Use another --out, or --resume to write "
            f"beside what is there."
        )


def _claim(directory: Path, chosen: Resolved, config: RunConfig) -> Record | None:
    """Whether a seed's directory may be worked in; its record if it is finished already.

    UserError: another configuration's work is there, or unfinished work and nobody said to go on with it.
    """
    done, begun = records.finished(directory), (directory / CHECKPOINT).is_file()
    if not done and not begun:
        return None
    before = reading.json_object(directory / CONFIG)
    if before.get("hash") != chosen.hash:
        changed = differences(before, chosen.document(config))
        raise UserError(
            f"{directory} holds {'finished' if done else 'unfinished'} work of another configuration: {'; '.join(changed)}. "
            f"Use another --out, or the options that it was begun with."
        )
    if done:
        record = records.read(directory)
        if record.parameters and not (directory / artifact.FACTS).is_file():
            raise UserError(
                f"{directory} has a finished record, but its prompt ({artifact.FACTS}) is gone. Take {records.RESULT} away to learn it "
                "again, or put the prompt back.",
                exit_code=DATA,
            )
        return record
    if not config.resume:
        raise UserError(f"{directory} holds unfinished work. Go on with it with --resume, or use another --out.")
    return None


def start_line(clip: Clip, method: Method, lesson: Lesson, images: Images, *, done: int = 0) -> str:
    """For example: ``coop on pocket-s: 3,072 numbers are learned, 5,373,889 stay frozen; 40 classes, 640 training images, ...``.

    done: epochs that are behind it, where a run goes on. Some steps are taken to time them (`duration.measure`).
    """
    schedule = method.schedule
    prompt = new_prompt(clip, method.prompt, len(lesson.class_names), lesson.seed)
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
