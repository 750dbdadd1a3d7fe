"""`vlprompt reproduce`: a published row with all its seeds, and whether our numbers agree with it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from rich.text import Text

from vlprompt.cli import bench, clusters, console, options, work
from vlprompt.cli.options import argument, option
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.bench.reproduce import Reproduced, Wanted
    from vlprompt.records import Record


def reproduce(
    recipe: Annotated[str, argument("RECIPE", "A published row: a name of `vlprompt recipes`.")],
    data: Annotated[str | None, option("--data A,B", "Only these data sets.", "all that are on disk")] = None,
    model: Annotated[str | None, option("--model DIR|ID", "Where the backbone is.", "the recipe's")] = None,
    shots: Annotated[str | None, option("--shots 1,16", "Only these.", "the recipe's")] = None,
    seeds: Annotated[str | None, option("--seeds 1,2,3", "Others.", "the recipe's")] = None,
    out: Annotated[Path | None, option("--out DIR", "Where it goes.", "runs/reproduce/RECIPE")] = None,
    jobs: options.Jobs = 1,
    ray: clusters.Ray = None,
    dry_run: Annotated[bool, option("--dry-run", "Show the plan and do nothing.")] = False,
    settings: options.Settings = None,
    views: options.Views = None,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    max_memory: options.MaxMemory = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a published row with its settings on all its data sets and seeds; compare with the published numbers, and say
    whether the difference is more than seeds make. Call it again and it does only what is missing.

    Example: `vlprompt reproduce coop-base-to-novel --data-root data`
    """
    _run(dict(locals()))


def _run(asked: dict[str, Any]) -> None:
    """asked: the options as they were given, by their names."""
    from vlprompt import bench as grids
    from vlprompt.bench.reproduce import Wanted, lines, request_of, sets_of
    from vlprompt.methods import recipes

    row, jobs, data, shots = recipes.read(asked["recipe"]), asked["jobs"], asked["data"], asked["shots"]
    made = {
        "recipe": row,
        "model": asked["model"] or row.model,
        "out": asked["out"] or Path("runs/reproduce") / asked["recipe"],
        "data": None if data is None else bench.names("--data", data),
        "shots": None if shots is None else tuple(one or 0 for one in bench.parse_shots(shots)),
        "seeds": None if asked["seeds"] is None else options.parse_seeds(asked["seeds"]),
        "overrides": parse_settings(asked["settings"]),
        "views": options.parse_views(asked["views"]),
    }
    wanted = options.config_of(Wanted, asked, made)
    means = options.config_of(grids.Means, asked, {"threads": bench.threads_each(jobs)})
    sets = sets_of(wanted)
    if sets.missing:
        console.warn(f"not on disk, so left out: {', '.join(sets.missing)}. `vlprompt data status` says more.")
    grid, desk = grids.Grid(out=wanted.out, means=means), grids.Desk(means)
    plan = grids.make(request_of(wanted, sets), desk)
    work.show_plan(plan, grid, desk, jobs, dry_run=asked["dry_run"], as_json=asked["as_json"])
    if asked["dry_run"]:
        return
    outcomes = work.carry_out(plan, grid, desk, jobs, asked["ray"])
    records = grids.done(plan, grid)
    found = lines(wanted, records)
    if asked["as_json"]:
        console.dump(
            {
                "recipe": wanted.recipe.name,
                "model": wanted.model,
                "changed": list(wanted.changed),
                "data": list(sets.used),
                "missing": list(sets.missing),
                "numbers": [dataclasses.asdict(line) for line in found],
                "runs": [dataclasses.asdict(record) for record in records],
            }
        )
    else:
        _show(wanted, records, found)
    work.conclude(plan, grid, outcomes, quiet=asked["as_json"])


def _show(wanted: Wanted, records: Sequence[Record], found: Sequence[Reproduced]) -> None:
    console.show(Text(f"{wanted.recipe.title} with {wanted.model}", style="bold"), _by_set(records))
    if not found:
        console.note("No number of this row has a public source, so there is nothing to compare with.")
        return
    console.show(_beside(found, changed=bool(wanted.changed)))
    if wanted.changed:
        console.warn(
            f"no verdict: {', '.join(wanted.changed)} {'is' if len(wanted.changed) == 1 else 'are'} not the recipe's."
        )
    if wanted.recipe.choices == "project":
        console.note("The settings of this row are the project's choice; the published run may have had others.")
    for line in found:
        if line.missing:
            console.note(f"{line.published.dataset}: missing {', '.join(line.missing)}.")
    console.note(f"Published: {'; '.join(dict.fromkeys(line.published.source for line in found))}.")


def _by_set(records: Sequence[Record]) -> Table:
    """Ours, by data set: mean and deviation over seeds."""
    groups: dict[tuple[str, str, int | None], list[float]] = {}
    for record in records:
        if record.top1 is not None:
            groups.setdefault((record.dataset, record.subset, record.shots), []).append(record.top1)
    rows = []
    for (dataset, subset, shots), values in groups.items():
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        count = "all" if shots is None else shots
        rows.append((dataset, subset, count, len(values), f"{statistics.fmean(values):.2f}", spread))
    columns = ("data set", "classes", ">shots", ">seeds", ">mean", ">deviation")
    return console.table("Ours, top-1 in percent", columns, rows)


def _beside(found: Sequence[Reproduced], *, changed: bool) -> Table:
    rows = []
    for line in found:
        known = line.ours is not None and line.difference is not None
        sure = f" +- {line.uncertainty:.2f}" if line.uncertainty is not None else ""
        rows.append(
            (
                line.published.dataset,
                "" if line.shots is None else line.shots,
                line.published.metric.replace("_", " "),
                f"{line.ours:.2f}" if known else "-",
                f"{line.published.value:.2f}",
                f"{line.difference:+.2f}{sure}" if known else "-",
                "-" if line.deviation is None else f"{line.deviation:.2f}",
                "no verdict" if changed and line.verdict != "incomplete" else line.verdict,
            )
        )
    columns = ("data", ">shots", "what", ">ours", ">published", ">difference", ">spread of seeds", "verdict")
    return console.table("Compared with the published numbers", columns, rows)
