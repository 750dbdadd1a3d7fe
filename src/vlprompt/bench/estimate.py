"""What a grid will take: by what its directory has measured, else by steps timed on made-up images and multiplied.

A step is timed at two numbers of classes. A line through them gives the image side and the rest at no class, and the text side by the
class. Nothing is learned or kept.
"""

from __future__ import annotations

import functools
import io
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from vlprompt import artifact, reading, records
from vlprompt.bench import work
from vlprompt.bench.cells import PROMPTS, Cell, Course, Grid, Protocol
from vlprompt.bench.protocols import Plan
from vlprompt.bench.request import labels_of
from vlprompt.bench.work import learned_already
from vlprompt.bench.workspace import Desk, made_up
from vlprompt.data import FewShot, Sample, Subset, few_shot
from vlprompt.engine.duration import ENOUGH, stepping
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.forward import Forward, reads_frozen
from vlprompt.engine.images import Images
from vlprompt.engine.optim import batches
from vlprompt.engine.precision import device_name, synchronize
from vlprompt.engine.train import Lesson, estimate_step, new_prompt, view_of
from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.resolve import resolve
from vlprompt.types import Fit, Method, PromptSpec, Steps

FEW, MANY, VERY_MANY = 10, 200, 1000
"""Classes that a step is timed with: few and many. If a step with few takes less than QUICK seconds, also very many, because on
a fast device many still cost almost nothing (project's choice)."""
QUICK = 0.1
SLOW, MOST = 3.0, 6
"""Timing repeats until ENOUGH seconds are over or MOST repeats are done: at least twice, unless the first took SLOW seconds.
The quickest counts, because a first time warms up and other programs only slow it down."""
TESTED = 4
"""Images that are encoded or answered for at once when that is timed."""
WIDTH, HEIGHT = 500, 375
"""Of the made-up photographs, as the papers' sets have them."""
BYTES = 4
"""Of one number of a cached feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCost:
    """What learning one prompt took, or is going to take by what was timed."""

    method: str
    dataset: str
    subset: str
    shots: int | None
    num_train: int
    seconds: float
    peak_mib: float
    variant: str = ""
    """As the course's."""


def _key(one: Course | LearningCost) -> tuple[object, ...]:
    """What courses have in common that differ in their seed alone."""
    return one.method, one.dataset, one.subset, one.shots, one.variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some cells will take."""

    seconds: float
    """Of those whose time is known, one after the other."""
    unknown: int
    """Prompts of methods that nothing is known of."""
    peak_mib: float | None
    """The largest process with these methods; None: nothing known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was timed of a method."""

    method: str
    batch: int
    """Images of a step."""
    timed: Mapping[int, float]
    """Number of classes -> seconds of a step."""

    @property
    def per_class(self) -> float:
        """Seconds by the class, through both times; 0 where more classes took no longer."""
        (few, less), (many, more) = sorted(self.timed.items())
        return max(0.0, (more - less) / (many - few))

    def at(self, classes: int) -> float:
        """Seconds of a step with so many classes."""
        few, less = min(self.timed.items())
        return max(0.0, less - few * self.per_class) + self.per_class * classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The features that the cache will hold of one data set."""

    dataset: str
    images: int
    pairs: int
    """Distinct pairs of an image and a view."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a plan will take, by what was timed on this device."""

    device: str
    steps: tuple[Step, ...]
    image: float
    """Seconds of decoding and encoding one image in the bare tower."""
    learnings: tuple[LearningCost, ...]
    """One of every method, data set, half and count; the features are not in them."""
    tests: Mapping[Path, float]
    """Seconds of a test by the cell's place, of methods whose images go through the tower at each."""
    held: tuple[Held, ...]
    """By data set."""

    @property
    def features(self) -> float:
        """Seconds to fill an empty cache."""
        return self.image * sum(one.pairs for one in self.held)


class Measured:
    """What the finished work of a directory took, and what other work will take by it."""

    def __init__(self, grid: Grid, cells: Iterable[Cell], ahead: Outlook | None = None) -> None:
        """Prompts are all in the directory, and those of `ahead` of methods that it lacks. Tests are those of the cells given, and
        those of `ahead` of methods without any."""
        paths = sorted((grid.out / PROMPTS).glob(f"*/*/*/*/*/{artifact.FACTS}"))
        by_place = {path.parent: one for path in paths if (one := _read(path)) is not None}
        self._tests = {} if ahead is None else ahead.tests
        self.learned = {one.method for one in by_place.values()}
        timed = () if ahead is None else ahead.learnings
        self.learnings = [*by_place.values(), *(one for one in timed if one.method not in self.learned)]
        self.tested: dict[str, list[float]] = {}
        """Method -> seconds for an image, of each finished cell."""
        for cell in cells:
            learned = by_place.get(grid.learned(cell.course))
            if learned is not None and cell.num_test and grid.finished(cell):
                testing = records.read(grid.of(cell)).seconds - learned.seconds
                self.tested.setdefault(cell.course.method, []).append(testing / cell.num_test)

    def learning(self, course: Course) -> float | None:
        """Seconds to learn a course's prompt: the mean over other seeds of the same; else by images from the same method's
        other prompts (their median); None where there is none."""
        if exact := [one.seconds for one in self.learnings if _key(one) == _key(course)]:
            return statistics.fmean(exact)
        rates = [one.seconds / one.num_train for one in self.learnings if one.method == course.method and one.num_train]
        return statistics.median(rates) * course.num_train if rates else None

    def testing(self, cell: Cell) -> float:
        """Seconds to test a cell: by images from the median of the method's finished ones, else as timed; 0 where there is
        neither."""
        rates = self.tested.get(cell.course.method)
        return statistics.median(rates) * cell.num_test if rates else self._tests.get(cell.place, 0.0)

    def need(self, cells: Sequence[Cell], new: Iterable[Course]) -> Cost:
        """What unfinished cells still need: their tests, and the learning of the courses `new`."""
        learning = [self.learning(course) for course in new]
        names = {cell.course.method for cell in cells}
        return Cost(
            seconds=sum(map(self.testing, cells)) + sum(one for one in learning if one is not None),
            unknown=learning.count(None),
            peak_mib=max((one.peak_mib for one in self.learnings if one.method in names), default=None),
        )


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


def lines(plan: Plan, grid: Grid, ahead: Outlook | None = None) -> list[PlanLine]:
    """The plan by protocol and method; a prompt that two protocols share is counted with the first. `ahead` stands for what the
    directory has not measured."""
    measured, seen = Measured(grid, plan.cells, ahead), set[Path]()
    out = []
    for key in dict.fromkeys((cell.protocol, cell.course.method) for cell in plan.cells):
        own = [cell for cell in plan.cells if (cell.protocol, cell.course.method) == key]
        todo = [cell for cell in own if not grid.finished(cell)]
        places = {cell.course.place: cell.course for cell in todo}
        new = [course for place, course in places.items() if place not in seen and _to_learn(course, grid)]
        seen |= set(places)
        failed = [
            cell for cell in todo if any(work.read(at).reasons for at in (grid.of(cell), grid.learned(cell.course)))
        ]
        out.append(
            PlanLine(
                protocol=key[0],
                method=key[1],
                cells=len(own),
                finished=len(own) - len(todo),
                failed=len(failed),
                prompts=len(new),
                need=measured.need(todo, new),
                recipe=_said_of(own[0].course.recipe),
            )
        )
    return out


def total(found: Iterable[PlanLine]) -> Cost:
    """What all lines need together, in one process."""
    needs = [line.need for line in found]
    return Cost(
        seconds=sum(need.seconds for need in needs),
        unknown=sum(need.unknown for need in needs),
        peak_mib=max((need.peak_mib for need in needs if need.peak_mib is not None), default=None),
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


def look_ahead(plan: Plan, grid: Grid, desk: Desk, say: Callable[[str], None] = lambda text: None) -> Outlook:
    """Time what a plan's methods do, as far as the directory has not measured it, and multiply; `say` is told what is being timed."""
    images = desk.images(plan.request.model, plan.request.dtype)
    probe, measured = _Probe(images, desk, say), Measured(grid, plan.cells)
    image = probe.image()
    learnings: dict[tuple[object, ...], LearningCost] = {}
    tests: dict[Path, float] = {}
    for cell in plan.cells:
        course, method = cell.course, resolved(cell.course)
        new = course.method not in measured.learned and _key(course) not in learnings and _to_learn(course, grid)
        if new and isinstance(method.learner, Steps):
            learnings[_key(course)] = probe.learning(course, method)
        if tests_anew(method) and not grid.finished(cell) and course.method not in measured.tested:
            classes = len(_names(desk, cell.data, cell.subset))
            tests[cell.place] = probe.test(course, method).at(classes) * cell.num_test
    return Outlook(
        device=device_name(images.clip.device),
        steps=tuple(probe.steps.values()),
        image=image,
        learnings=tuple(learnings.values()),
        tests=tests,
        held=held(plan, desk, images.clip.facts.embed_dim),
    )


def tests_anew(method: Method) -> bool:
    """Whether every test passes images through the tower, or through the text for each image, or learns from them."""
    reach = method.prompt.reach
    return reach.image_tower or "image" in reach.sees or method.at_test is not None


@functools.cache
def _resolve(method: str, options: tuple[tuple[str, object], ...]) -> Method:
    return resolve(method, dict(options))


def resolved(course: Course) -> Method:
    """A course's method with every choice made."""
    return _resolve(course.method, tuple(course.options.items()))


def _names(desk: Desk, data: str, subset: Subset) -> tuple[str, ...]:
    names = desk.material(data).class_names
    return tuple(names[label] for label in labels_of(len(names), subset))


def _shape(prompt: PromptSpec) -> str:
    """What of a prompt decides how long a step takes: all but the values that it starts from."""
    return re.sub(r"init='[^']*'", "", repr(prompt))


class _Probe:
    """Times each thing once."""

    def __init__(self, images: Images, desk: Desk, say: Callable[[str], None]) -> None:
        self.images, self.desk, self.say = images, desk, say
        self.steps: dict[tuple[str, int, str], Step] = {}
        self._tests: dict[str, Step] = {}

    def image(self) -> float:
        """Seconds of decoding and encoding one image."""
        self.say("Timing the image tower")
        return self._quickest(lambda: self.images.encode(photographs(TESTED), None)) / TESTED

    def learning(self, course: Course, method: Method) -> LearningCost:
        """What a course will take: its steps, each as long as its number of classes says."""
        names, schedule = _names(self.desk, course.data, course.subset), method.schedule
        per_epoch = len(batches(course.num_train, schedule.batch, seed=course.seed, epoch=0))
        lesson = self._lesson(course, names, min(schedule.batch, course.num_train))
        return LearningCost(
            method=course.method,
            dataset=course.dataset,
            subset=course.subset,
            shots=course.shots,
            num_train=course.num_train,
            seconds=schedule.epochs * per_epoch * self._step(course, method).at(len(names)),
            peak_mib=estimate_step(self.images.clip, method, lesson).total / 2**20,
            variant=course.variant,
        )

    def test(self, course: Course, method: Method) -> Step:
        """Answering for one image, of a method whose features are not in the cache; longer with more classes where its text depends
        on the image."""
        key = f"{_shape(method.prompt)} {method.at_test}"  # which losses it was learned by makes no difference
        if key not in self._tests:
            self.say(f"Timing answers of {course.method}")
            few = self._answer(course, method, FEW)
            depends = "image" in method.prompt.reach.sees or method.at_test is not None
            many = {MANY: self._answer(course, method, MANY)} if depends else {FEW + 1: few}
            self._tests[key] = Step(method=course.method, batch=1, timed={FEW: few, **many})
        return self._tests[key]

    def _step(self, course: Course, method: Method) -> Step:
        key = (course.method, method.schedule.batch, _shape(method.prompt))
        if key not in self.steps:
            self.say(f"Timing steps of {course.method}")
            few = self._seconds(course, method, FEW)
            number = VERY_MANY if few < QUICK else MANY
            timed = {FEW: few, number: self._seconds(course, method, number)}
            self.steps[key] = Step(method=course.method, batch=method.schedule.batch, timed=timed)
        return self.steps[key]

    def _seconds(self, course: Course, method: Method, classes: int) -> float:
        """Of a step; the teacher's sentences, read once before the first, are not in it."""
        clip, lesson = self.images.clip, self._lesson(course, made_up(0, classes), method.schedule.batch)
        rows = estimate_step(clip, method, lesson).max_rows
        forward = Forward(clip, replace(method, teacher=None), lesson.class_names, lesson.template, max_rows=rows)
        return self._quickest(stepping(forward, method, lesson, self.images))

    def _answer(self, course: Course, method: Method, classes: int) -> float:
        clip = self.images.clip
        prompt = new_prompt(clip, method.prompt, classes, course.seed)
        classifier = Classifier(clip, method, prompt, made_up(0, classes), course.template)
        bare = Images(clip, None)  # nothing is kept of made-up images
        number = TESTED if method.at_test is None else 1
        return self._quickest(lambda: classifier.logits(photographs(number), bare)) / number

    def _lesson(self, course: Course, names: tuple[str, ...], images: int) -> Lesson:
        """Made-up images of some classes, as the course learns from its own."""
        return Lesson(
            samples=photographs(images, len(names)),
            class_names=names,
            template=course.template,
            seed=course.seed,
            views=course.views,
            max_memory=self.desk.means.max_memory,
        )

    def _quickest(self, do: Callable[[], object]) -> float:
        """Seconds of doing something."""
        took: list[float] = []
        while True:
            synchronize(self.images.clip.device)
            began = time.perf_counter()
            do()
            synchronize(self.images.clip.device)
            took.append(time.perf_counter() - began)
            if len(took) == MOST or (sum(took) >= ENOUGH and (len(took) > 1 or took[0] >= SLOW)):
                return min(took)


def photographs(number: int, classes: int = 1) -> tuple[Sample, ...]:
    """Made-up images of a photograph's size, labels in turn."""
    return tuple(Sample(id=f"probe/{i}", label=i % classes, source=functools.partial(_jpeg, i)) for i in range(number))


@functools.cache
def _jpeg(seed: int) -> bytes:
    """A smooth picture of random colours."""
    colours = np.random.RandomState(seed).randint(0, 256, (HEIGHT // 25, WIDTH // 25, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def held(plan: Plan, desk: Desk, embed_dim: int) -> tuple[Held, ...]:
    """The features that working off a plan leaves in the cache: of every set the pairs of an image and a view of the bare tower.

    Validation and test images in the test view; training images in the views that their methods read. A method that prompts the
    image tower reads none of them, but for a teacher's.
    """
    found: dict[str, dict[int | None, set[str]]] = {}
    names: dict[str, str] = {}
    for data, subset in dict.fromkeys((cell.data, cell.subset) for cell in plan.cells):
        labels = labels_of(len(desk.material(data).class_names), subset)
        own = found.setdefault(data, {}).setdefault(None, set())
        own |= {one.id for one in desk.questions(data).test if one.label in labels}
    for cell in plan.cells:
        names[cell.data] = cell.dataset
    samples: dict[tuple[object, ...], FewShot] = {}
    for course in {cell.course.place: cell.course for cell in plan.cells if cell.course.shots != 0}.values():
        hold_out = resolved(course).chooses
        material, key = desk.material(course.data), (course.data, course.shots, course.seed, hold_out)
        if key not in samples:
            samples[key] = few_shot(material, course.shots, course.seed, hold_out=hold_out)
        labels = labels_of(len(material.class_names), course.subset)
        names[course.data], views = course.dataset, found.setdefault(course.data, {})
        views.setdefault(None, set()).update(one.id for one in samples[key].val if one.label in labels)
        train = {one.id for one in samples[key].train if one.label in labels}
        for view in _views(course):
            views.setdefault(view, set()).update(train)
    return tuple(_held(names[data], views, embed_dim) for data, views in found.items())


def _held(dataset: str, views: Mapping[int | None, set[str]], embed_dim: int) -> Held:
    pairs = sum(len(ids) for ids in views.values())
    images = len(set[str]().union(*views.values()))
    return Held(dataset=dataset, images=images, pairs=pairs, bytes=pairs * embed_dim * BYTES)


def _views(course: Course) -> Iterator[int | None]:
    """The views of its training images whose bare features a course reads."""
    method = resolved(course)
    if isinstance(method.learner, Fit):
        yield None
    elif isinstance(method.learner, Steps) and reads_frozen(method.prompt, method.needs):
        yield from {view_of(course.views, epoch, course.seed) for epoch in range(method.schedule.epochs)}
