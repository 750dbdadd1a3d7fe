"""One run of pretraining, from its data to its artifacts: `OUT/best` and `OUT/last`, and `OUT/pretraining.json` written last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlprompt import artifact, disk, reading
from vlprompt.artifact import Learned
from vlprompt.data import Corpus
from vlprompt.disk import default_root, locked
from vlprompt.engine.checkpoint import CHECKPOINT, State
from vlprompt.engine.config import claimed, hashed, require_own
from vlprompt.engine.distributed import Alone, joined, own_device, restarted
from vlprompt.engine.forward import Forward
from vlprompt.engine.images import Images, open_model
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.precision import peak_mib, reset_peak, resolve_device, versions
from vlprompt.engine.teacher import Teacher, open_teacher
from vlprompt.engine.train import estimate_step, forward_of, new_prompt, train
from vlprompt.errors import UserError, data_error
from vlprompt.pretrain import progress as record
from vlprompt.pretrain.config import PretrainConfig, chooses, pretraining_method, said_of_processes, whose_choices
from vlprompt.pretrain.feed import StepViews, Stream
from vlprompt.pretrain.heldout import Slice, alike, all_classes, zero_shot
from vlprompt.pretrain.order import StepOrder
from vlprompt.pretrain.progress import Progress, StepBook
from vlprompt.pretrain.source import open_corpus
from vlprompt.types import Features, Method

CONFIG, SUMMARY = "config.json", "pretraining.json"
BEST, LAST = "best", "last"
CHUNK_ROWS = 4096
"""Text rows that are run at once without --max-memory: about 1.2 GiB at ViT-B/16's size in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run is made of, the same on every rank but for the rank."""

    config: PretrainConfig
    method: Method
    corpus: Corpus
    images: Images
    ranks: Alone
    observer: Observer
    teacher: Teacher | None = None

    @property
    def template(self) -> str:
        return self.config.template or self.corpus.template


def pretrain_run(config: PretrainConfig, observer: Observer = SILENT) -> dict[str, Any]:
    """Pretrain a prompt and give the summary; a finished run of the same configuration is read back.

    Under torchrun every process calls it; only rank 0 writes and observes. UserError: anything that the user can mend, named.
    """
    device = resolve_device(own_device(config.device))
    with joined(device) as ranks:
        observer = observer if ranks.rank == 0 else SILENT
        pretraining_method(config, ranks.world)  # refused before anything is read
        corpus = open_corpus(
            config.data,
            config.cache or default_root(),
            shots=config.shots,
            seed=config.seed,
            class_names=config.class_names,
        )
        for note in corpus.notes:
            observer.note(note)
        images = open_model(config.model, config.dtype, str(device), config.cache, observer)
        method = pretraining_method(config, ranks.world, images.clip.facts)
        for note in (said_of_processes(config, method, ranks.world), said_of_best(config, corpus)):
            if note:
                observer.note(note)
        setup = Setup(
            config=config,
            method=method,
            corpus=corpus,
            images=images,
            ranks=ranks,
            observer=observer,
            teacher=open_teacher(config.teacher, method, images.clip, config.cache, observer),
        )
        with locked(config.out) if ranks.rank == 0 else nullcontext():
            return _run(setup)


def _run(setup: Setup) -> dict[str, Any]:
    config, ranks = setup.config, setup.ranks
    document = document_of(setup)
    config_hash = str(document["hash"])
    done, start = _claim(setup, document)
    if done is not None:
        return done
    reset_peak(setup.images.clip.device)
    feed = feed_of(setup)
    need = estimate_step(setup.images.clip, setup.method, feed)
    parted = config.max_memory is None and need.rows > CHUNK_ROWS
    forward = forward_of(setup.images.clip, setup.method, feed, max_rows=CHUNK_ROWS if parted else need.max_rows)
    chosen_by_best = chooses(config, setup.corpus.held_out_part)
    state, progress = start or (None, Progress())
    held = _slices(setup, feed, forward)
    book = StepBook(
        plan=feed.plan,
        copies=feed.copies,
        config=config,
        max_skipped=max(10, feed.number // 100) if config.max_skipped is None else config.max_skipped,
        progress=progress,
        ranks=ranks,
        config_hash=config_hash,
        test=lambda prompt: _test(forward, held, prompt),
        better=lambda prompt: _save(setup, BEST, prompt, progress) if chosen_by_best else None,
    )
    base = _zero_shot(setup, feed, forward, held)
    setup.observer.note(said(setup, feed, base.get("zero_shot_top1")))
    how: dict[str, Any] = {"start": state, "book": book, "forward": forward}
    prompt = train(setup.images.clip, setup.method, feed, setup.images, observer=setup.observer, **how)
    if not progress.images:
        raise data_error(
            f"none of the {len(setup.corpus.train):,} training images could be used, the first: "
            f"{next(iter(progress.skipped.items()), ('none', 'nothing was read'))}. Nothing was learned."
        )
    if ranks.rank == 0:
        _save(setup, LAST, prompt, progress)
        if progress.best_top1 is None or not chosen_by_best:
            _save(setup, BEST, prompt, progress)
    return _summary(setup, config_hash, feed.plan.epochs, progress, base)


def document_of(setup: Setup) -> dict[str, object]:
    """What `config.json` holds: all that decides the result, its hash, and, for people, where model and data were. Where it
    runs, on how many processes and what is logged do not decide the result; the number of threads decides its last bits, and is
    not hashed."""
    config, corpus, sampling = setup.config, setup.corpus, setup.method.steps.classes
    decides = {
        "method": setup.method.name,
        "options": dict(setup.method.options),
        "recipe": config.recipe_name,
        "classes_per_step": sampling.num if sampling else None,
        "losses": [f"{term.weight:g} {term.formula}" for term in setup.method.terms],
        "weight_hash": setup.images.clip.weight_hash,
        "dtype": config.dtype,
        "data": hashlib.sha256(f"{corpus.train.identity} {corpus.held_out.identity}".encode()).hexdigest(),
        "class_names": hashlib.sha256("\n".join(corpus.class_names).encode()).hexdigest(),
        "template": setup.template,
        "seed": config.seed,
        "views": config.seen,
        "copies": config.num_copies,
        "held_out": config.held_out,
        "threads": torch.get_num_threads(),
    }
    asked = {"model": config.model, "data": config.data}
    if setup.teacher is not None:
        decides["teacher"], asked["teacher"] = setup.teacher.hash, str(config.teacher)
    return hashed(decides, but=("threads",)) | {"asked": asked}


def _claim(setup: Setup, document: dict[str, object]) -> tuple[dict[str, Any] | None, tuple[State, Progress] | None]:
    """(the summary of a finished run, the state of an unfinished one). Rank 0 looks, and tells the others.

    UserError: the directory holds another configuration's work, or unfinished work and nobody said to continue with it.
    """
    out, problem, done, data = setup.config.out, "", None, None
    if setup.ranks.rank == 0:
        try:
            done, data = _claimed(setup.config, document)
        except UserError as error:
            problem = str(error)
    problem, done, data = setup.ranks.objects((problem, done, data))[0]
    if problem:
        raise UserError(problem)
    if done is not None:
        return done, None
    start = record.restored(data, out, str(document["hash"])) if data is not None else None
    if setup.ranks.rank == 0:
        record.cut_logs(out, start[1].step if start else 0)
        disk.write_json(out / CONFIG, document)
    return None, start


def _claimed(config: PretrainConfig, document: dict[str, object]) -> tuple[dict[str, Any] | None, bytes | None]:
    out = config.out
    require_own(out, CONFIG, "pretraining")
    state = out / CHECKPOINT
    data = state.read_bytes() if state.is_file() else None
    done = claimed(
        out / CONFIG,
        document,
        result=out / SUMMARY,
        prompts=[out / name / artifact.FACTS for name in (BEST, LAST)],
        begun=data is not None,
        resume=config.resume or restarted(),
    )
    return (reading.json_object(out / SUMMARY), None) if done else (None, data)


def feed_of(setup: Setup) -> Stream:
    """The images and classes of every step. Features come from the cache for fixed views and a prompt of the text tower alone."""
    config, pool, schedule = setup.config, setup.corpus.train, setup.method.schedule
    look = StepViews(views=config.seen, copies=config.num_copies, seed=config.seed)
    return Stream(
        class_names=setup.corpus.class_names,
        template=setup.template,
        seed=config.seed,
        max_memory=config.max_memory,
        teacher=setup.teacher,
        ranks=setup.ranks,
        copies=config.num_copies,
        pool=pool,
        plan=StepOrder(len(pool), min(schedule.batch, len(pool)), schedule.epochs, seed=config.seed, runs=pool.runs),
        look=look,
        cached=look.fixed and not setup.method.prompt.reach.image_tower,
        workers=config.workers,
    )


def _slices(setup: Setup, feed: Stream, forward: Forward) -> dict[str, Slice]:
    """The held-out and the training images that are tested; none where there are no held-out ones."""
    number, corpus = setup.config.held_out, setup.corpus
    if not number or not len(corpus.held_out):
        return {}
    both = {"top1": corpus.held_out, "train_top1": corpus.train}
    return {
        name: Slice(pool, number, setup.images, forward, seed=feed.seed, cached=feed.cached)
        for name, pool in both.items()
    }


def _zero_shot(setup: Setup, feed: Stream, forward: Forward, held: Mapping[str, Slice]) -> dict[str, float | None]:
    """What the template says of the slices; of the training images only where their features are kept for learning anyway."""
    if not held:
        return {}
    text = _template_text(setup, forward)
    return {f"zero_shot_{name}": held[name].scores(text, None)[0] for name in held if name == "top1" or feed.cached}


def _test(forward: Forward, held: Mapping[str, Slice], prompt: nn.Module) -> dict[str, float | None]:
    if not held:
        return {}
    text = all_classes(forward, prompt)
    found: dict[str, float | None] = {}
    for name, one in held.items():
        found[name], found[f"{name.removesuffix('top1')}largest_loss"] = one.scores(text, prompt)
    return found


def _template_text(setup: Setup, forward: Forward) -> Features:
    """The template's class features; those of the teacher where it has the same."""
    names = setup.corpus.class_names
    if forward.frozen_text is not None and setup.method.teacher is None:
        return alike(forward.frozen_text, names)
    return zero_shot(forward, names, setup.template)


def said(setup: Setup, feed: Stream, base: float | None) -> str:
    """One line before learning."""
    corpus, plan, sampling = setup.corpus, feed.plan, setup.method.steps.classes
    prompt = new_prompt(setup.images.clip, setup.method.prompt, len(corpus.class_names), feed.seed)
    learned = sum(parameter.numel() for parameter in prompt.parameters())
    drawn = sampling.drawn(len(corpus.class_names)) if sampling else None
    seen = "all classes in every step" if drawn is None else f"{drawn + 1} classes for an image in a step"
    zero = "" if base is None else f"; zero-shot {base:.2f} % of the held-out images"
    return (
        f"{setup.method.name} on {setup.images.clip.name}: {learned:,} numbers are learned; {len(corpus.class_names):,} classes, {seen}; "
        f"{len(corpus.train):,} images, {plan.epochs} epochs of {plan.steps_per_epoch:,} steps of {plan.batch} images x "
        f"{setup.config.num_copies} on {setup.ranks.world} process(es){zero}."
    )


def said_of_best(config: PretrainConfig, corpus: Corpus) -> str:
    """Why `best` is the last prompt, where it is."""
    if not len(corpus.held_out) or not config.held_out or chooses(config, corpus.held_out_part):
        return ""
    return f"`best` is the last prompt: the held-out images of {corpus.name} are its {corpus.held_out_part} images, which choose nothing."


def _save(setup: Setup, name: str, prompt: nn.Module, progress: Progress) -> None:
    last = progress.tests[-1] if progress.tests else {}
    metrics = {key: last.get(key) for key in ("top1", "train_top1")}
    config = setup.config
    artifact.save(
        config.out / name,
        Learned(
            method=setup.method,
            prompt=prompt,
            class_names=setup.corpus.class_names,
            template=setup.template,
            model=config.model,
            weight_hash=setup.images.clip.weight_hash,
            facts={
                "dataset": setup.corpus.name,
                "data": config.data,
                "shots": config.shots,
                "seed": config.seed,
                "recipe": config.recipe_name,
                "choices": whose_choices(config, setup.corpus.name),
                "pretraining": {"steps": progress.step, "images": progress.images, "views": config.seen},
                "metrics": {f"held-out {key}": value for key, value in metrics.items() if value is not None},
            },
        ),
    )


def _summary(
    setup: Setup, config_hash: str, epochs: int, progress: Progress, base: Mapping[str, float | None]
) -> dict[str, Any]:
    """What the run gave; written by rank 0, and its being there means finished."""
    corpus = setup.corpus
    last = progress.tests[-1] if progress.tests else {}
    summary: dict[str, Any] = {
        "schema": record.SCHEMA,
        "method": setup.method.name,
        "model": setup.config.model,
        "dataset": corpus.name,
        "classes": len(corpus.class_names),
        "images": progress.images,
        "steps": progress.step,
        "epochs": epochs,
        "skipped": len(progress.skipped),
        "held_out_part": corpus.held_out_part if progress.tests else None,
        **{name: base.get(name) for name in ("zero_shot_top1", "zero_shot_train_top1")},
        **{name: last.get(name) for name in ("top1", "train_top1", "largest_loss", "train_largest_loss")},
        "best_top1": progress.best_top1,
        "best_step": progress.best_step,
        "kept": BEST if progress.tests and chooses(setup.config, corpus.held_out_part) else LAST,
        "tests": progress.tests,
        "seconds": round(progress.seconds, 3),
        "images_per_s": round(progress.images / progress.seconds, 3) if progress.seconds else None,
        "processes": setup.ranks.world,
        "peak_mib": peak_mib(setup.images.clip.device),
        "config_hash": config_hash,
        "versions": versions(),
    }
    if setup.ranks.rank == 0:
        disk.write_json(setup.config.out / SUMMARY, summary)
    return summary
