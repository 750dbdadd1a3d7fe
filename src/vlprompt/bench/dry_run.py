"""What a plan will take before any of its data are there: steps timed on made-up images and multiplied, and cached features counted.

A set of the papers that is not on disk stands there by its published size, without an image. A step is timed at two numbers of
classes. A line through them gives the image side and the rest at no class, and the text side by the class. Nothing is learned or kept.
"""

from __future__ import annotations

import functools
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlprompt import pocket
from vlprompt.bench.cells import Course
from vlprompt.bench.estimate import LearningCost, learning_of, lesson_of, tests_anew
from vlprompt.bench.protocols import Plan
from vlprompt.bench.request import labels_of
from vlprompt.bench.workspace import Desk
from vlprompt.data import Dataset, FewShot, Sample, Subset, few_shot
from vlprompt.data.papers import catalogue
from vlprompt.data.papers.catalogue import FEW_SHOT, SHIFTED
from vlprompt.data.papers.row import SetRow
from vlprompt.engine.config import Means
from vlprompt.engine.duration import stepping
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.forward import Forward, reads_frozen
from vlprompt.engine.images import Images
from vlprompt.engine.optim import batches
from vlprompt.engine.precision import device_name, resolve_device, synchronize
from vlprompt.engine.train import estimate_step, new_prompt, view_of
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.towers.random_clip import draw_clip
from vlprompt.types import Fit, Method, PromptSpec, Steps

FEW, MANY, VERY_MANY = 10, 200, 1000
"""Classes that a step is timed with: few and many. If a step with few takes less than QUICK seconds, also very many, because on
a fast device many still cost almost nothing (project's choice)."""
QUICK = 0.1
ENOUGH, SLOW, MOST = 1.0, 3.0, 6
"""Timing repeats until ENOUGH seconds are over or MOST repeats are done: at least twice, unless the first took SLOW seconds.
The quickest counts, because a first time warms up and other programs only slow it down."""
TESTED = 4
"""Images that are encoded or answered for at once when that is timed."""
WIDTH, HEIGHT = 500, 375
"""Of the made-up photographs, as the papers' sets have them."""
BYTES = 4
"""Of one number of a cached feature."""
PLACE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTime:
    """Seconds as a line in the number of classes."""

    base: float
    per_class: float = 0.0

    def at(self, classes: int) -> float:
        return self.base + self.per_class * classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was timed of a method."""

    method: str
    batch: int
    """Images of a step."""
    timed: Mapping[int, float]
    """Number of classes -> seconds of a step."""

    @property
    def line(self) -> LinearTime:
        """Through both times; level where more classes took no longer."""
        (few, less), (many, more) = sorted(self.timed.items())
        slope = max(0.0, (more - less) / (many - few))
        return LinearTime(base=max(0.0, less - few * slope), per_class=slope)


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
        """Seconds to fill the cache."""
        return self.image * sum(one.pairs for one in self.held)


def look_ahead(plan: Plan, desk: Desk, say: Callable[[str], None] = lambda text: None) -> Outlook:
    """Time what a plan's methods do and multiply; `say` is told what is being timed."""
    request = plan.request
    images = desk.images(request.model, request.dtype)
    probe = _Probe(images, desk, say)
    image = probe.image()
    learnings: dict[tuple[object, ...], LearningCost] = {}
    tests: dict[Path, float] = {}
    for cell in plan.cells:
        course, method = cell.course, resolved(cell.course)
        key = (course.method, course.dataset, course.subset, course.shots, course.variant)
        if course.shots != 0 and key not in learnings and (learning := probe.learning(course, method)) is not None:
            learnings[key] = learning
        if tests_anew(method):
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
        self._tests: dict[str, LinearTime] = {}
        self._peaks: dict[tuple[object, ...], float] = {}

    def image(self) -> float:
        """Seconds of decoding and encoding one image."""
        self.say("Timing the image tower")
        return self._quickest(lambda: self.images.encode(photographs(TESTED), None)) / TESTED

    def learning(self, course: Course, method: Method) -> LearningCost | None:
        """What a course will take: its steps, each as long as its number of classes says. None: it has no steps."""
        if not isinstance(method.learner, Steps):
            return None
        names = _names(self.desk, course.data, course.subset)
        line = self._step(course, method).line
        per_epoch = len(batches(course.num_train, method.schedule.batch, seed=course.seed, epoch=0))
        seconds = method.schedule.epochs * per_epoch * line.at(len(names))
        return learning_of(course, course.num_train, seconds, self._peak(course, method, names))

    def test(self, course: Course, method: Method) -> LinearTime:
        """Seconds of answering for one image, of a method whose features are not in the cache; by the class where its text depends
        on the image."""
        key = f"{_shape(method.prompt)} {method.at_test}"  # which losses it was learned by makes no difference
        if key not in self._tests:
            self.say(f"Timing answers of {course.method}")
            few = self._answer(course, method, FEW)
            depends = "image" in method.prompt.reach.sees or method.at_test is not None
            many = {MANY: self._answer(course, method, MANY)} if depends else {FEW + 1: few}
            self._tests[key] = Step(method=course.method, batch=1, timed={FEW: few, **many}).line
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
        lesson = lesson_of(course, made_up(0, classes), photographs(method.schedule.batch, classes), self.desk)
        rows = estimate_step(self.images.clip, method, lesson).max_rows
        clip, names, words = self.images.clip, lesson.class_names, lesson.template
        forward = Forward(clip, method.prompt, method.needs, names, words, max_rows=rows)
        take = stepping(forward, method, lesson, self.images)
        return self._quickest(take)

    def _answer(self, course: Course, method: Method, classes: int) -> float:
        clip = self.images.clip
        prompt = new_prompt(clip, method.prompt, classes, course.seed)
        classifier = Classifier(
            clip, method.prompt, prompt, made_up(0, classes), course.template, at_test=method.at_test
        )
        bare = Images(clip, None)  # nothing is kept of made-up images
        number = TESTED if method.at_test is None else 1
        return self._quickest(lambda: classifier.logits(photographs(number), bare)) / number

    def _peak(self, course: Course, method: Method, names: tuple[str, ...]) -> float:
        """MiB of a step of the course's own classes, as `estimate_step` counts them."""
        batch = min(method.schedule.batch, course.num_train)
        key = (course.method, _shape(method.prompt), batch, names)
        if key not in self._peaks:
            lesson = lesson_of(course, names, photographs(batch), self.desk)
            self._peaks[key] = estimate_step(self.images.clip, method, lesson).total / 2**20
        return self._peaks[key]

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
    return tuple(
        Sample(id=f"{PLACE}/{i}", label=i % classes, source=functools.partial(_jpeg, i)) for i in range(number)
    )


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


PAPERS_MODEL = "openai/clip-vit-base-patch16"
"""The backbone of the papers' tables; where it cannot be had, random weights of its shape are timed."""
SOURCE = "imagenet"
"""Whose classes the variants have."""
FEWEST_LETTERS = 4
"""Of a word that a stand-in's class may be called by."""


def lacking(data: str) -> SetRow | None:
    """The row of a set of the papers that is not on this disk; None: it is there, or `data` means something else."""
    row = catalogue.find(data)
    if row is None or row.name not in FEW_SHOT + SHIFTED or data in pocket.names():
        return None
    place = catalogue.place(data, None)
    there = (place is not None and place.exists()) or Path(data).expanduser().exists()
    return None if there else row


class SizedDesk(Desk):
    """A desk to plan at, with which nothing can be learned: sets of the papers that are not on disk stand there by their sizes."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self.sized: dict[str, SetRow] = {}
        """Those that are not on disk, as they were asked for."""
        self.instead = ""
        """Why random weights stand in for the papers' model; empty: they do not."""

    def _loaded(self, model: str, dtype: str) -> Clip:
        """The papers' model in random weights where it cannot be had and the data are not there either."""
        try:
            return super()._loaded(model, dtype)
        except UserError as problem:
            if model != PAPERS_MODEL or not self.sized:
                raise
            self.instead = str(problem)
            return draw_clip(device=resolve_device(self.means.device), dtype=dtype)

    def _opened(self, data: str) -> Dataset:
        if (row := lacking(data)) is None:
            return super()._opened(data)
        self.sized[data] = row
        return stand_in(row)


def stand_in(row: SetRow) -> Dataset:
    """A set with a row's published numbers of classes and images, in classes as equal as they can be, whose images cannot be read.

    An ImageNet variant has the first of ImageNet's classes; of other sets no class is another's.
    """
    train, val, test = (
        tuple(_samples(part, number or 0, row.classes))
        for part, number in zip(("train", "val", "test"), row.sizes, strict=True)
    )
    names = class_names(row)
    return Dataset(name=row.name, class_names=names, template=row.template, train=train, val=val, test=test)


def class_names(row: SetRow) -> tuple[str, ...]:
    """As `made_up`, ImageNet's from the first on and each other set's after the set before it."""
    first = 0
    if row.name not in (SOURCE, *SHIFTED):
        before = FEW_SHOT[: FEW_SHOT.index(row.name)]
        first = sum(catalogue.get(name).classes for name in before)
    return made_up(first, row.classes)


def made_up(first: int, number: int) -> tuple[str, ...]:
    """Names of two and of three words in turn, each of one token of CLIP's: with full stop and [EOT] 4.5 rows a class, as many as
    the 100 real names of docs/performance.md take."""
    words = _words()
    return tuple(" ".join(words[i : i + 2 + i % 2]) for i in range(first, first + number))


@functools.cache
def _words() -> tuple[str, ...]:
    """The words of one token in CLIP's vocabulary, the most frequent first."""
    tokenizer = clip_tokenizer()
    words = dict.fromkeys(tokenizer.word(number) for number in range(tokenizer.vocab_size))
    return tuple(word for word in words if len(word) >= FEWEST_LETTERS and word.isascii() and word.isalpha())


def _samples(part: str, number: int, classes: int) -> Iterator[Sample]:
    """`number` images, class after class; the first classes have one more where they cannot all have as many."""
    each, more = divmod(number, classes)
    memo: dict[str, str] = {}  # one for all of them: nothing can be read that would be remembered
    for label in range(classes):
        for i in range(each + (label < more)):
            yield Sample(id=f"{part}/{label}/{i}", label=label, source=_read_nothing, _memo=memo)


def _read_nothing() -> bytes:
    raise FileNotFoundError(2, "the data set is not on this disk; only its size is known")
