"""What a grid will take: by what its directory has measured, or by a probe; unknown where there is neither."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vlprompt import artifact, reading, records
from vlprompt.bench import work
from vlprompt.bench.cells import PROMPTS, Cell, Course, Grid, Protocol
from vlprompt.bench.protocols import Plan
from vlprompt.bench.work import job_of, learned_already
from vlprompt.bench.workspace import Desk
from vlprompt.data import Sample, few_shot, restrict
from vlprompt.engine.duration import ENOUGH, measure
from vlprompt.engine.evaluate import classifier_of
from vlprompt.engine.images import Images
from vlprompt.engine.train import Lesson, estimate_step, new_prompt
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.types import Method, Steps

TESTED = 16
"""Images that a probe of a test takes together, where they are quick (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCost:
    """What learning one prompt took, or is going to take by a probe."""

    method: str
    dataset: str
    subset: str
    shots: int | None
    num_train: int
    seconds: float
    peak_mib: float
    variant: str = ""
    """As the course's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some cells will take."""

    seconds: float
    """Of those whose time is known, one after the other."""
    unknown: int
    """Prompts of methods that this directory has nothing measured of."""
    peak_mib: float | None
    """The largest process measured with these methods; None: nothing measured."""


class Measured:
    """What the finished work of a directory took, and what other work will take by it."""

    def __init__(
        self,
        grid: Grid,
        cells: Iterable[Cell],
        probed: Sequence[LearningCost] = (),
        tests: Mapping[Path, float] = MappingProxyType({}),
    ) -> None:
        """Prompts are all in the directory, and the probed ones of methods that it lacks. Tests are those of the cells given.
        Methods without any take the seconds in `tests`, by the cell's place."""
        self._tests = tests
        paths = sorted((grid.out / PROMPTS).glob(f"*/*/*/*/*/{artifact.FACTS}"))
        by_place = {path.parent: one for path in paths if (one := _read(path)) is not None}
        names = {one.method for one in by_place.values()}
        self.learnings = [*by_place.values(), *(one for one in probed if one.method not in names)]
        self._rates: dict[str, list[float]] = {}
        for cell in cells:
            learned = by_place.get(grid.learned(cell.course))
            if learned is not None and cell.num_test and grid.finished(cell):
                testing = records.read(grid.of(cell)).seconds - learned.seconds
                self._rates.setdefault(cell.course.method, []).append(testing / cell.num_test)

    def learning(self, course: Course) -> float | None:
        """Seconds to learn a course's prompt: the mean over other seeds of the same; else by images from the same method's
        other prompts (their median); None where there is none."""
        own = [one for one in self.learnings if one.method == course.method]
        same = (course.dataset, course.subset, course.shots, course.variant)
        if exact := [one.seconds for one in own if (one.dataset, one.subset, one.shots, one.variant) == same]:
            return statistics.fmean(exact)
        rates = [one.seconds / one.num_train for one in own if one.num_train]
        return statistics.median(rates) * course.num_train if rates else None

    def testing(self, cell: Cell) -> float:
        """Seconds to test a cell: by images from the median of the method's finished ones, else as probed; 0 where there is
        neither."""
        rates = self._rates.get(cell.course.method)
        return statistics.median(rates) * cell.num_test if rates else self._tests.get(cell.place, 0.0)

    def has_tested(self, method: str) -> bool:
        """Whether a finished cell says how long the method's tests take."""
        return method in self._rates

    def need(self, cells: Sequence[Cell], grid: Grid, new: Iterable[Course]) -> Cost:
        """What unfinished cells still need: their tests, and the learning of those of the courses `new` whose prompt is not
        there."""
        courses = {course.place: course for course in new}
        known, unknown = sum(self.testing(cell) for cell in cells), 0
        for course in courses.values():
            if not _to_learn(course, grid):
                continue
            seconds = self.learning(course)
            known, unknown = (known, unknown + 1) if seconds is None else (known + seconds, unknown)
        names = {cell.course.method for cell in cells}
        peaks = [one.peak_mib for one in self.learnings if one.method in names]
        return Cost(seconds=known, unknown=unknown, peak_mib=max(peaks, default=None))


def _read(path: Path) -> LearningCost | None:
    """A prompt's facts; None where they are another version's."""
    try:
        facts = reading.json_object(path)
        return reading.typed(LearningCost, facts | facts.get("learning", {}), str(path))
    except (UserError, TypeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One protocol with one method, as a plan shows it."""

    protocol: Protocol
    method: str
    cells: int
    finished: int
    failed: int
    """Of those to do, cells with a failed attempt behind them."""
    prompts: int
    """Still to be learned."""
    need: Cost
    recipe: str
    """The file that its settings come from, and whose they are."""


def lines(
    plan: Plan, grid: Grid, probed: Sequence[LearningCost] = (), tests: Mapping[Path, float] = MappingProxyType({})
) -> list[PlanLine]:
    """The plan by protocol and method; a prompt that two protocols share is counted with the first. `probed` and `tests` (seconds
    by a cell's place) stand for what the directory has not measured."""
    measured, seen = Measured(grid, plan.cells, probed, tests), set[Path]()
    out = []
    for key in dict.fromkeys((cell.protocol, cell.course.method) for cell in plan.cells):
        own = [cell for cell in plan.cells if (cell.protocol, cell.course.method) == key]
        todo = [cell for cell in own if not grid.finished(cell)]
        new = {one.course.place: one.course for one in todo if one.course.place not in seen}
        seen |= set(new)
        out.append(
            PlanLine(
                protocol=key[0],
                method=key[1],
                cells=len(own),
                finished=len(own) - len(todo),
                failed=sum(
                    any(work.read(at).reasons for at in (grid.of(one), grid.learned(one.course))) for one in todo
                ),
                prompts=sum(_to_learn(course, grid) for course in new.values()),
                need=measured.need(todo, grid, new.values()),
                recipe=_said_of(own[0].course.recipe),
            )
        )
    return out


def total(found: Iterable[PlanLine]) -> Cost:
    """What all lines need together, in one process."""
    needs = [line.need for line in found]
    peaks = [need.peak_mib for need in needs if need.peak_mib is not None]
    return Cost(
        seconds=sum(need.seconds for need in needs),
        unknown=sum(need.unknown for need in needs),
        peak_mib=max(peaks, default=None),
    )


def _said_of(recipe: str) -> str:
    """The recipe's file, the overlay's before it, and whose its settings are."""
    if not recipe:
        return "none: the method's neutral values"
    known = recipes.read(recipe)
    own = known.files[:2] if known.files[0] != f"{recipe}{recipes.ENDING}" else known.files[:1]
    return f"{' over '.join(own)} ({known.choices})"


def _to_learn(course: Course, grid: Grid) -> bool:
    return course.shots != 0 and not learned_already(grid.learned(course))


def probe(plan: Plan, grid: Grid, desk: Desk) -> tuple[list[LearningCost], dict[Path, float]]:
    """What the directory has not measured: a few steps of one prompt of every such method, and the seconds of the tests of its cells
    (by their place) where every test passes images through the tower or learns from them. Timed and multiplied; nothing is learned.
    A method without steps has no learning here."""
    measured = Measured(grid, plan.cells)
    known = {one.method for one in measured.learnings}
    first: dict[str, Course] = {}
    rates: dict[str, float] = {}
    tests: dict[Path, float] = {}
    for cell in plan.cells:
        name = cell.course.method
        if name not in known and _to_learn(cell.course, grid):
            first.setdefault(name, cell.course)
        if not grid.finished(cell) and not measured.has_tested(name):
            if name not in rates:
                rates[name] = _tested(cell, desk)
            if rates[name]:
                tests[cell.place] = rates[name] * cell.num_test
    return [one for course in first.values() if (one := _probed(course, desk)) is not None], tests


def _tested(cell: Cell, desk: Desk) -> float:
    """Seconds of answering for one image; 0 where the answer is read off features that are kept."""
    course = cell.course
    images, material = desk.images(course.model, course.dtype), restrict(desk.material(course.data), course.subset)
    asked = restrict(desk.questions(cell.data), cell.subset)
    try:
        method = job_of(course, material, images).method
        if not tests_anew(method):
            return 0.0
        prompt = new_prompt(images.clip, method.prompt, len(material.class_names), course.seed)
        classifier = classifier_of(images.clip, method, prompt, asked.class_names, course.template)
        if method.at_test is not None:
            images = Images(images.clip, None)  # as if no view were in the cache: at most so long
        classifier.logits(asked.test[:1], images)
        began = time.perf_counter()
        classifier.logits(asked.test[1:2], images)
        if (took := time.perf_counter() - began) >= ENOUGH or len(asked.test) < 2 + TESTED:
            return took
        began = time.perf_counter()
        classifier.logits(asked.test[2 : 2 + TESTED], images)
        return (time.perf_counter() - began) / TESTED
    except UserError:  # as in `_probed`
        return 0.0


def tests_anew(method: Method) -> bool:
    """Whether every test passes images through the tower, or through the text for each image, or learns from them."""
    reach = method.prompt.reach
    return reach.image_tower or "image" in reach.sees or method.at_test is not None


def _probed(course: Course, desk: Desk) -> LearningCost | None:
    images, material = desk.images(course.model, course.dtype), desk.material(course.data)
    sample = restrict(few_shot(material, course.shots, course.seed), course.subset)
    lesson = lesson_of(course, sample.class_names, sample.train, desk)
    try:
        method = job_of(course, material, images).method
        if not isinstance(method.learner, Steps):
            return None
        need = estimate_step(images.clip, method, lesson)
        duration = measure(images.clip, method, lesson, images, max_rows=need.max_rows)
    except UserError:  # an image that cannot be read, for example: the grid will say so
        return None
    return learning_of(course, len(sample.train), duration.seconds, need.total / 2**20)


def lesson_of(course: Course, names: tuple[str, ...], samples: Sequence[Sample], desk: Desk) -> Lesson:
    """What a course learns from, with these images and classes."""
    words, most = course.template, desk.means.max_memory
    return Lesson(
        samples=samples, class_names=names, template=words, seed=course.seed, views=course.views, max_memory=most
    )


def learning_of(course: Course, num_train: int, seconds: float, peak_mib: float) -> LearningCost:
    """What a course's prompt is going to take."""
    same = {name: getattr(course, name) for name in ("method", "dataset", "subset", "shots", "variant")}
    return LearningCost(num_train=num_train, seconds=seconds, peak_mib=peak_mib, **same)
