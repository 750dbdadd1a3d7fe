"""The protocols: which prompt is learned from what and tested on what, and what is impossible.

Their written definitions are in docs/protocols.md; each function here is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vlprompt.engine.evaluate import check_classes
from vlprompt.errors import UserError
from vlprompt.protocols.cells import Cell, Course, Protocol
from vlprompt.protocols.maker import Maker
from vlprompt.protocols.sets import HALF, Known, fits
from vlprompt.types import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A combination that cannot be asked for, and why."""

    protocol: Protocol
    method: str
    data: str
    """The set that it is impossible with."""
    reason: str


Found = Iterator[Cell | Refused]


def few_shot(maker: Maker, method: str) -> Found:
    """Learned from n images of every class, tested on the test images of the same set and classes."""
    for known in maker.sets:
        if (reason := _unusable(known)) is not None:
            yield Refused(protocol="few-shot", method=method, data=known.data, reason=reason)
            continue
        for course in maker.courses(method, known, maker.shots("few-shot")):
            yield maker.cell("few-shot", course, known)


def base_to_novel(maker: Maker, method: str) -> Found:
    """Learned from the base half, tested on the base and on the novel half, each among its own classes alone."""
    for known in maker.sets:
        reason = _unusable(known)
        if reason is None and len(known.class_names) < 2 * HALF:
            reason = f"{known.name} has {len(known.class_names)} classes; each half needs at least {HALF} to be a classification."
        reason = reason or _unseen(maker, method, known.names_of("base"), known.names_of("novel"))
        if reason is not None:
            yield Refused(protocol="base-to-novel", method=method, data=known.data, reason=reason)
            continue
        for course in maker.courses(method, known, maker.shots("base-to-novel"), subset="base"):
            yield maker.cell("base-to-novel", course, known, subset="base")
            yield maker.cell("base-to-novel", course, known, subset="novel")


def cross_dataset(maker: Maker, method: str) -> Found:
    """Learned from all classes of the source, tested on the source and on all classes of every other set."""
    for source in maker.sources("cross-dataset"):
        targets = [one for one in maker.sets if one.name != source.name]
        if not targets:
            reason = f"there is no set but the source {source.name} to test on. Give others with --data."
            yield Refused(protocol="cross-dataset", method=method, data=source.data, reason=reason)
            continue
        yield from _elsewhere("cross-dataset", maker, method, source, targets)


def domain(maker: Maker, method: str) -> Found:
    """Learned from all classes of the source, tested on the source and on sets of the same classes (or some of them) from
    elsewhere."""
    for source in maker.sources("domain"):
        targets = maker.targets(source)
        for one in targets:
            if not fits(one, source):
                other = next(name for name in one.class_names if name not in source.class_names)
                reason = (
                    f"{one.name} has classes that {source.name} has not (the first: {other!r}); a domain has the source's classes. "
                    f"For other classes there is cross-dataset."
                )
                yield Refused(protocol="domain", method=method, data=one.data, reason=reason)
        if not targets:
            reason = (
                f"no other domain of {source.name} is known. Name sets of its classes with --data and it with --source."
            )
            yield Refused(protocol="domain", method=method, data=source.data, reason=reason)
            continue
        yield from _elsewhere("domain", maker, method, source, [one for one in targets if fits(one, source)])


def transfer(maker: Maker, method: str) -> Found:
    """A pretrained prompt on the test images of every set at once, and after fine-tuning on n images of every class."""
    for known in maker.sets:
        reason = _untested(known) or _unanswered(maker.pretrained_resolved, maker.pretrained_names, known.class_names)
        if reason is None and method == maker.pretrained_method:
            yield maker.cell("transfer", maker.pretrained(known), known)
        if reason is None and known.material.train:
            reason = maker.misfit(method, known)
            if reason is None:
                for course in maker.courses(method, known, maker.shots("transfer"), pretrained=True):
                    yield maker.cell("transfer", course, known)
        if reason is not None:
            yield Refused(protocol="transfer", method=method, data=known.data, reason=reason)


RULES: dict[Protocol, Callable[[Maker, str], Found]] = {
    "few-shot": few_shot,
    "base-to-novel": base_to_novel,
    "cross-dataset": cross_dataset,
    "domain": domain,
    "transfer": transfer,
}


def _elsewhere(protocol: Protocol, maker: Maker, method: str, source: Known, targets: list[Known]) -> Found:
    """One prompt of the source on the source and on each target."""
    reason = _unusable(source)
    if reason is not None:
        yield Refused(protocol=protocol, method=method, data=source.data, reason=reason)
        return
    courses: list[Course] = list(maker.courses(method, source, maker.shots(protocol)))
    answered = False
    for target in targets:
        reason = _untested(target) or _unseen(maker, method, source.class_names, target.class_names)
        if reason is not None:
            yield Refused(protocol=protocol, method=method, data=target.data, reason=reason)
            continue
        answered = True
        yield from (maker.cell(protocol, course, target) for course in courses)
    if answered:
        yield from (maker.cell(protocol, course, source) for course in courses)


def _unseen(maker: Maker, method: str, learned: tuple[str, ...], asked: tuple[str, ...]) -> str | None:
    """Why a method cannot answer for classes that it has not learned on; None where it can."""
    return _unanswered(maker.method(method), learned, asked)


def _unanswered(resolved: Method, learned: tuple[str, ...], asked: tuple[str, ...]) -> str | None:
    try:
        check_classes(resolved.prompt, learned, asked, solver=resolved.solver, labelled=True)
    except UserError as problem:
        return str(problem)
    return None


def _unusable(known: Known) -> str | None:
    """Why a set cannot be learned from and tested on; None where it can."""
    if not known.material.train:
        return f"{known.name} has no training images; it can be a target of cross-dataset or domain."
    return _untested(known)


def _untested(known: Known) -> str | None:
    return None if known.questions.test else f"{known.name} has no test images."
