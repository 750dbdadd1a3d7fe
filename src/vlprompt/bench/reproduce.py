"""A published row again: all its seeds and data sets, and whether what came of them agrees with the published numbers.

A published number is a mean over seeds whose spread is rarely printed. The verdict takes it to be ours. Let D = ours -
published, s the sample deviation of our n seeds, and m the number of published seeds. D is uncertain by t * s * sqrt(1/n +
1/m), t Student's 97.5 % point with n - 1 degrees of freedom. (Project's choice.)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scipy.special import stdtrit

from vlprompt import bench
from vlprompt.bench import Protocol, Request
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.obtain import state
from vlprompt.errors import UserError, data_error
from vlprompt.methods import recipes
from vlprompt.methods.recipes import Published, Recipe
from vlprompt.records import Record, harmonic
from vlprompt.types import Views

LEVEL = 0.95
WIDEST = 2.0
"""Points: where the difference is known no better than this, agreement would say nothing (project's choice)."""
WITHOUT_SEEDS = 0.1
"""Points that a method which learns nothing may differ by: half precision and image libraries (project's choice)."""
MEAN = "mean of "
Agreement = Literal["agrees", "higher", "lower", "cannot tell", "incomplete"]
Point = tuple[str, str, int | None]
"""Data set, classes (all, base, novel), images per class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a recipe is run, and how."""

    recipe: Recipe
    model: str
    out: Path
    data: tuple[str, ...] | None = None
    """Of the data sets that are learned on (cross-dataset and domain: tested on) only these; None: all that are on disk."""
    shots: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    views: Views | None = None
    dtype: str = "float32"

    @property
    def changed(self) -> tuple[str, ...]:
        """What is not as in the recipe; then numbers are shown without a verdict."""
        found = [f"{name}={value}" for name, value in self.overrides.items()]
        if self.views not in (None, self.recipe.views):
            found.append(f"views={self.views}")
        if self.seeds is not None and self.seeds != self.recipe.seeds:
            found.append(f"seeds={','.join(map(str, self.seeds))}")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The data sets of a recipe by whether they are there."""

    used: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """One published number next to ours."""

    published: Published
    shots: int | None
    ours: float | None = None
    """Percent; None where a data set or a seed of it is missing."""
    difference: float | None = None
    deviation: float | None = None
    """Over our seeds; None for fewer than two."""
    uncertainty: float | None = None
    """Points, either way."""
    num_seeds: int = 0
    missing: tuple[str, ...] = ()
    verdict: Agreement = "incomplete"


def sets_of(wanted: Wanted) -> Sets:
    """The data sets that are run. UserError: none of them is there, or the one that all are learned from is not."""
    recipe = wanted.recipe
    if recipe.protocol == "pretraining":
        raise UserError(f"{recipe.name} is a pretraining, which another command runs: {recipe.commands[0]}")
    if recipe.protocol == recipes.ANY:
        raise UserError(f"{recipe.name} is for no protocol of the papers. `{recipe.commands[0]}` learns with it.")
    asked = wanted.data or recipe.test or recipe.train
    there = {name: _is_there(name) for name in dict.fromkeys((*asked, *(recipe.train if recipe.test else ())))}
    used = tuple(name for name in asked if there[name])
    sources = [name for name in recipe.train if recipe.test and not there[name]]
    if recipe.protocol == "domain":  # all domains of the source belong to it
        sources += [name for name in recipe.test if not _is_there(name)]
    if sources or not used:
        lost = sources or list(asked)
        raise data_error(
            f"{recipe.name} needs {', '.join(lost)}, not to be read here yet. "
            f"`vlprompt data status` says what is missing, `vlprompt data get {lost[0]}` fetches it or says how to; --data-root DIR or "
            f"{catalogue.ROOT_VARIABLE} says where the data sets lie."
        )
    return Sets(used=used, missing=tuple(name for name in asked if not there[name]))


def _is_there(name: str) -> bool:
    """Whether a data set can be read; one that is not of the papers is left to whoever opens it."""
    row, root = catalogue.find(name), catalogue.data_root()
    if row is None:
        return True
    if root is not None and state(row, root).usable:
        return True
    folder = Path(name)
    return folder.is_dir() and catalogue.recognise(folder) is not None


def request_of(wanted: Wanted, sets: Sets) -> Request:
    recipe = wanted.recipe
    kind: dict[str, Protocol] = {name: name for name in bench.PROTOCOLS}
    return Request(
        protocols=(kind[recipe.protocol],),
        data=sets.used,
        model=wanted.model,
        methods=(recipe.method,),
        source=recipe.train if recipe.test else None,
        shots=(wanted.shots or recipe.shots) or (None,),
        seeds=wanted.seeds or recipe.seeds,
        overrides=wanted.overrides,
        recipe=recipe.name,
        views=wanted.views,
        dtype=wanted.dtype,
    )


def lines(wanted: Wanted, records: Iterable[Record]) -> list[Reproduced]:
    """Every published number of a recipe next to what the records say of it; numbers for shots that were not asked for are left out."""
    recipe = wanted.recipe
    found = scores(records)
    asked = wanted.shots or recipe.shots
    out = []
    for published in recipe.published:
        shots = published.shots if published.shots is not None else (recipe.shots[-1] if recipe.shots else None)
        if shots is None or shots in asked:
            out.append(_line(wanted, published, shots, found))
    return out


def scores(records: Iterable[Record]) -> dict[Point, dict[int, float]]:
    """Top-1 by data set, classes and images per class, then by seed."""
    found: dict[Point, dict[int, float]] = {}
    for record in records:
        if record.top1 is not None:
            found.setdefault((record.dataset, record.subset, record.shots), {})[record.seed] = record.top1
    return found


def _line(
    wanted: Wanted, published: Published, shots: int | None, found: Mapping[Point, Mapping[int, float]]
) -> Reproduced:
    names = averaged(wanted.recipe, published)
    halves = {"base": ("base",), "novel": ("novel",), "harmonic_mean": ("base", "novel")}.get(
        published.metric, ("all",)
    )
    learned = not any(point[2] == 0 for point in found)
    count = shots if learned else 0
    seeds = (
        (wanted.seeds or wanted.recipe.seeds) if learned else sorted({seed for one in found.values() for seed in one})
    )
    table = {(name, half): found.get((name, half, count), {}) for half in halves for name in names}
    lost = tuple(
        dict.fromkeys(name for (name, _), by_seed in table.items() if any(one not in by_seed for one in seeds))
    )
    if lost or not seeds:
        return Reproduced(published=published, shots=shots, missing=lost)
    by_seed = [_combined([[table[name, half][seed] for name in names] for half in halves]) for seed in seeds]
    ours = _combined([[statistics.fmean(table[name, half].values()) for name in names] for half in halves])
    return judged(published, shots, ours, by_seed, len(wanted.recipe.seeds), learned=learned)


def judged(
    published: Published,
    shots: int | None,
    ours: float,
    by_seed: Sequence[float],
    published_seeds: int,
    *,
    learned: bool = True,
) -> Reproduced:
    """The verdict on a number, from its values of single seeds."""
    difference = ours - published.value
    deviation = statistics.stdev(by_seed) if len(by_seed) > 1 else None
    uncertainty: float | None = None if learned else WITHOUT_SEEDS
    if learned and deviation is not None:
        factor = float(stdtrit(len(by_seed) - 1, (1 + LEVEL) / 2))
        uncertainty = factor * deviation * math.sqrt(1 / len(by_seed) + 1 / max(published_seeds, 1))
    verdict: Agreement
    if uncertainty is None:
        verdict = "cannot tell"
    elif abs(difference) > uncertainty:
        verdict = "higher" if difference > 0 else "lower"
    else:
        verdict = "agrees" if uncertainty <= WIDEST else "cannot tell"
    return Reproduced(
        published=published,
        shots=shots,
        ours=ours,
        difference=difference,
        deviation=deviation,
        uncertainty=uncertainty,
        num_seeds=len(by_seed),
        verdict=verdict,
    )


def averaged(recipe: Recipe, published: Published) -> tuple[str, ...]:
    """The data sets that a published number is the mean of. UserError where the recipe's file names another number of them."""
    if not published.dataset.startswith(MEAN):
        return (published.dataset,)
    names = recipe.test or recipe.train
    if published.dataset != f"{MEAN}{len(names)}":
        raise UserError(
            f"recipe {recipe.name}: a number is published as {published.dataset!r}, and there are {len(names)} data sets."
        )
    return names


def _combined(halves: Sequence[Sequence[float]]) -> float:
    """The mean over data sets; of two halves the harmonic mean of their means (as published)."""
    means = [statistics.fmean(half) for half in halves]
    return means[0] if len(means) == 1 else harmonic(*means)
