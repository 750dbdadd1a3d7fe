"""One run, every field given or default, and its means; whether a directory may be worked in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlprompt import reading
from vlprompt.engine.checkpoint import Track
from vlprompt.engine.precision import DTYPES
from vlprompt.errors import UserError, data_error, unknown
from vlprompt.methods import recipes
from vlprompt.methods.resolve import RECIPES
from vlprompt.types import Views

SUBSETS = ("all", "base", "novel")
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
class Means:
    """How the work is done; nothing of it decides a result."""

    device: str = "auto"
    cache: Path | None = None
    """Root of the feature cache; None: the user's."""
    max_memory: int | None = None
    """Bytes that a process may take: text rows are then run a part at a time, with the same gradient; None: no limit."""
    track: Track | None = None
    """Where learning curves go, in addition to `metrics.jsonl`."""
    threads: int | None = None
    """Of each process; None: torch's choice."""
    save_every: int = 1
    """Epochs between checkpoints."""
    replicas: int = 1
    """Prompts that are learned together where they differ in their seed alone: quicker on small models, equal to about 1e-6, not to
    the bit (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Means):
    """What `vlprompt train` is asked to do, and the means of it."""

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
    dtype: str = "float32"
    """Of the frozen weights; what is learned is always float32."""
    folds: int = 0
    """Folds of all images but test images, which are asked about in turn in the place of test images; 0: none."""
    curve: bool | None = None
    """Whether to measure what fewer images would have taught (`prospect.measure_curve`); None: where that takes seconds."""
    max_test: int | None = None
    """At most so many test images, as many of each class as there can be; None: all."""
    strict: bool = False
    """Whether an image that cannot be used is an error instead of a listed skip."""
    resume: bool = False
    """Whether to continue with unfinished work in `out`."""

    @property
    def protocol(self) -> Literal["few-shot", "base-to-novel"]:
        """What the run is a part of."""
        return "few-shot" if self.subset == "all" else "base-to-novel"

    def __post_init__(self) -> None:
        for name, seen, known in (("subset", self.subset, SUBSETS), ("dtype", self.dtype, DTYPES)):
            if seen not in known:
                raise unknown(name, seen, known)
        if self.recipe and self.recipe not in RECIPES and not recipes.known(self.recipe):
            raise unknown("recipe", self.recipe, ["", *RECIPES, *recipes.names()], always=RECIPES)
        if self.template is not None and self.template.count("{}") != 1:
            raise UserError(f"template {self.template!r} must have one {{}}, where the class name stands.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError(
                f"seeds are {list(self.seeds)}; give one or more different numbers from 0, for example 1,2,3."
            )
        if self.folds and self.method == "auto":
            raise UserError(
                "--method auto chooses on the images that --folds asks about, so its accuracy would mean little. Name the method."
            )
        some_views = self.views in (None, "epochs", "centre") or (isinstance(self.views, int) and self.views > 0)
        for name, holds, allowed in (
            ("shots", self.shots is None or self.shots >= 1, "at least 1, or left out to use all images"),
            ("folds", self.folds == 0 or self.folds >= 2, "at least 2, or left out"),
            ("views", some_views, "a number from 1, 'epochs' or 'centre'"),
            ("replicas", self.replicas >= 1, "at least 1"),
            ("save_every", self.save_every >= 1, "at least 1"),
        ):
            if not holds:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be {allowed}.")


def hashed(decides: Mapping[str, object], *, but: tuple[str, ...] = ()) -> dict[str, object]:
    """All that decides a result as JSON has it, and `hash`: SHA-256 (hex) of it without the names in `but`.

    Options that are not numbers, strings or lists become strings.
    """
    values: dict[str, object] = json.loads(json.dumps(dict(decides), default=str))
    counted = {name: value for name, value in values.items() if name not in but}
    return {**values, "hash": hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()}


def differences(before: Mapping[str, object], now: Mapping[str, object], prefix: str = "") -> list[str]:
    """``field: old -> new`` for every field that differs but the hash of them, nested ones with a dot."""
    out: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += differences(old, new, f"{prefix}{name}.")
        elif old != new and name != "hash":
            out.append(f"{prefix.removeprefix('asked.')}{name}: {old!r} -> {new!r}")
    return out


SHOWN, LONGEST = 4, 120
"""Differences that a message names, and letters of each."""
HASHES = {
    "training_hash": "other training images",
    "split_hash": "other images",
    "weight_hash": "other weights of the model",
    "recipe_hash": "another text of the recipe",
}
"""What differs where nobody can read the value."""


def require_own(out: Path, mark: str, what: str, *, hint: str = "") -> None:
    """UserError where `out` is a file, or holds something, but no name that begins with `mark`, so it is not a `what`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out must be a directory.")
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else []
    if names and not any(name.startswith(mark) for name in names):
        raise UserError(
            f"{out} is not empty and holds no {what} (found {', '.join(names[:3])}). Use another --out{hint}."
        )


def same_work(path: Path, now: Mapping[str, object]) -> bool:
    """Whether the work that `path` describes was begun before, with the same facts (the same `hash`, where there is one).

    UserError: it was begun with other facts; which, is said.
    """
    if not path.is_file():
        return False
    before = reading.json_object(path)
    changed = differences(before, now)
    if changed if "hash" not in now else before.get("hash") != now["hash"]:
        raise another(path.parent, changed)
    return True


def another(directory: Path, changed: Sequence[str]) -> UserError:
    """The error where a directory holds other work; changed: as `differences`."""
    told = [one for one in changed if one.partition(":")[0] not in HASHES]
    told += [words for name, words in HASHES.items() if any(one.startswith(f"{name}:") for one in changed)]
    short = [one if len(one) <= LONGEST else f"{one[: LONGEST - 3]}..." for one in told[:SHOWN]]
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return UserError(
        f"{directory} holds work of another configuration: {'; '.join(short)}{more}. Use another --out, or what it was begun with."
    )


def claimed(
    path: Path, now: Mapping[str, object], *, result: Path, prompts: Sequence[Path], begun: bool, resume: bool
) -> bool:
    """Whether the work that `path` describes is finished: `result` is there. begun: a state to continue from is there.

    UserError: it is another configuration's; it is finished, and one of its prompts is gone; it is unfinished without `resume`.
    """
    same_work(path, now)
    directory = path.parent
    if not result.is_file():
        if begun and not resume:
            raise UserError(f"{directory} holds unfinished work. Continue it with --resume, or use another --out.")
        return False
    if gone := [one.relative_to(directory) for one in prompts if not one.is_file()]:
        raise data_error(
            f"{directory} has a finished record, but its prompt ({gone[0]}) is gone. Remove {result.name} to learn it "
            "again, or put the prompt back."
        )
    return True
