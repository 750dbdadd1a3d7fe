"""Our numbers and the published ones: how far apart they are, and the tolerances of `parity/README.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprompt.errors import data_error

Arrays = Mapping[str, NDArray[Any]]
Kind = Literal["values", "gradients", "steps", "tensors"]
Numbers = Mapping[Kind, Mapping[str, Tensor]]
"""What was computed, by kind, under the names of the published numbers: values and gradients of one pass; of a training run steps, each
(epochs, steps), with the weights of the epochs in an average, (epochs,), and tensors, after each epoch and of the average."""

TOLERANCE: Mapping[Kind, float] = {"values": 1e-5, "gradients": 1e-4, "steps": 1e-5, "tensors": 1e-4}
"""In float32. Gradients sum in another order. `steps` and `tensors` are of a whole training run: losses and rates, and what was
learned. Never loosened to pass a case."""
GRAD = "grad:"
COSINE = "cosine"
MASKED = -1e5
"""Published logits below this are masks, of which ours need only be as low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One quantity, compared."""

    what: str
    kind: Kind
    error: float
    """Relative; for token ids the number that differ."""
    judged: bool = True
    """False: in a dtype for which no tolerance was set; then the error must be finite, and token ids equal."""

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.kind]

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance if self.judged else math.isfinite(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case, compared."""

    name: str
    source: str
    """Repository and file that the numbers come from."""
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def error(ours: Tensor, theirs: NDArray[Any]) -> float:
    """max |ours - theirs| / max |theirs| in float64; nan where ours is not finite, inf where a mask is missing."""
    ours64, theirs64 = _both(ours, theirs)
    masks = theirs64 < MASKED
    if not (ours64[masks] < MASKED).all():
        return math.inf
    return float(np.abs(ours64 - theirs64)[~masks].max() / _scale(np.abs(theirs64[~masks]).max()))


def step_error(ours: Tensor, theirs: NDArray[Any], *, relative: bool) -> float:
    """The largest |ours - theirs| of all steps; relative: each divided by its own |theirs|."""
    ours64, theirs64 = _both(ours, theirs)
    off = np.abs(ours64 - theirs64)
    return float((off / _scale(theirs64) if relative else off).max())


def _scale(theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a difference is relative to; 1 where theirs is 0."""
    return np.where(theirs == 0, 1.0, np.abs(theirs))


def _both(ours: Tensor, theirs: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In float64. UserError where the shapes differ."""
    if tuple(ours.shape) != theirs.shape:
        raise data_error(f"shape {theirs.shape} where {tuple(ours.shape)} is computed.")
    return ours.detach().cpu().double().numpy(), theirs.astype(np.float64)


def compare(found: Numbers, want: Arrays, *, judged: bool) -> list[Check]:
    """Every published number next to ours, token ids apart.

    Of ours, values and the tensors of some epochs may be unpublished. KeyError where another one is.
    """
    checks, published = [], {_moment(key) for key in want}
    for kind, numbers in found.items():
        for key, x in numbers.items():
            if (kind == "values" and key not in want) or (kind == "tensors" and _moment(key) not in published):
                continue
            off = step_error(x, want[key], relative=key != COSINE) if kind == "steps" else _off(key, x, want)
            judged_as: Kind = "tensors" if kind == "steps" and key == COSINE else kind
            checks.append(Check(what=key.removeprefix(GRAD), kind=judged_as, error=off, judged=judged))
    known = {"token_ids"}.union(*found.values())
    known |= {part for key in known for part in _summary_names(key)}
    if left := sorted(set(want) - known):
        raise data_error(f"numbers that are not computed here: {', '.join(left)}.")
    return checks


def _moment(key: str) -> str:
    """``epoch2:NAME`` and ``epoch2_rows:NAME`` -> ``epoch2``."""
    return key.partition(":")[0].partition("_")[0]


def _off(key: str, ours: Tensor, want: Arrays) -> float:
    """The error of a tensor, or the largest of its summaries, where it is published by those."""
    parts = {key: ours} if key in want else dict(_summaries(key, ours))
    return max(
        (error(x, want[part]) for part, x in parts.items()), key=lambda one: math.inf if math.isnan(one) else one
    )


def compare_ids(plans: Sequence[Sequence[int]], want: NDArray[Any]) -> Check:
    """Token ids of sentences, unpadded, next to the published (sentences, 77), padded with 0; always judged."""
    ours = np.zeros_like(want)
    for row, plan in zip(ours, plans, strict=True):
        row[: len(plan)] = plan
    return Check(what="token ids", kind="values", error=float((ours != want).sum()))


def _summary_names(key: str) -> tuple[str, ...]:
    """``grad:NAME`` -> ``grad_rows:NAME`` and the others."""
    moment, _, name = key.partition(":")
    return tuple(f"{moment}_{part}:{name}" for part in ("rows", "proj", "norm", "corner"))


def _summaries(key: str, matrix: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What is published of a large matrix: see `parity/README.md`."""
    signs = torch.from_numpy(np.random.RandomState(99).choice([-1, 1], len(matrix)))
    parts = (matrix.sum(1), signs.to(matrix) @ matrix, matrix.norm(), matrix[:8, :8])
    yield from zip(_summary_names(key), parts, strict=True)
