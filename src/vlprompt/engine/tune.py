"""Options of a method chosen on validation images, with optuna: `vlprompt tune`. No test image is read.

A trial is a run whose test images are the validation images: the same job, the same record. Each has its directory, and optuna's
journal stands next to them, so the same call goes on where another one was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlprompt import disk
from vlprompt.data import Dataset, split_by_rule
from vlprompt.data.samples import Tested
from vlprompt.disk import locked
from vlprompt.engine.config import Means, RunConfig, hashed, require_own, same_work
from vlprompt.engine.images import Images
from vlprompt.engine.job import Job
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.run import job_of, learned_and_tested, open_all
from vlprompt.errors import UserError, data_error
from vlprompt.methods.resolve import SCHEDULE_FIELDS, recipe_of, resolve
from vlprompt.records import Record
from vlprompt.types import Method

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

TUNE, JOURNAL, RECIPE, DEFAULT = "tune.json", "journal.log", "recipe.toml", "default"
PROTOCOL = "validation"
"""What the records of trials say: their images are not test images."""
RANDOM = 6
"""Trials at random, before the sampler looks at what was found (project's choice)."""
FACTORS = {
    "lr": 10.0,
    "weight": 8.0,
    "text_weight": 8.0,
    "image_weight": 8.0,
    "strength": 4.0,
    "rate": 10.0,
    "alpha": 4.0,
}
"""Option -> how far its default is left, down and up, where no range is given (project's choice)."""
RANGES = {
    "C": "0.01..100",
    "ratio": "0.1..0.9",
    "rank": "2,4,8",
    "plpp.balance": "off,0.1,0.3,1.0",
    "plpp.k": "10,100,all",
}
"""Option -> its range where none is given (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting, and what it was worth."""

    name: str
    """Of its directory: `default`, `trial3`."""
    settings: Mapping[str, object]
    """The options that are tuned; of the default its own values."""
    records: tuple[Record, ...]
    """One for each seed; empty where it failed."""
    problem: str = ""

    @property
    def accuracy(self) -> float:
        """Percent of validation images, the mean over seeds."""
        return statistics.fmean(record.top1 or 0.0 for record in self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """All trials on the same validation images."""

    default: Trial
    trials: tuple[Trial, ...]
    """In the order in which they were tried; each setting once."""
    recipe: Path
    """The best setting, as `train --recipe` takes it."""

    @property
    def best(self) -> Trial:
        """The default where nothing is better."""
        return max((self.default, *(one for one in self.trials if one.records)), key=lambda one: one.accuracy)


def usual_ranges(method: Method, given: Mapping[str, str]) -> dict[str, str]:
    """The ranges of a method's main options around their defaults, where none of them is given. UserError: it has none."""
    found = {name: text for name, text in RANGES.items() if name in method.options and name not in given}
    for name, factor in FACTORS.items():
        value = method.options.get(name)
        if name not in given and isinstance(value, float) and value > 0 and not method.options.get("search"):
            found[name] = f"{value / factor:g}..{value * factor:g}"
    if "epochs" in method.options and "epochs" not in given:
        number = method.epochs
        found["epochs"] = ",".join(str(one) for one in dict.fromkeys((max(1, number // 2), number, 2 * number)))
    if not found:
        raise UserError(
            f"{method.name} has no option with a usual range. Give one: --set 'NAME=LOW..HIGH' or --set 'NAME=A,B,C' "
            f"(vlprompt methods {method.name} lists them)."
        )
    return found


def is_range(value: str) -> bool:
    """Whether a setting names several values: ``0.001..0.1`` or ``10,20,50``."""
    return ".." in value or "," in value


def distribution(name: str, text: str) -> BaseDistribution:
    """``LOW..HIGH`` (whole numbers where both are; over orders of magnitude from a factor of ten on) or ``A,B,C``. UserError: neither."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, dots, high = text.partition("..")
    if not dots:
        words = [one.strip() for one in text.split(",")]
        if "" in words or len(set(words)) < len(words):
            raise UserError(f"{name}={text} has an empty or a repeated value. Write for example {name}=10,20,50.")
        return CategoricalDistribution(words)
    try:
        first, last = float(low), float(high)
    except ValueError:
        first, last = 1.0, 0.0
    if not first < last < float("inf"):
        raise UserError(
            f"{name}={text} is not LOW..HIGH, two numbers with the lower one first. Write for example lr=0.001..0.1."
        )
    wide = 0 < first <= last / 10
    if low.strip().isdecimal() and high.strip().isdecimal():
        return IntDistribution(int(low), int(high), log=wide)
    return FloatDistribution(first, last, log=wide)


def tune(config: RunConfig, ranges: Mapping[str, str], trials: int, observer: Observer = SILENT) -> Tuned:
    """Tries so many settings in `ranges`, after the default, and writes everything into `config.out`.

    config: its `overrides` hold for every trial, its `replicas` are the trials that learn at the same time. Called again, it goes on.
    UserError: unknown options and values, before anything is learned; another tuning's directory; no validation images.
    """
    recipe = recipe_of(config.method, config.protocol, config.model, config.recipe)
    space = {name: distribution(name, text) for name, text in ranges.items()}
    for name, text in ranges.items():
        for value in text.split(".." if ".." in text else ","):
            resolve(config.method, {**config.overrides, name: value.strip()}, shots=config.shots, recipe=recipe)
    require_own(config.out, TUNE, "tuning")
    dataset, images = open_all(config, observer, val_as_test=False)
    tuning = _Tuning(dataclasses.replace(config, resume=True), (_judged(dataset, observer), images.quiet()), space)
    first = job_of(config, SILENT, tuning.opened)
    if first.method.learner is None and first.method.at_test is None:
        raise UserError(
            f"{config.method} learns nothing that could be tuned. Name a method of `vlprompt methods` that learns."
        )
    for said in first.said_of(drawn := first.draw()):
        observer.note(said)
    facts = {"ranges": dict(ranges), "seeds": config.seeds, "default": first.document(drawn, Means())["hash"]}
    with locked(config.out):
        if not same_work(
            config.out / TUNE, now := hashed({"method": config.method, "options": first.method.options, **facts})
        ):
            disk.write_json(config.out / TUNE, now)
        observer.stage("trials", trials + 1)
        (default,) = tuning.measured([(DEFAULT, {})])
        if default.problem:
            raise data_error(f"the default of {config.method} cannot be learned: {default.problem}")
        default = dataclasses.replace(default, settings={name: first.method.options.get(name) for name in ranges})
        observer.advance(1, {"default": default.accuracy})
        found = [*tuning.search(default, trials, observer)]
        tuned = Tuned(default=default, trials=tuple(found), recipe=config.out / RECIPE)
        best = tuned.best
        changed = {} if best is default else best.settings
        job = job_of(dataclasses.replace(config, overrides={**config.overrides, **changed}), SILENT, tuning.opened)
        disk.write_text(
            tuned.recipe, recipe_text(job, f"chosen by vlprompt tune on {best.records[0].num_test} validation images")
        )
    return tuned


def _judged(dataset: Dataset, observer: Observer) -> Dataset:
    """The validation images as those that are asked about, and no others. UserError: there are none."""
    val = dataset.val
    if not val:
        parts = split_by_rule(dataclasses.replace(dataset, val=(), test=(), tested=None, divided=False))
        dataset, val = dataclasses.replace(dataset, train=parts.train), (*parts.val, *parts.test)
        observer.note(
            f"{dataset.name} has no validation images: half of its training images ({len(val)}) choose in their place."
        )
    if not val:
        raise data_error(f"{dataset.name} has no validation images to choose on. Put some into DATA/val.")
    return dataclasses.replace(dataset, val=(), test=val, tested=Tested((*val, *dataset.test)), test_of=0)


@dataclass(frozen=True, slots=True)
class _Tuning:
    """What all trials share."""

    config: RunConfig
    opened: tuple[Dataset, Images]
    space: Mapping[str, BaseDistribution]

    def measured(self, wanted: Sequence[tuple[str, Mapping[str, object]]]) -> list[Trial]:
        """Some settings, each under its name, learned together where they can be."""
        placed: list[tuple[Job, Path]] = []
        problems: dict[str, str] = {}
        for name, settings in wanted:
            try:
                job = job_of(
                    dataclasses.replace(self.config, overrides={**self.config.overrides, **settings}),
                    opened=self.opened,
                )
            except UserError as problem:
                problems[name] = str(problem)
                continue
            for seed in self.config.seeds:
                placed.append((dataclasses.replace(job, seed=seed), self.config.out / name / f"seed{seed}"))
        ended = learned_and_tested(placed, self.config, {}, SILENT, PROTOCOL)
        by_name: dict[str, list[Record | UserError]] = {name: [] for name, _ in wanted}
        for (_, at), one in zip(placed, ended, strict=True):
            by_name[at.parent.name].append(one)
        return [_trial(name, settings, by_name[name], problems.get(name, "")) for name, settings in wanted]

    def search(self, default: Trial, number: int, observer: Observer) -> Iterator[Trial]:
        """The trials, each setting once: a repeated one is told again and not learned again."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        study = self._study(default)
        tried = [one for one in study.trials if "default" not in one.user_attrs]
        waiting = [one for one in tried if not one.state.is_finished()]
        batches = [[one] for one in tried if one.state.is_finished()] + ([waiting] if waiting else [])
        known: dict[str, Trial] = {}
        asked, best = len(tried), default.accuracy
        while batches or asked < number:
            if not batches:
                study.sampler = TPESampler(seed=len(study.trials), n_startup_trials=RANDOM)
                several = range(min(self.config.replicas, number - asked))
                ids = [study.ask(dict(self.space)).number for _ in several]
                batches, asked = [[study.trials[one] for one in ids]], asked + len(ids)
            batch = batches.pop(0)
            new = {_key(one.params): f"trial{one.number}" for one in reversed(batch) if _key(one.params) not in known}
            wanted = [(name, json.loads(key)) for key, name in reversed(new.items())]
            for trial in self.measured(wanted) if wanted else ():
                known[_key(trial.settings)] = trial
                yield trial
            for one in batch:
                trial = known[_key(one.params)]
                best = max(best, trial.accuracy) if trial.records else best
                if not one.state.is_finished():
                    value = trial.accuracy if trial.records else None
                    study.tell(one.number, value, state=TrialState.COMPLETE if trial.records else TrialState.FAIL)
                observer.advance(1, {"best": best})

    def _study(self, default: Trial) -> Study:
        """optuna's, kept in a journal; it begins with the default where the ranges have that."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.config.out / JOURNAL)))
        study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
        own = {name: _inside(one, default.settings[name]) for name, one in self.space.items()}
        if not study.trials and None not in own.values():
            found = optuna.trial.create_trial(
                params=own, distributions=dict(self.space), value=default.accuracy, user_attrs={"default": True}
            )
            study.add_trial(found)
        return study


def _inside(space: Any, value: Any) -> Any:
    """A default as one of these values; None where it is none of them."""
    choices = getattr(space, "choices", None)
    if choices is not None:
        return str(value) if str(value) in choices else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and space.low <= value <= space.high else None


def _trial(name: str, settings: Mapping[str, object], ended: Sequence[Record | UserError], problem: str) -> Trial:
    failed = problem or next((str(one) for one in ended if isinstance(one, UserError)), "")
    kept = () if failed else tuple(one for one in ended if not isinstance(one, UserError))
    return Trial(name=name, settings=settings, records=kept, problem=failed)


def _key(settings: Mapping[str, object]) -> str:
    """Settings as JSON. Three digits of a number are enough."""
    short = {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in settings.items()}
    return json.dumps(short, sort_keys=True)


def recipe_text(job: Job, why: str) -> str:
    """A recipe of all of a job's settings. `methods.recipes.read` gives them back."""
    method = job.method
    head = {
        "title": f"{method.name}, tuned on {job.dataset.name}",
        "method": method.name,
        "protocol": "any",
        "choices": "project",
        "source": why,
        "model": job.model,
        "shots": [] if job.shots is None else [job.shots],
        "seeds": [job.seed],
        "views": job.views,
        "train": [job.dataset.name],
    }
    schedule = {name: value for name, value in method.options.items() if name in SCHEDULE_FIELDS}
    options = {name: value for name, value in method.options.items() if name not in schedule and value is not None}
    tables = {"options": options, "schedule": schedule}
    if job.template != job.dataset.template:
        tables["templates"] = {job.dataset.name: job.template}

    def line(name: str, value: object) -> str:
        return f"{name} = {json.dumps(value, ensure_ascii=False)}"

    lines = [line(name, value) for name, value in head.items()]
    for table, values in tables.items():
        quoted = table == "templates"
        lines += [
            "",
            f"[{table}]",
            *(line(json.dumps(name) if quoted else name, value) for name, value in values.items()),
        ]
    return "\n".join(lines) + "\n"
