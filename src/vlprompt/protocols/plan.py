"""A plan: the cells of a grid, and what was refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlprompt import records
from vlprompt.errors import UserError
from vlprompt.protocols.cells import Cell, Grid, Protocol
from vlprompt.protocols.desk import Desk
from vlprompt.protocols.maker import Maker, Request
from vlprompt.protocols.rules import RULES, Refused

LOOKED_UP = 20_000
"""Images of which it is looked up whether their features are there; of more it is not, since each has to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request comes to."""

    request: Request
    cells: tuple[Cell, ...]
    refused: tuple[Refused, ...]


def make(request: Request, desk: Desk) -> Plan:
    """The cells of all protocols asked for; one that two of them share stands once.

    UserError: what `Maker` refuses; an impossible combination that was named, with the reason; nothing to do.
    """
    maker = Maker(request, desk)
    cells: dict[Path, Cell] = {}
    refused: dict[tuple[str, ...], Refused] = {}
    for protocol in request.protocols:
        for name in _methods(maker, protocol):
            for found in RULES[protocol](maker, name):
                if isinstance(found, Cell):
                    cells.setdefault(found.place, found)
                else:
                    refused.setdefault((protocol, name, found.reason), found)
    possible = {cell.course.method for cell in cells.values()}
    if wrong := [one for one in refused.values() if not cells or _named(one, request, possible)]:
        raise UserError(f"{'nothing can be done' if not cells else 'impossible'}: {'; '.join(said_of(wrong))}")
    return Plan(request=request, cells=tuple(cells.values()), refused=tuple(refused.values()))


def said_of(refused: Iterable[Refused]) -> list[str]:
    """A sentence for each protocol and method: the first reason, and with how many sets more it is impossible."""
    groups: dict[tuple[str, str], list[Refused]] = {}
    for one in refused:
        groups.setdefault((one.protocol, one.method), []).append(one)
    out = []
    for (protocol, method), group in groups.items():
        more = len({one.reason for one in group}) - 1
        also = f" (And so with {more} more.)" if more else ""
        out.append(f"{protocol} with {method}: {group[0].reason}{also}")
    return out


def _named(one: Refused, request: Request, possible: Collection[str]) -> bool:
    """Whether what is impossible was asked for by name: a method that is possible nowhere, or with a set that was named."""
    if request.whole or not request.named:
        return False
    return one.method not in possible or one.data in (*request.data, *(request.source or ()))


def _methods(maker: Maker, protocol: Protocol) -> Sequence[str]:
    """Transfer goes on with the pretrained prompt's own method, unless it alone is asked for with others."""
    if protocol == "transfer" and (maker.request.whole or not maker.request.named):
        return (maker.pretrained_method,)
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
    return sum(one.content_hash in known for one in samples), len(samples)


def done(plan: Plan, grid: Grid) -> list[records.Record]:
    """The records of the plan's finished cells, in its order."""
    return [records.read(grid.of(cell)) for cell in plan.cells if grid.finished(cell)]
