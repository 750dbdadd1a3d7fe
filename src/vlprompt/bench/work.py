"""Doing cells: learn the prompt if it is not there, test it, keep the reason if that fails.

`run_cells` is the whole interface to whatever carries the work out: plain values in, plain values out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vlprompt import artifact, disk, plain, reading, records
from vlprompt.artifact import Learned
from vlprompt.bench.cells import CELL, COURSE, Cell, Course, Grid, Outcome
from vlprompt.bench.workspace import Desk
from vlprompt.data import Sample, read_split, restrict, split_hash
from vlprompt.disk import locked_if_free
from vlprompt.engine.checkpoint import CHECKPOINT
from vlprompt.engine.config import require_own, same_work
from vlprompt.engine.evaluate import Classifier, Questions, accuracy
from vlprompt.engine.job import (
    SPLIT,
    Job,
    Learning,
    Work,
    learn_all,
    prepare,
    recipe_template,
    taught_by,
    test,
)
from vlprompt.engine.observer import SILENT, Observer
from vlprompt.engine.precision import peak_mib
from vlprompt.engine.several import fitted, of
from vlprompt.engine.test import seen_among
from vlprompt.engine.train import new_prompt, view_of
from vlprompt.errors import DATA, UserError, data_error
from vlprompt.methods.recipes import hash_of
from vlprompt.methods.resolve import resolve
from vlprompt.records import Predictions, Record
from vlprompt.types import Steps

UNEXPECTED = 1


def run_cells(
    cells: Sequence[Cell], grid: Grid, desk: Desk | None = None, observer: Observer = SILENT
) -> Iterator[Outcome]:
    """Do the cells of one course, or of some that differ in their seed alone, one after the other, each as `run_cell` does it. Where
    a prompt cannot be learned, none of its cells can be done, and learning is not tried again for each."""
    desk, failed = desk or Desk(grid.means), dict[Path, Outcome]()
    learn_together(cells, grid, desk, observer)
    for cell in cells:
        place = grid.learned(cell.course)
        if place in failed:
            yield replace(failed[place], place=cell.place)
            continue
        outcome = run_cell(cell, grid, desk, observer)
        yield outcome
        if outcome.state != "done" and not learned_already(place):
            failed[place] = outcome


def run_cell(cell: Cell, grid: Grid, desk: Desk | None = None, observer: Observer = SILENT) -> Outcome:
    """Do one cell, or read it back if it is finished. Safe with other processes: only one of them learns a prompt at a time.

    Errors become an outcome; KeyboardInterrupt leaves work that the next call continues with.
    """
    learned_at, directory = grid.learned(cell.course), grid.of(cell)
    try:
        if grid.finished(cell):
            return _read_back(cell, grid)
        with locked_if_free(learned_at) as ours:
            if not ours:
                return Outcome(place=cell.place, state="busy")
            if grid.finished(cell):
                return _read_back(cell, grid)
            claim(cell, grid)
            desk = desk or Desk(grid.means)
            if not learned_already(learned_at):
                with attempt(learned_at, grid.attempts):
                    learn_course(cell.course, learned_at, desk, observer)
            with attempt(directory, grid.attempts):
                return _done(cell, examine_cell(cell, learned_at, directory, desk))
    except GivenUp as reason:
        return Outcome(place=cell.place, state="given up", reason=str(reason), exit_code=UNEXPECTED)
    except Exception as error:
        return failure(cell, error)


def failure(cell: Cell, error: BaseException) -> Outcome:
    """The outcome of an error. What the user has to mend does not pass by itself."""
    if disk.is_full(error):
        reason, code = (
            f"{error}. The disk is full or read-only: make room, or use another --out, and run the same command again",
            DATA,
        )
    elif isinstance(error, UserError):
        reason, code = str(error), error.exit_code
    else:
        reason, code = f"{type(error).__name__}: {error}", UNEXPECTED
    return Outcome(place=cell.place, state="failed", reason=reason, exit_code=code, again=code == UNEXPECTED)


def _read_back(cell: Cell, grid: Grid) -> Outcome:
    claim(cell, grid)
    return _done(cell, records.read(grid.of(cell)))


def _done(cell: Cell, record: Record) -> Outcome:
    return Outcome(
        place=cell.place,
        state="done",
        top1=record.top1,
        zero_shot_top1=record.zero_shot_top1,
        seconds=record.seconds,
    )


def claim(cell: Cell, grid: Grid) -> None:
    """Write what decides a cell and its course next to their work, or compare it with what stands there.

    UserError: the work there was begun with something else; what, is said.
    """
    for path, facts in _of(cell, grid):
        if not same_work(path, facts):
            disk.write_json(path, facts)


def check_all(cells: Iterable[Cell], grid: Grid) -> None:
    """As `claim` for many cells, writing nothing: what a plan does before anything begins."""
    require_own(grid.out, "", "grid")
    checked: set[Path] = set()
    for cell in cells:
        for path, facts in _of(cell, grid):
            if path not in checked:
                same_work(path, facts)
                checked.add(path)


def _of(cell: Cell, grid: Grid) -> tuple[tuple[Path, Mapping[str, object]], ...]:
    course = cell.course
    return (grid.learned(course) / COURSE, course.facts), (grid.of(cell) / CELL, cell.facts)


ATTEMPTS = "attempts.json"
SCHEMA = 1
SILENT_END = "ended without a word (killed, out of memory, or the machine stopped)"


@dataclass(slots=True)
class History:
    """What is known of earlier attempts."""

    begun: bool = False
    """Whether one began that has not ended: when, is the file's own time, by the clock of the file's machine."""
    reasons: list[str] = field(default_factory=list)
    """Why attempts failed, the latest last."""


class GivenUp(Exception):
    """The work has failed as often as it may; the message is the last reason."""


def read(directory: Path) -> History:
    """The attempts in a directory; none where the file is missing or torn."""
    try:
        return reading.typed(History, reading.json_object(directory / ATTEMPTS), ATTEMPTS)
    except UserError:
        return History()


@contextmanager
def attempt(directory: Path, limit: int) -> Iterator[None]:
    """One attempt at the work in a directory whose lock is held. GivenUp, before anything is done, after `limit` failures.

    An attempt that was killed counts as a failure, unless it had reached a checkpoint: then it got on. Ctrl-C does not count.
    """
    history = read(directory)
    if history.begun and not _got_on(directory):
        history.reasons.append(SILENT_END)
    history.begun = False
    if len(history.reasons) >= limit:
        _write(directory, history)
        raise GivenUp(history.reasons[-1])
    _write(directory, History(begun=True, reasons=history.reasons))
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and not disk.is_full(error):  # of a full disk nothing of the work is wrong
            history.reasons.append(str(error) or type(error).__name__)
        with suppress(OSError):  # a full disk lets a file be removed, and often none be written
            _write(directory, history)
        raise
    (directory / ATTEMPTS).unlink(missing_ok=True)


def _got_on(directory: Path) -> bool:
    """Whether a checkpoint is newer than the attempt's beginning: two times of files, which one clock has set."""
    try:
        return (directory / CHECKPOINT).stat().st_mtime_ns > (directory / ATTEMPTS).stat().st_mtime_ns
    except OSError:
        return False


def _write(directory: Path, history: History) -> None:
    if not history.begun and not history.reasons:
        (directory / ATTEMPTS).unlink(missing_ok=True)
        return
    disk.write_json(directory / ATTEMPTS, {"schema": SCHEMA, "begun": history.begun, "reasons": list(history.reasons)})


def learned_already(directory: Path) -> bool:
    """Whether the course's prompt is there: `prompt.json` is written last."""
    return (directory / artifact.FACTS).is_file()


def learn_course(course: Course, directory: Path, desk: Desk, observer: Observer = SILENT) -> None:
    """Leave the course's prompt in `directory`, going on from its checkpoint if there is one.

    The caller holds the directory's lock. UserError as `train_run`.
    """
    if course.shots == 0:
        _save(course, directory, *_given(course, desk), desk)
    elif failed := _learn([(course, directory)], desk, observer):
        raise failed[0]


def learn_together(cells: Sequence[Cell], grid: Grid, desk: Desk, observer: Observer = SILENT) -> None:
    """Learn the prompts of several courses in the same steps, as far as they are free and not there yet.

    What fails, or belongs to another process, is left to `run_cell`, which says why.
    """
    courses = {grid.learned(cell.course): cell for cell in cells if cell.course.shots != 0}
    with ExitStack() as stack:
        free = [
            (cell, place)
            for place, cell in courses.items()
            if stack.enter_context(locked_if_free(place)) and not learned_already(place) and not read(place).reasons
        ]
        if len(free) < 2:
            return
        with suppress(UserError):
            for cell, _ in free:
                claim(cell, grid)
            _learn([(cell.course, place) for cell, place in free], desk, observer)


def _save(course: Course, directory: Path, found: Learned, learning: Learning, desk: Desk) -> None:
    same = ("dataset", "shots", "seed", "subset", "variant", "recipe", "choices")
    learning = replace(learning, peak_mib=peak_mib(desk.clip(course.model, course.dtype).device))
    facts = {
        **{name: getattr(course, name) for name in same},
        "init": course.init_hash,
        "metrics": {"val_top1": learning.val_top1},
        "learning": dataclasses.asdict(learning),
    }
    artifact.save(directory, replace(found, facts={**facts, **found.facts}))


def _given(course: Course, desk: Desk) -> tuple[Learned, Learning]:
    """What needs no learning here: the hand-written template, or a pretrained prompt as it is."""
    began, clip, material = time.perf_counter(), desk.clip(course.model, course.dtype), desk.material(course.data)
    if course.init:
        given = artifact.load(Path(course.init), clip)
        found = replace(given, facts={"dataset": given.facts.get("dataset", "")})
    else:
        method, names = resolve(course.method, course.options), restrict(material, course.subset).class_names
        found = Learned(
            method=method,
            prompt=new_prompt(clip, method.prompt, len(names), course.seed),
            class_names=names,
            template=course.template,
            model=course.model,
            weight_hash=clip.weight_hash,
        )
        if material.several:
            images = desk.images(course.model, course.dtype)
            seen = images.usable(material.val or material.train, {}, strict=False)
            desk.encode(images, seen, [None])
            logits = Classifier(clip, method, found.prompt, names, course.template).logits(seen, images)
            found = replace(found, facts=fitted(logits, seen, names).facts)
    return found, Learning(seconds=time.perf_counter() - began)


def _learn(courses: Sequence[tuple[Course, Path]], desk: Desk, observer: Observer) -> list[UserError]:
    """Leave each course's prompt in its directory. The errors of those that failed alone."""
    works = []
    same = ("method", "model", "shots", "seed", "overrides", "recipe", "subset", "views")
    for course, directory in courses:
        material, images = desk.material(course.data), desk.images(course.model, course.dtype)
        assert not material.test, "a course is given no test images"
        given = {name: getattr(course, name) for name in same}
        init = Path(course.init) if course.init else None
        job = prepare(images, material, init=init, asked={"data": course.data}, **given)
        if course.teacher:
            teacher = desk.teacher(course.teacher, job.method, course.model, course.dtype)
            job = taught_by(job, teacher, course.teacher)
        works.append(Work(job=job, drawn=job.draw(), at=directory))
        desk.encode(images, works[-1].drawn.sample.train, _cached_views(job))
        desk.encode(images, works[-1].drawn.sample.val, [None])
    failed = []
    for (course, directory), work, found in zip(
        courses, works, learn_all(works, desk.means, observer=observer), strict=True
    ):
        if isinstance(found, UserError):
            failed.append(found)
            continue
        began, (learned, learning), job = time.perf_counter(), found, work.job
        classifier = Classifier(job.clip, learned.method, learned.prompt, learned.class_names, job.template)
        val_top1 = accuracy(classifier, work.drawn.sample.val, job.images)
        learning = replace(learning, val_top1=val_top1, seconds=learning.seconds + time.perf_counter() - began)
        several = of(learned)
        _save(course, directory, replace(learned, facts=several.facts if several else {}), learning, desk)
    return failed


def _cached_views(job: Job) -> list[int | None]:
    """The views whose features learning reads over and over; none where it reads pixels, or each view once."""
    if not isinstance(job.method.learner, Steps):
        return [None]
    reach = job.method.prompt.reach
    if job.views == "epochs" or (reach.image_tower and "image" not in reach.sees):
        return []
    return sorted({view_of(job.views, epoch, job.seed) for epoch in range(job.method.epochs)}, key=str)


PER_CLASS = "per_class.csv"


def examine_cell(cell: Cell, learned_at: Path, directory: Path, desk: Desk) -> Record:
    """Test the prompt in `learned_at` and write the cell's record into `directory`, `result.json` last.

    UserError: no usable test images; a classifier for its own classes alone that is asked about others.
    """
    course = cell.course
    images = desk.images(course.model, course.dtype)
    learned = artifact.load(learned_at, images.clip)
    asked = restrict(desk.questions(cell.data), cell.subset)
    skipped = {skip.id: skip.reason for skip in asked.skipped}
    tested = images.usable(asked.test, skipped, strict=False)
    seen = seen_among(tested, learned_at)
    skipped |= dict.fromkeys(seen, "learned from, or chosen by: a copy is among those images")
    tested = tuple(one for one in tested if one.id not in skipped)
    if not tested:
        raise data_error(f"{cell.dataset} has no test images that can be used.")
    desk.encode(images, tested, [None])
    learning = reading.typed(Learning, learned.facts["learning"], str(learned_at))
    own = course.shots != 0 and (course.dataset, course.subset) == (cell.dataset, cell.subset)
    questions = Questions(
        dataset=cell.dataset,
        class_names=asked.class_names,
        samples=tested,
        template=recipe_template(course.recipe, asked) or asked.template,
        split_hash=_split_hash(cell, learned, learned_at, tested, desk) if own else split_hash((), (), tested),
        protocol=cell.protocol,
        subset=cell.subset,
        skipped={**learning.skipped, **skipped} if own else skipped,
    )
    learning = learning if own else replace(learning, val_top1=None)
    record, answers = test(learned, learning, questions, images, recipe_hash=hash_of(course.recipe))
    assert answers is not None, "there are test images"
    disk.write_text(directory / PER_CLASS, per_class(answers, asked.class_names))
    records.write(directory, record, answers)
    return record


def _split_hash(cell: Cell, learned: Learned, learned_at: Path, test: tuple[Sample, ...], desk: Desk) -> str:
    """Of the sample that was learned from and chosen by, and of the test images."""
    subset = cell.subset if learned.method.unlabelled is None else "all"
    material = restrict(desk.material(cell.data), subset)
    split = read_split(learned_at / SPLIT, material)
    return split_hash(split.train, split.val, test)


def per_class(answers: Predictions, class_names: tuple[str, ...]) -> str:
    """A CSV with a line per class: test images, how often it was answered, recall, precision and F1 in percent.

    What cannot be measured (recall without images, precision without answers) is empty.
    """
    lines: list[tuple[object, ...]] = [("class", "images", "answered", "right", "recall", "precision", "f1")]
    for label, name in enumerate(class_names):
        of, answered = answers.label == label, answers.predicted == label
        images, times, right = (int(np.count_nonzero(one)) for one in (of, answered, of & answered))
        shares = [(right, images), (right, times), (2 * right, images + times)]
        lines.append((name, images, times, right, *(f"{100 * a / b:.4f}" if b else "" for a, b in shares)))
    return plain.table(lines)
