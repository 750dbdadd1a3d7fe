"""The cases of a folder, one at a time, each computed and set next to the published numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vlprompt.errors import NUMERICAL, UserError, data_error
from vlprompt.verify.cases import answer, sentence_ids
from vlprompt.verify.compare import Check, Compared, compare, compare_ids
from vlprompt.verify.given import CaseInputs, given, telling
from vlprompt.verify.parity import OURS, TRAJECTORIES, Folder
from vlprompt.verify.trajectories import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of a folder's index."""

    folder: Folder
    name: str
    """``trajectories/coop_end`` for a whole training run."""
    entry: Mapping[str, Any]

    @property
    def where(self) -> str:
        return str(self.folder.place / self.entry["name"])


def cases_in(folder: Folder = OURS) -> tuple[Case, ...]:
    """The cases of a folder in the order of its index, then those of its `trajectories/`, where there is one.

    UserError: no such folder, or one without an index of cases.
    """
    found = [Case(folder=folder, name=entry["name"], entry=entry) for entry in folder.index()["cases"]]
    runs = Folder(folder.place / TRAJECTORIES)
    if runs.place.is_dir():
        found += [Case(folder=runs, name=f"{TRAJECTORIES}/{one['name']}", entry=one) for one in runs.index()["cases"]]
    if not found:
        raise data_error(f"{folder.place} has no cases: the list in its index is empty.")
    return tuple(found)


def run_case(case: Case, *, device: str = "cpu", dtype: str = "float32") -> Compared:
    """Compute a case on `device` with weights held in `dtype`; only float32 is judged by the tolerances.

    An operation that the device lacks, or has no memory for, is a failed case that says so, not the end of the others. UserError: a
    folder that is not as parity/README.md has it.
    """
    with telling(case.where):
        inputs = given(case.folder, case.entry, device, dtype)
        want = case.folder.case(inputs.name)
    try:
        checks = _checks(case, inputs, want, judged=dtype == "float32")
    except (RuntimeError, UserError) as problem:
        if isinstance(problem, UserError) and problem.exit_code != NUMERICAL:
            raise
        what = f"stopped ({' '.join(str(problem).split())[:200]})"
        checks = (Check(what=what, kind="values", error=math.inf),)
    return Compared(name=case.name, source=inputs.source, checks=checks)


def _checks(case: Case, inputs: CaseInputs, want: Mapping[str, Any], *, judged: bool) -> tuple[Check, ...]:
    """Without cuDNN, whose convolutions round float32 to TF32 by default: the published numbers did not."""
    with torch.backends.cudnn.flags(enabled=False):
        found = run(inputs) if inputs.trains else answer(inputs)
    with telling(f"{case.where}.npz"):
        ids = () if inputs.trains else (compare_ids(sentence_ids(inputs), want["token_ids"]),)
        return (*ids, *compare(found, want, judged=judged))
