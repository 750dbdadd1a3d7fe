"""`vlprompt compare`: is one method better than another, or can that not be told?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.report.comparison import Comparison
    from vlprompt.report.sides import Run
    from vlprompt.report.tables import Table


def compare(
    first: Annotated[Path, argument("A", "A run directory, or a directory of runs.")],
    second: Annotated[Path | None, argument("B", "The other one.", "A, with --methods")] = None,
    methods: Annotated[
        str | None, option("--methods X,Y", "Take method X's runs from A and method Y's from B.")
    ] = None,
    margin: Annotated[float, option("--margin POINTS", "Points. A smaller difference counts as none.")] = 0.5,
    although: Annotated[
        list[str] | None, option("--although NAME", "Compare even if this differs: shots, model, ... Repeatable.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare B with A on the same test images and seeds: the gain, a 95 % interval and a verdict.

    better, worse: the interval leaves out zero. same: it lies within the margin. Else: cannot tell, and how many seeds might do.

    Example: `vlprompt compare runs/coop runs/plpp+coop --margin 0.5`
    """
    from vlprompt.report.comparison import compare as compare_sides
    from vlprompt.report.sides import read_side
    from vlprompt.report.tables import as_rich

    names: tuple[str | None, str | None] = (None, None)
    if methods is not None:
        parts = [part.strip() for part in methods.split(",")]
        if len(parts) != 2 or not all(parts):
            raise UserError(f"--methods {methods!r} is not two methods. Write for example --methods coop,plpp+coop.")
        names = (parts[0], parts[1])
    if second is None and methods is None:
        raise UserError("one directory only. Name a second one, or the two methods: --methods coop,plpp+coop.")
    sides = read_side(first, names[0]), read_side(second or first, names[1])
    found, notes = compare_sides(*sides, margin=margin, although=although or ())
    if as_json:
        console.dump({"margin": margin, "comparisons": [dataclasses.asdict(one) for one in found]})
    else:
        console.show(
            *(as_rich(one, console.width()) for one in _tables(found, margin)),
            *_advice(found),
            *_choice(found[-1:], sides),
        )
    for note in notes:
        console.warn(f"{note}.")


HEADER = ("data", "shots", "A", "B", "B - A", "95 % interval", "seeds", "images", "verdict", "seeds needed")


def _tables(found: Iterable[Comparison], margin: float) -> list[Table]:
    """One per protocol, source and classes."""
    from vlprompt.report.tables import Table

    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for one in found:
        groups.setdefault((one.protocol, one.source, one.subset), []).append(one)
    out = []
    for (protocol, source, subset), group in groups.items():
        names = ", ".join(dict.fromkeys(f"{one.second} against {one.first}" for one in group))
        where = protocol + (f", from {source}" if source else "") + ("" if subset == "all" else f", {subset} classes")
        out.append(
            Table(
                title=f"{names}, points ({where})",
                header=HEADER,
                cells=tuple(_cells(one) for one in group),
                remark=f"Margin {margin:g} points. Paired over images and seeds.",
                least=("seeds needed", "images", "seeds", "A", "B", "shots"),
            )
        )
    return out


def _cells(one: Comparison) -> tuple[str, ...]:
    from vlprompt.report.tables import NOT_MEASURED
    from vlprompt.report.text import needed

    said = one.estimate
    return (
        one.datasets[0] if len(one.datasets) == 1 else f"mean of {len(one.datasets)}",
        "all" if one.shots is None else str(one.shots),
        f"{one.first_top1:.1f}",
        f"{one.second_top1:.1f}",
        f"{said.difference:+.1f}",
        f"{said.low:+.1f} to {said.high:+.1f}",
        str(len(one.seeds)) if one.seeds else NOT_MEASURED,
        f"{one.num_images:,}",
        said.verdict,
        needed(said),
    )


def _choice(found: Iterable[Comparison], sides: tuple[Sequence[Run], Sequence[Run]]) -> list[str]:
    """Which of the two is the better one for these data at this number of images, and what each costs; a tie is said as one."""
    lines = []
    for one in found:
        seen = [[run.record.seconds for run in side if run.record.shots in (one.shots, 0)] for side in sides]
        costs = [sum(each) / max(1, len(each)) for each in seen]
        cost = f"Learning and testing took {costs[0]:.1f} s (A) and {costs[1]:.1f} s (B) for each run."
        best = {"better": f"B, {one.second}", "worse": f"A, {one.first}"}.get(one.estimate.verdict)
        tie = "a tie" if one.estimate.verdict == "same" else "cannot tell which is better"
        said = f"the better one is {best}" if best else f"{tie}, so take the cheaper or simpler one"
        if not best and not one.estimate.seeds_known and one.estimate.low * one.estimate.high > 0:
            ahead = f"B, {one.second}," if one.estimate.low > 0 else f"A, {one.first},"
            said = f"{ahead} is ahead on these images; with one seed it cannot be told whether another seed would agree"
        where = f"{', '.join(one.datasets)} at {'all images' if one.shots is None else f'{one.shots} images per class'}"
        lines.append(f"For {where}: {said}. {cost}")
    return lines


def _advice(found: Iterable[Comparison]) -> list[str]:
    """One line on why it cannot be told."""
    unclear = [one for one in found if one.estimate.verdict == "cannot tell"]
    lines = []
    if any(not one.estimate.seeds_known for one in unclear):
        lines.append(
            "One seed: how far another one would be off is unknown, and the interval is about images only. Learn three or more."
        )
    short = [one.estimate.images_factor for one in unclear if one.estimate.images_factor >= 1]
    if short:
        lines.append(
            f"For {len(short)} of the differences no number of seeds would do: the test images are too few "
            f"(about {min(short):.1f} times as many would be needed at the least)."
        )
    return lines
