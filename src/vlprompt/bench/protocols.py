"""The protocols: which prompt is learned from what and tested on what, and what is impossible.

Their written definitions are in docs/protocols.md; each function here is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlprompt import records
from vlprompt.bench.cells import Cell, Course, Grid, Protocol
from vlprompt.bench.request import HALF, NO_SHOTS, Known, Maker, Request, fits, why_not
from vlprompt.bench.workspace import Desk
from vlprompt.engine.evaluate import check_classes
from vlprompt.engine.forward import require_sentences
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """A combination that cannot be asked for, and why."""

    protocol: Protocol
    method: str
    data: str
    """The set that it is impossible with."""
    reason: str


Planned = Iterator[Cell | tuple[str, str]]
"""Cells; and (set, reason) where none can be."""


def few_shot(maker: Maker, method: str) -> Planned:
    """Learned from n images of every class, tested on the test images of the same set and classes."""
    for known in maker.sets:
        if reason := _unusable(known) or _undescribed(maker, "few-shot", method, known.class_names):
            yield known.data, reason
            continue
        for course in maker.courses("few-shot", method, known):
            yield maker.cell("few-shot", course, known)


def base_to_novel(maker: Maker, method: str) -> Planned:
    """Learned from the base half, tested on the base and on the novel half, each among its own classes alone."""
    for known in maker.sets:
        reason = _unusable(known)
        if reason is None and len(known.class_names) < 2 * HALF:
            reason = f"{known.name} has {len(known.class_names)} classes; each half needs at least {HALF} to be a classification."
        reason = reason or _unseen(maker, "base-to-novel", method, known.names_of("base"), known.names_of("novel"))
        if reason := reason or _undescribed(maker, "base-to-novel", method, known.class_names):
            yield known.data, reason
            continue
        for course in maker.courses("base-to-novel", method, known, subset="base"):
            yield maker.cell("base-to-novel", course, known, subset="base")
            yield maker.cell("base-to-novel", course, known, subset="novel")


def cross_dataset(maker: Maker, method: str) -> Planned:
    """Learned from all classes of the source, tested on the source and on all classes of every other set."""
    for source in maker.sources("cross-dataset"):
        targets = [one for one in maker.sets if one.name != source.name]
        if not targets:
            yield source.data, f"there is no set to test on except the source {source.name}. Give others with --data."
        else:
            yield from _elsewhere("cross-dataset", maker, method, source, targets)


def domain(maker: Maker, method: str) -> Planned:
    """Learned from all classes of the source, tested on the source and on sets of the same classes (or some of them) from
    elsewhere."""
    for source in maker.sources("domain"):
        targets = maker.targets(source)
        for one in targets:
            if not fits(one, source):
                other = next(name for name in one.class_names if name not in source.class_names)
                yield (
                    one.data,
                    f"{one.name} has classes that {source.name} has not (the first: {other!r}); a domain has the source's classes. "
                    f"For other classes there is cross-dataset.",
                )
        if not targets:
            yield (
                source.data,
                f"no other domain of {source.name} is known. Name sets of its classes with --data and it with --source.",
            )
        else:
            yield from _elsewhere("domain", maker, method, source, [one for one in targets if fits(one, source)])


def transfer(maker: Maker, method: str) -> Planned:
    """A pretrained prompt on the test images of every set at once, and after fine-tuning on n images of every class."""
    before = maker.pretrained
    prompt, names = resolve(before["method"], before["options"]).prompt, tuple(before["class_names"])
    for known in maker.sets:
        reason = _untested(known) or why_not(check_classes, prompt, names, known.class_names, labelled=True)
        if reason is None and method == before["method"]:
            course = maker.course("transfer", method, known, NO_SHOTS, maker.seeds[0])
            yield maker.cell("transfer", course, known)
        if reason is None and known.material.train:
            reason = maker.misfit(method, known)
            if reason is None:
                for course in maker.courses("transfer", method, known):
                    yield maker.cell("transfer", course, known)
        if reason is not None:
            yield known.data, reason


RULES: dict[Protocol, Callable[[Maker, str], Planned]] = {
    "few-shot": few_shot,
    "base-to-novel": base_to_novel,
    "cross-dataset": cross_dataset,
    "domain": domain,
    "transfer": transfer,
}


def _elsewhere(protocol: Protocol, maker: Maker, method: str, source: Known, targets: list[Known]) -> Planned:
    """One prompt of the source on the source and on each target."""
    if reason := _unusable(source) or _undescribed(maker, protocol, method, source.class_names):
        yield source.data, reason
        return
    courses: list[Course] = list(maker.courses(protocol, method, source))
    answered = []
    for target in targets:
        reason = _untested(target) or _unseen(maker, protocol, method, source.class_names, target.class_names)
        if reason := reason or _undescribed(maker, protocol, method, target.class_names):
            yield target.data, reason
        else:
            answered.append(target)
    for known in [*answered, source] if answered else ():
        yield from (maker.cell(protocol, course, known) for course in courses)


def _unseen(
    maker: Maker, protocol: Protocol, method: str, learned: tuple[str, ...], asked: tuple[str, ...]
) -> str | None:
    """Why a method cannot answer for classes that it has not learned on; None where it can."""
    return why_not(check_classes, maker.method(method, protocol).prompt, learned, asked, labelled=True)


def _undescribed(maker: Maker, protocol: Protocol, method: str, asked: tuple[str, ...]) -> str | None:
    """Why a method that reads sentences of each class cannot be asked about these; None where it can."""
    return why_not(require_sentences, maker.method(method, protocol).teacher, asked)


def _unusable(known: Known) -> str | None:
    """Why a set cannot be learned from and tested on; None where it can."""
    if not known.material.train:
        return f"{known.name} has no training images; it can be a target of cross-dataset or domain."
    return _untested(known)


def _untested(known: Known) -> str | None:
    return None if known.questions.test else f"{known.name} has no test images."


LOOKED_UP = 20_000
"""Images of which it is looked up whether their features are there; of more it is not, since each has to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request comes to."""

    request: Request
    cells: tuple[Cell, ...]
    refused: tuple[Impossible, ...]


def make(request: Request, desk: Desk) -> Plan:
    """The cells of all protocols asked for; one that two of them share stands once.

    UserError: what `Maker` refuses; an impossible combination that was named, with the reason; nothing to do.
    """
    maker = Maker(request, desk)
    cells: dict[Path, Cell] = {}
    refused: dict[tuple[str, ...], Impossible] = {}
    for protocol in request.protocols:
        for name in _methods(maker, protocol):
            for found in RULES[protocol](maker, name):
                if isinstance(found, Cell):
                    cells.setdefault(found.place, found)
                else:
                    data, reason = found
                    impossible = Impossible(protocol=protocol, method=name, data=data, reason=reason)
                    refused.setdefault((protocol, name, reason), impossible)
    possible = {cell.course.method for cell in cells.values()}
    if wrong := [one for one in refused.values() if not cells or _named(one, request, possible)]:
        raise UserError(f"{'nothing can be done' if not cells else 'impossible'}: {'; '.join(said_of(wrong))}")
    return Plan(request=request, cells=tuple(cells.values()), refused=tuple(refused.values()))


def said_of(refused: Iterable[Impossible], *, reasons: bool = True) -> list[str]:
    """A sentence for each protocol and method: the first reason, and with how many sets more it is impossible. Reasons name classes:
    without them where those are made up."""
    groups: dict[str, list[str]] = {}
    for one in refused:
        groups.setdefault(f"{one.protocol} with {one.method}", []).append(one.reason)
    if not reasons:
        return [f"{what}, at least with some sets. With the data there a plan says why." for what in groups]
    out = []
    for what, found in groups.items():
        more = len(set(found)) - 1
        also = f" (And so with {more} more.)" if more else ""
        out.append(f"{what}: {found[0]}{also}")
    return out


def _named(one: Impossible, request: Request, possible: Collection[str]) -> bool:
    """Whether what is impossible was asked for by name: a method that is possible nowhere, or with a set that was named."""
    if request.whole or not request.named:
        return False
    return one.method not in possible or one.data in (*request.data, *(request.source or ()))


def _methods(maker: Maker, protocol: Protocol) -> Sequence[str]:
    """Transfer continues with the pretrained prompt's own method, unless it alone is asked for with others."""
    if protocol == "transfer" and (maker.request.whole or not maker.request.named):
        return (maker.pretrained["method"],)
    return maker.methods


def cached_features(plan: Plan, grid: Grid, desk: Desk) -> tuple[int, int] | None:
    """How many of the test images of unfinished cells have their features in the cache already, and of how many; None where they
    are too many to look."""
    todo = [cell for cell in plan.cells if not grid.finished(cell)]
    if not todo:
        return 0, 0
    samples = [one for data in dict.fromkeys(cell.data for cell in todo) for one in desk.questions(data).test]
    if len(samples) > LOOKED_UP:
        return None
    images = desk.images(todo[0].course.model, todo[0].course.dtype)
    assert images.store is not None
    known = images.store.known(model_key=images.model_key, preprocess=images.clip.preprocess, view=None)
    return sum(one.picture_hash in known for one in samples), len(samples)


def done(plan: Plan, grid: Grid) -> list[records.Record]:
    """The records of the plan's finished cells, in its order."""
    return [grid.record(cell) for cell in plan.cells if grid.finished(cell)]
