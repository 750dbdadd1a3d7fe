"""The values of a grid: a course (one prompt to be learned), a cell (one record of it), and how the work is done.

All of them are plain: they can be pickled, sent to another process or machine, and carried out there by `run_cell`.

    OUT/prompts/SET/all/METHOD/shots16/seed1/              what a course leaves: the learned prompt, its log, its checkpoint
    OUT/prompts/SET/all/METHOD@cross-dataset/shots16/...   where cross-dataset (and domain) has other settings than few-shot
    OUT/few-shot/SET/METHOD/shots16/seed1/                 a cell: result.json (last), predictions.npz, per_class.csv
    OUT/base-to-novel/SET/METHOD/shots16/seed1/base|novel/
    OUT/cross-dataset/SOURCE/METHOD/shots16/seed1/SET/     and the same for domain
    OUT/transfer/SET/METHOD/shots0|16/seed1/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from vlprompt import records
from vlprompt.data import Subset
from vlprompt.engine.config import Means
from vlprompt.methods import recipes
from vlprompt.types import Views

Protocol = Literal["few-shot", "base-to-novel", "cross-dataset", "domain", "transfer"]
PROTOCOLS: tuple[Protocol, ...] = ("few-shot", "base-to-novel", "cross-dataset", "domain", "transfer")
PROMPTS = "prompts"
COURSE, CELL = "course.json", "cell.json"
"""What decides a course and a cell, written before anything is done, so nothing is mixed up later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One prompt to be learned, however many sets it is tested on."""

    method: str
    options: Mapping[str, object]
    """All of the method's options and its schedule's, resolved."""
    overrides: Mapping[str, str]
    """Of them those that were asked for, as ``--set`` gives them."""
    recipe: str
    """The name of its file; "": the method's neutral values."""
    choices: str
    """Whose the settings are, as `whose` says it."""
    model: str
    weight_hash: str
    dtype: str
    views: Views
    data: str
    """As `open_dataset` takes it."""
    dataset: str
    """Its name."""
    data_hash: str
    """SHA-256 over the ids and labels of its training and validation images."""
    template: str
    subset: Subset
    """Classes learned on: all, or the base half."""
    shots: int | None
    """Images per class; None: all; 0: nothing is learned."""
    seed: int
    init: str = ""
    """The directory of the learned prompt that it starts from."""
    init_hash: str = ""
    teacher: str = ""
    """Another model or run that teaches; "": the frozen model itself, or none."""
    teacher_hash: str = ""
    num_train: int = 0
    """Training images that the sample will have: for estimates only."""
    variant: str = ""
    """The protocol whose settings it has, where few-shot's on the same images are others."""

    @property
    def place(self) -> Path:
        """Relative to the grid's directory."""
        method, *others = _steps(self)
        return Path(PROMPTS, self.dataset, self.subset, f"{method}@{self.variant}" if self.variant else method, *others)

    @property
    def facts(self) -> dict[str, object]:
        """All that decides the prompt, as JSON has it; where things lie does not count."""
        values: dict[str, object] = json.loads(json.dumps(asdict(self), default=str))
        if not self.teacher_hash:  # as before there were other teachers
            values.pop("teacher_hash")
        return {name: value for name, value in values.items() if name not in _MAY_CHANGE}


_MAY_CHANGE = ("overrides", "recipe", "choices", "model", "data", "init", "teacher", "num_train")
"""A recipe's settings count, not its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One record: a course's prompt on the test images of one set."""

    protocol: Protocol
    course: Course
    data: str
    """The set whose test images are asked about, as `open_dataset` takes it."""
    dataset: str
    subset: Subset
    test_hash: str
    """SHA-256 over the ids and labels of its test images."""
    num_test: int = 0
    """For estimates only."""

    @property
    def source(self) -> str:
        """The set that the prompt was learned from, where it is another one."""
        return "" if self.course.dataset == self.dataset else self.course.dataset

    @property
    def place(self) -> Path:
        """Relative to the grid's directory."""
        steps = _steps(self.course)
        match self.protocol:
            case "base-to-novel":
                return Path(self.protocol, self.dataset, *steps, self.subset)
            case "cross-dataset" | "domain":
                return Path(self.protocol, self.course.dataset, *steps, self.dataset)
            case "few-shot" | "transfer":
                return Path(self.protocol, self.dataset, *steps)

    @property
    def facts(self) -> dict[str, object]:
        """All that decides the record."""
        own = {"tested on": self.dataset, "tested classes": self.subset, "test_hash": self.test_hash}
        return {"protocol": self.protocol, **own, **self.course.facts}

    @property
    def planned(self) -> dict[str, object]:
        """What a dry run says of it, as JSON has it."""
        course = self.course
        known = recipes.read(course.recipe) if course.recipe else None
        return {
            "place": str(self.place),
            "method": course.method,
            "data": self.dataset,
            "learned_on": course.dataset,
            "subset": self.subset,
            "protocol": self.protocol,
            "shots": course.shots,
            "seed": course.seed,
            "recipe": course.recipe,
            "recipe_files": list(known.files) if known else [],
            "recipe_hash": known.hash if known else "",
            "choices": course.choices,
            "views": course.views,
            "template": course.template,
            "settings": dict(course.options),
        }

    @property
    def name(self) -> str:
        """For people: ``cross-dataset emoji-subgroups -> clipart-things, coop, 16 shots, seed 1``."""
        sets = f"{self.source} -> {self.dataset}" if self.source else self.dataset
        half = f" ({self.subset})" if self.subset != "all" else ""
        shots = "all images" if self.course.shots is None else f"{self.course.shots} shots"
        return f"{self.protocol} {sets}{half}, {self.course.method}, {shots}, seed {self.course.seed}"


def _steps(course: Course) -> tuple[str, ...]:
    origin = f"-from-{course.init_hash[:8]}" if course.init_hash else ""
    taught = f"-by-{course.teacher_hash[:8]}" if course.teacher_hash else ""
    shots = "all-images" if course.shots is None else f"shots{course.shots}"
    return f"{course.method}{origin}{taught}", shots, f"seed{course.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The directory that cells are worked on in, and how."""

    out: Path
    means: Means = field(default_factory=Means)
    attempts: int = 3
    """How often a cell is begun, over all calls, before it is given up."""

    def of(self, cell: Cell) -> Path:
        return self.out / cell.place

    def learned(self, course: Course) -> Path:
        return self.out / course.place

    def finished(self, cell: Cell) -> bool:
        return records.finished(self.of(cell))

    def record(self, cell: Cell) -> records.Record:
        return records.read(self.of(cell))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a cell."""

    place: Path
    state: Literal["done", "failed", "given up", "busy"]
    """busy: another process works on it. given up: it failed too often before and was not begun."""
    top1: float | None = None
    zero_shot_top1: float | None = None
    seconds: float = 0.0
    reason: str = ""
    exit_code: int = 0
    again: bool = False
    """Whether the failure may pass: everything but what the user has to mend."""


def batches(cells: list[Cell] | tuple[Cell, ...], replicas: int = 1) -> list[tuple[Cell, ...]]:
    """Cells by course, in order: what one process does in one go. replicas: so many courses that differ in their seed alone go together."""
    courses: dict[Path, list[Cell]] = {}
    for cell in cells:
        courses.setdefault(cell.course.place, []).append(cell)
    seeds: dict[Path, list[list[Cell]]] = {}
    for place, group in courses.items():
        seeds.setdefault(place.parent, []).append(group)
    return [
        tuple(cell for group in groups[number : number + replicas] for cell in group)
        for groups in seeds.values()
        for number in range(0, len(groups), replicas)
    ]
