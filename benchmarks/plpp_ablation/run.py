"""Training and measuring the cells of the ablation: few-shot training images, validation images, never test images."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.plpp_ablation.records import AblationCell, append, read
from benchmarks.plpp_ablation.sweep import HOST, PULL, Setting, settings
from benchmarks.plpp_ablation.table import render
from vlprompt import disk
from vlprompt.data import Dataset, Subset, open_dataset, restrict, split_by_rule, split_hash
from vlprompt.disk import locked
from vlprompt.engine.checkpoint import State, Watch
from vlprompt.engine.config import Means, default_views, hashed
from vlprompt.engine.evaluate import Classifier, accuracy
from vlprompt.engine.images import Images, open_model
from vlprompt.engine.job import Job, Work, learn_all, prepare
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.train import new_prompt, prompt_at
from vlprompt.errors import NUMERICAL, UserError, data_error, unknown
from vlprompt.head import measure_head
from vlprompt.losses.consistency import AnchorOptions, anchor_terms
from vlprompt.losses.perplexity import perplexity
from vlprompt.losses.plpp import PlppOptions, labelled_tensors
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.prompts import Bare
from vlprompt.types import Method, Prompted, PromptSpec, Term, View

TABLE = "ablation.md"


def run_ablation(
    names: Sequence[str],
    model: str,
    seeds: Sequence[int],
    out: Path,
    observer: Observer = SILENT,
    *,
    host: str = "coop",
    overrides: Mapping[str, object] | None = None,
    shots: int = 16,
    only: Sequence[str] = (),
    cache: Path | None = None,
    device: str = "auto",
) -> list[AblationCell]:
    """Sweep PLPP's options on a host around its defaults; write `ablation.jsonl` and `ablation.md` into `out`.

    names: data sets as `--data` takes them. overrides: ``plpp.`` options move the centre of the sweep, all others (the
    host's options, schedule fields) hold for every setting. only: rows of the table to measure in addition to the host; empty: all.
    Cells that `out` has already are not repeated. UserError: a data set without validation images or with one class; a host
    with class-specific contexts; unknown names and options; trials that could not be learned, after the others are done.
    """
    given = dict(overrides or {})
    centre = {name: value for name, value in given.items() if name.startswith("plpp.")}
    common = {name: value for name, value in given.items() if name not in centre}
    sweep = _chosen(settings(host, centre), only)
    _check(names, seeds, resolve(host, common).prompt, observer)
    images = open_model(model, "float32", device, cache)
    observer.note(measure_head(images.clip).line())
    datasets = [_without_test(name, images) for name in names]
    bench = Bench(images=images, model=model, shots=shots, common=common)
    with locked(out):
        done = {cell.key: cell for cell in read(out)}
        failed: list[str] = []
        asked = [
            bench.trial(setting, subset, dataset, seed)
            for setting in sweep
            for subset in setting.subsets
            for dataset in datasets
            for seed in seeds
        ]
        observer.stage("ablation", len(asked))
        for group in _together([one for one in asked if one.key not in done]):
            for trial, cell in zip(group, bench.measure(group), strict=True):
                if isinstance(cell, UserError):
                    failed.append(f"{trial.setting.name} on {trial.job.dataset.name}, seed {trial.job.seed}: {cell}")
                    observer.note(failed[-1])
                    continue
                done[cell.key] = cell
                append(out, cell)
                observer.advance(1, dict(cell.accuracy))
        cells = [done[one.key] for one in asked if one.key in done]
        disk.write_text(out / TABLE, render(cells))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(asked)} trials could not be learned; the others are in {out / TABLE}. The first: {failed[0]}",
            exit_code=NUMERICAL,
        )
    return cells


def _chosen(sweep: Sequence[Setting], only: Sequence[str]) -> list[Setting]:
    """The host and the settings asked for by name; all where none is."""
    names = [setting.name for setting in sweep]
    for name in only:
        if name not in names:
            raise unknown("setting", name, names)
    return [setting for setting in sweep if not only or setting.name in (HOST, *only)]


TOGETHER = 6
"""Trials on one set that are learned in the same steps (project's choice)."""


def _together(trials: Sequence[Measurement]) -> list[list[Measurement]]:
    """Trials that learn from the same classes, some at a time, in the order of their first."""
    groups: list[list[Measurement]] = []
    last: dict[tuple[str, str], list[Measurement]] = {}
    for trial in trials:
        where = (trial.job.dataset.name, trial.job.subset)
        if len(last.get(where, ())) in (0, TOGETHER):
            groups.append([])
            last[where] = groups[-1]
        last[where].append(trial)
    return groups


def _check(names: Sequence[str], seeds: Sequence[int], prompt: PromptSpec, observer: Observer) -> None:
    if len(set(names)) < len(names):
        raise UserError(f"data sets {', '.join(names)}: one is named twice. Name each once.")
    if prompt.layout is not None and not prompt.layout.shared:
        raise UserError(
            "the ablation learns on base classes and measures on novel ones, which a context for each class cannot answer "
            "for. Use per_class=false."
        )
    if len(names) < 2 or len(seeds) < 3:
        observer.note("Fewer than two data sets or three seeds: too little to choose defaults by.")


def _without_test(name: str, images: Images) -> Dataset:
    """A data set whose test images are gone before anything is learned or measured."""
    dataset = split_by_rule(open_dataset(name, val_as_test=False))
    train, val = (images.usable(part, {}, strict=False) for part in (dataset.train, dataset.val))
    dataset = dataclasses.replace(dataset, train=train, val=val, test=(), tested=None)
    halves: tuple[Subset, ...] = ("base", "novel")
    for subset in halves:
        if not restrict(dataset, subset).val:
            raise data_error(
                f"{name}: no validation images for its {subset} classes; the ablation measures on those alone. Give a data "
                "set of two or more classes with validation images (a folder val, or undivided with 3 or more a class)."
            )
    return dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One cell to be measured, and what is seen of it while it learns."""

    setting: Setting
    job: Job
    key: str
    by_epoch: list[float] = field(default_factory=list)
    logged: list[Mapping[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all cells share."""

    images: Images
    model: str
    shots: int
    common: Mapping[str, object]
    zero_shots: dict[tuple[str, str], float] = field(default_factory=dict)

    def trial(self, setting: Setting, subset: Subset, dataset: Dataset, seed: int) -> Measurement:
        """A cell to be measured, with its method's few-shot recipe; a control draws its labels anew with every seed."""
        overrides = {**self.common, **setting.overrides}
        if setting.factor == "control":
            overrides["plpp.labels_seed"] = seed
        recipe = recipe_of(setting.method, "few-shot", self.model)
        job = prepare(
            self.images,
            dataset,
            setting.method,
            model=self.model,
            shots=self.shots,
            seed=seed,
            overrides=overrides,
            recipe=recipe,
            subset=subset,
            template=dataset.template,
            views=default_views(recipe, dataset.name),
        )
        decides = {
            "options": dict(job.method.options),
            "method": setting.method,
            "data": split_hash(dataset.train, dataset.val, ()),
            "names": dataset.class_names,
            "template": job.template,
            "weights": job.clip.weight_hash,
            "dtype": str(job.clip.dtype),
            "shots": self.shots,
            "views": job.views,
            "seed": seed,
            "subset": subset,
            "setting": setting.name,
            **({"balance": setting.balance} if setting.rival else {}),
        }
        return Measurement(setting=setting, job=job, key=str(hashed(decides)["hash"]))

    def measure(self, trials: Sequence[Measurement]) -> Iterator[AblationCell | UserError]:
        """Learn on the few-shot samples of the seeds, together; measure on all validation images. UserError: one that failed."""
        began = time.perf_counter()
        found = learn_all([self._work(trial) for trial in trials], Means())
        for trial, done in zip(trials, found, strict=True):
            if isinstance(done, UserError):
                yield done
            else:
                yield self._cell(trial, done[0].prompt, (time.perf_counter() - began) / len(trials))

    def _work(self, trial: Measurement) -> Work:
        """What is learned; the accuracy after every epoch is noted."""
        job, drawn = trial.job, trial.job.draw()
        spec, names = job.method.prompt, drawn.sample.class_names

        def measure(state: State) -> None:
            current = prompt_at(state, job.clip, spec, len(names), job.seed)
            trial.by_epoch.append(self._accuracy(job.method, current, job.dataset, job.subset))

        method = job.method
        if trial.setting.rival:
            method = _with_rival(method, trial.setting, new_prompt(job.clip, spec, len(names), job.seed))
        watch = Watch(after=measure, logged=trial.logged.append)
        return Work(job=dataclasses.replace(job, method=method), drawn=drawn, checkpoints=watch)

    def _cell(self, trial: Measurement, prompt: nn.Module, seconds: float) -> AblationCell:
        setting, job = trial.setting, trial.job
        dataset, clip = job.dataset, job.clip
        parts: tuple[Subset, ...] = ("base", "novel") if job.subset == "base" else ("all",)
        for part in parts:
            if (dataset.name, part) not in self.zero_shots:
                self.zero_shots[dataset.name, part] = self._accuracy(resolve("zero-shot"), Bare(), dataset, part)
        with torch.no_grad():
            context = clip.context(prompt())
        head = measure_head(clip).raw
        return AblationCell(
            setting=setting.name,
            factor=setting.factor,
            dataset=dataset.name,
            seed=job.seed,
            subset=job.subset,
            accuracy={part: self._accuracy(job.method, prompt, dataset, part) for part in parts},
            zero_shot={part: self.zero_shots[dataset.name, part] for part in parts},
            by_epoch=tuple(trial.by_epoch),
            gradient_ratios=_mean_ratios(trial.logged),
            perplexity=perplexity(context, clip.vocabulary),
            num_val={part: len(restrict(dataset, part).val) for part in parts},
            head={name: getattr(head, name) for name in ("natural", "shuffled", "random", "above")},
            method=job.method.name,
            options=dict(job.method.options),
            model=self.model,
            shots=self.shots,
            seconds=seconds,
            key=trial.key,
        )

    def _accuracy(self, method: Method, prompt: nn.Module, dataset: Dataset, part: Subset) -> float:
        """Percent of the validation images of these classes."""
        there = restrict(dataset, part)
        assert not there.test, "the ablation sees no test images"
        classifier = Classifier(self.images.clip, method, prompt, there.class_names, dataset.template)
        value = accuracy(classifier, there.val, self.images)
        assert value is not None, "checked before: there are validation images"
        return value


def _with_rival(method: Method, setting: Setting, start: nn.Module) -> Method:
    """The host with another regulariser than PLPP."""

    def labelled(prompted: Prompted) -> tuple[Tensor, ...]:
        return labelled_tensors(prompted, PlppOptions())

    if setting.rival == PULL:
        with torch.no_grad():
            (begun, *_) = labelled(start())

        def distance(view: View) -> Tensor:
            length: Tensor = torch.linalg.vector_norm(labelled(view.prompted)[0] - begun)
            return length

        term = Term(name="rival", score=distance, formula="L_pull = |ctx - ctx at the start|", over_images=False)
    else:
        (term,) = anchor_terms(AnchorOptions())
    balanced = dataclasses.replace(term, name="rival", balance=setting.balance, labelled=labelled)
    return dataclasses.replace(method, learner=dataclasses.replace(method.steps, terms=(*method.terms, balanced)))


def _mean_ratios(logged: Iterable[Mapping[str, object]]) -> dict[str, float]:
    """Term -> mean of the loop's gradient ratios over the epochs in which it was measured."""
    found: dict[str, list[float]] = {}
    for values in logged:
        ratios = values["gradient_ratios"]
        assert isinstance(ratios, dict)
        for name, value in ratios.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}
