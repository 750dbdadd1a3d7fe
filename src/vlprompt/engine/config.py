"""One run, every field given or default; what of it is kept beside the results, and what may not change on resuming."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlprompt.engine.precision import DTYPES
from vlprompt.errors import UserError, unknown
from vlprompt.methods import recipes
from vlprompt.methods.resolve import RECIPES
from vlprompt.types import Views

SUBSETS = ("all", "base", "novel")
SCHEMA = 1
DEFAULT_VIEWS = 8
"""Fixed random crops per training image, cycled by epoch: project's choice, eight encodings per image instead of one per
epoch (200 as published at 16 shots)."""


def default_views(recipe: str, dataset: str, *, wanted: str = "auto") -> Views:
    """The views of a recipe where it was asked for by its name, or is for this data set, or for the small models inside the package;
    else `DEFAULT_VIEWS`. wanted: the recipe as it was asked for."""
    if not recipe:
        return DEFAULT_VIEWS
    known = recipes.read(recipe)
    meant = wanted not in RECIPES or known.model == recipes.POCKET or known.is_for(dataset, 0)
    return known.views if meant else DEFAULT_VIEWS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What `vlprompt train` is asked to do."""

    method: str
    """A name of `vlprompt methods`, overlays included: ``plpp+coop``."""
    model: str
    """A pocket model's name, a directory or a Hub id."""
    data: str
    """A folder, a table or a pocket set's name."""
    out: Path
    """The run directory: a directory per seed in it."""
    overrides: Mapping[str, object] = field(default_factory=dict)
    """Options and schedule fields by name, as ``--set name=value`` gives them."""
    shots: int | None = 16
    """Training images per class; None: all."""
    seeds: tuple[int, ...] = (1,)
    """A seed decides the few-shot sample, the initial prompt and the order of the images."""
    recipe: str = "auto"
    """Whose settings where `overrides` is silent: a name of `vlprompt recipes`, or the method's own: `pocket` for the small models,
    `published` the few-shot one (with `subset` base the base-to-novel one); auto: by the model; "": none."""
    init: Path | None = None
    """An artifact or a run whose learned tensors the prompt begins with; None: the method's own start."""
    teacher: str | None = None
    """Another model that teaches, where a method has a teacher: a name, directory or Hub id; None: the frozen model itself."""
    template: str | None = None
    """Words of the zero-shot classifier and teacher, with {}; None: the data set's own."""
    subset: Literal["all", "base", "novel"] = "all"
    """Classes to learn and test on: base is the first half (the larger one) in label order, novel the rest."""
    views: Views | None = None
    """Fixed random crops per training image, cycled by epoch; ``epochs``: a fresh one each epoch, as published; ``centre``: the test
    view, never a crop; None: the recipe's (`default_views`)."""
    device: str = "auto"
    dtype: str = "float32"
    """Of the frozen weights; what is learned is always float32."""
    cache: Path | None = None
    """Root of the feature cache; None: the user's cache directory."""
    strict: bool = False
    """Whether an image that cannot be used is an error instead of a listed skip."""
    resume: bool = False
    """Whether to go on with unfinished work in `out`."""
    max_memory: int | None = None
    """Bytes that the process may take: text rows are then run a part at a time, with the same gradient; None: no limit."""
    save_every: int = 1
    """Epochs between checkpoints."""
    track: Literal["tensorboard"] | None = None
    """Where learning curves go beside `metrics.jsonl`."""

    @property
    def protocol(self) -> Literal["few-shot", "base-to-novel"]:
        """What the run is a part of."""
        return "few-shot" if self.subset == "all" else "base-to-novel"

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise UserError(f"shots is {self.shots}; it must be at least 1, or left out to use all images.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError(
                f"seeds are {list(self.seeds)}; give one or more different numbers from 0, for example 1,2,3."
            )
        for name, value, allowed in (
            ("subset", self.subset, SUBSETS),
            ("recipe", self.recipe, ("", *RECIPES, *recipes.names())),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in allowed:
                raise unknown(name, value, allowed)
        if self.template is not None and self.template.count("{}") != 1:
            raise UserError(f"template {self.template!r} must have one {{}}, where the class name stands.")
        if self.views not in (None, "epochs", "centre") and (not isinstance(self.views, int) or self.views < 1):
            raise UserError(f"views is {self.views!r}; it must be a number from 1, 'epochs' or 'centre'.")
        if self.save_every < 1:
            raise UserError(f"save_every is {self.save_every}; it must be at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """One seed of a run with every choice made: all that decides its result, and nothing else.

    Model and images count by their content: where they lie, where the run is written and which device computes are left out.
    """

    method: str
    options: Mapping[str, object]
    """The method's and its schedule's."""
    recipe: str
    weight_hash: str
    dtype: str
    dataset: str
    template: str
    split_hash: str
    training_hash: str
    shots: int | None
    subset: str
    seed: int
    views: int | str
    init: str = ""
    """SHA-256 of the learned tensors that it begins with; empty: the method's own start."""
    teacher: str = ""
    """SHA-256 of the weights of another model that teaches; empty: none does."""

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the values but the recipe's name: two recipes with the same settings learn the same prompt."""
        values = {name: value for name, value in self.as_dict().items() if name != "recipe"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """As JSON has it: options that are no numbers, strings or lists become strings."""
        values: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        for name in (
            "init",
            "teacher",
        ):  # without them as before there were such runs, whose hashes stay what they were
            if not values[name]:
                del values[name]
        return values

    def document(self, config: RunConfig) -> dict[str, object]:
        """What `config.json` holds: the values, their hash, and for people what was asked for beside."""
        asked: dict[str, object] = {
            "model": config.model,
            "data": config.data,
            "device": config.device,
            "strict": config.strict,
        }
        if config.init is not None:
            asked["init"] = str(config.init)
        if config.teacher is not None:
            asked["teacher"] = config.teacher
        return {**self.as_dict(), "hash": self.hash, "asked": asked}


def differences(before: Mapping[str, object], now: Mapping[str, object], prefix: str = "") -> list[str]:
    """``field: old -> new`` for every field that differs but the hash of them, nested ones with a dot."""
    out: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += differences(old, new, f"{prefix}{name}.")
        elif old != new and name != "hash":
            out.append(f"{prefix}{name}: {old!r} -> {new!r}")
    return out
