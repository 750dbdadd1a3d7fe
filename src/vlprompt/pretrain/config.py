"""What `vlprompt pretrain` is asked to do, and the method that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlprompt.data.papers import catalogue
from vlprompt.engine.precision import DTYPES
from vlprompt.errors import UserError, unknown
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.sampled import Correction, SamplingOptions, sampled_cross_entropy
from vlprompt.methods import recipes
from vlprompt.methods.resolve import options, parse, recipe_of, resolve, takes_steps
from vlprompt.types import Method, ModelFacts

PretrainViews = int | Literal["published", "crops", "centre"]
WORDS: tuple[Literal["published", "crops", "centre"], ...] = ("published", "crops", "centre")
CORRECTIONS: tuple[Correction, ...] = ("natural", "log10", "none")
OTHERS = "coop-pretraining"
"""The recipe whose schedule and views a method takes that lacks both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """One run of pretraining."""

    method: str
    model: str
    data: str
    """A pocket set's name, a folder, a table, an ImageNet-21K folder, or shards (directory, manifest or URL)."""
    out: Path
    overrides: Mapping[str, object] = field(default_factory=dict)
    class_names: Path | None = None
    """The class-name file; None: found next to the data, else the folders' names."""
    teacher: str | None = None
    """Another model that teaches, for methods with a teacher (rpp): a name, directory or Hub id; None: the frozen model itself."""
    shots: int | None = 16
    """Training images per class; None: all. Shards are read whole."""
    seed: int = 42
    recipe: str = "auto"
    """Whose settings where nothing else is said: a name of `vlprompt recipes`, or `published`, `pocket`, or auto: by the model."""
    classes_per_step: int | None = None
    """K; None: the recipe's. 0: every step sees all classes."""
    correction: Correction | None = None
    """None: the recipe's."""
    template: str | None = None
    views: PretrainViews | None = None
    """What an image looks like: `published` (fresh crop, flip and two operations), `crops` (fresh crop and flip), a number of fixed
    crops and flips, or `centre`; None: the recipe's."""
    copies: int | None = None
    """Views of an image in its step; None: the recipe's, with other views than its own 4 for `published` ones and else 1."""
    batch_per_rank: int | None = None
    """Images of a step on each process; None: the schedule's `batch` is that of all together."""
    held_out: int = 5000
    """Images of the held-out part that are tested, and as many training images; 0: none."""
    evaluate_every: int | None = None
    """Steps between tests; None: after every epoch."""
    save_every: int = 200
    """Steps between checkpoints."""
    save_minutes: float = 10.0
    """Minutes after which one is written at the latest."""
    log_every: int = 10
    max_skipped: int | None = None
    """Different images that may turn out unusable; None: 1 % of all, at least 10."""
    workers: int = 0
    """Processes that decode images; 0: threads of this one."""
    max_memory: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    cache: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        from_one = ("shots", "copies", "batch_per_rank", "evaluate_every", "save_every", "log_every")
        for name in (*from_one, "seed", "held_out", "max_skipped", "workers", "classes_per_step"):
            lowest = int(name in from_one)
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least {lowest}.")
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.correction is not None and self.correction not in CORRECTIONS:
            raise unknown("correction", self.correction, CORRECTIONS)
        if isinstance(self.views, int) and self.views < 1:
            raise UserError(f"--views is {self.views}; it must be a number from 1, or one of {', '.join(WORDS)}.")
        if self.seen == "centre" and self.num_copies > 1:
            raise UserError(
                f"--copies is {self.num_copies}, and --views centre has one view of an image. Leave one of them out."
            )

    @property
    def recipe_name(self) -> str:
        """The recipe's; "" for a method that has none."""
        return recipe_of(self.method, "pretraining", self.model, self.recipe)

    @property
    def known(self) -> recipes.Recipe:
        """The recipe, or for a method without one `OTHERS`."""
        return recipes.read(self.recipe_name or OTHERS)

    @property
    def seen(self) -> PretrainViews:
        """The views with the default resolved."""
        return self.known.pretrain.views if self.views is None else self.views

    @property
    def num_copies(self) -> int:
        if self.copies is not None:
            return self.copies
        usual = self.known if self.seen == self.known.pretrain.views else recipes.read(OTHERS)
        return usual.pretrain.copies if self.seen == usual.pretrain.views else 1


def pretraining_method(config: PretrainConfig, world: int, facts: ModelFacts | None = None) -> Method:
    """The method with its sampled classes, on towers of these facts. UserError: one that cannot be pretrained, with the reason."""
    _, host = parse(config.method)
    if not takes_steps(host):
        raise UserError(
            f"{config.method!r} learns nothing by gradient steps, so there is nothing to pretrain. Use rpp or pomp."
        )
    known, usual = config.known, config.known.pretrain
    overrides = dict(config.overrides)
    if config.batch_per_rank is not None:
        if "batch" in overrides:
            raise UserError("--set batch (images of a step in all) and --batch-per-rank exclude each other: give one.")
        overrides["batch"] = config.batch_per_rank * world
    number = (usual.classes or None) if config.classes_per_step is None else config.classes_per_step
    correction = config.correction or (usual.correction if usual.classes else None)
    own = any(option.name == "classes" for option in options(config.method))
    if own:
        for option, flag, value, given in (
            ("classes", "classes-per-step", number, config.classes_per_step),
            ("correction", "correction", correction, config.correction),
        ):
            if option in config.overrides and given is not None:
                raise UserError(f"--set {option} and --{flag} say the same: give one.")
            if value is not None:
                overrides.setdefault(option, str(value or "all"))
    if any(option.name == "plpp.balance" for option in options(config.method)):
        overrides.setdefault("plpp.balance", "off")  # found in a first epoch, which pretraining has not
    base = {"epochs": usual.epochs, "batch": usual.batch} if config.recipe_name else known.schedule
    overrides = {name: value for name, value in base.items() if value is not None} | overrides
    method = resolve(
        config.method,
        overrides,
        shots=config.shots,
        recipe=config.recipe_name,
        dataset=known.train[0] if known.train else "",
        facts=facts,
    )
    _refuse(method)
    return method if own or not number else _sampled(method, number, correction or usual.correction)


def chooses(config: PretrainConfig, held_out_part: str) -> bool:
    """Whether `best` is the best of the epochs on held-out images: never on test images, which choose nothing."""
    return config.known.pretrain.keep == "best" and held_out_part != "test"


def whose_choices(config: PretrainConfig, data: str) -> str:
    """Whose the settings of a run are: `published` where the recipe's are and the data are its own; `changed` where the run's own
    options say anything about them; else `project`."""
    asked = (config.classes_per_step, config.correction, config.views, config.copies, config.batch_per_rank)
    if config.overrides or any(one is not None for one in asked):
        return "changed"
    row = catalogue.find(data)
    own = bool(config.recipe_name) and row is not None and row.name in config.known.train
    return config.known.choices if own else "project"


def said_of_processes(config: PretrainConfig, method: Method, world: int) -> str:
    """What another number of processes than the recipe's changes, or other images of a step; "" where all is as there."""
    known, schedule = config.known, method.schedule
    assert schedule is not None
    images = int(known.pretrain.batch or known.schedule.get("batch", schedule.batch))
    processes = known.pretrain.processes
    if (world, schedule.batch) == (processes, images):
        return ""
    said = (
        f"The recipe {known.name} has {processes} process(es) with {images // processes} images of a step each, {images} in all; "
        f"here are {world}."
    )
    if schedule.batch == images:
        return (
            f"{said} A step has {images} images as there, {images / world:g} on each, and the rate stays {schedule.lr:g}: the result is "
            "the same but for rounding."
        )
    return (
        f"{said} A step has {schedule.batch} images, so an epoch has {images / schedule.batch:.3g} times as many steps, and the "
        f"rate stays {schedule.lr:g} (the published code does not change it either). --set batch={images} takes the recipe's."
    )


def _refuse(method: Method) -> None:
    if method.unlabelled is not None:
        raise UserError(
            f"{method.name!r} learns from the images of the classes that it is used for. Use vlprompt train, or pretrain rpp or pomp."
        )
    if method.steps.first is not None or method.steps.last is not None:
        raise UserError(
            f"{method.name!r} cannot be pretrained: it fits a classifier to all features at once, for its own classes alone. Use "
            "vlprompt train, or pretrain rpp or pomp."
        )
    if method.schedule.draw != "images":
        raise UserError("draw=classes: pretraining sees every image once in an epoch. Leave it out.")
    if "image" in method.prompt.reach.sees:
        raise UserError(
            f"{method.name!r} cannot be pretrained: its text features depend on the image, and a step would encode every class "
            "once per image. Use a method with one text feature per class: rpp, pomp, coop, maple, ..."
        )
    if any(term.balance for term in method.terms):
        raise UserError(
            "plpp.balance finds its weights in the first epoch of `vlprompt train`; pretraining has no such epoch. Set plpp.lambda "
            "and plpp.lambda_inverse instead, for example to the weights in the record of a short run."
        )
    if method.steps.rule is not None:
        raise UserError(
            f"{method.name!r} cannot be pretrained: it projects one gradient against another, which does not add up over processes. "
            "Use a method whose losses are summed: rpp, pomp, coop, maple, ..."
        )


def _sampled(method: Method, number: int, correction: Correction) -> Method:
    """A method that samples no classes, with cross-entropy over sampled classes."""
    sampling = SamplingOptions(classes=number, correction=correction)
    term = sampled_cross_entropy(correction)
    terms = tuple(
        dataclasses.replace(term, weight=one.weight) if one.name == CROSS_ENTROPY.name else one for one in method.terms
    )
    return dataclasses.replace(
        method, learner=dataclasses.replace(method.steps, terms=terms, classes=sampling.sampling)
    )
