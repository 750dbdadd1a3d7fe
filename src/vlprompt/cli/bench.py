"""`vlprompt bench`: the protocols of the field as grids that can be stopped and called again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlprompt import pocket
from vlprompt.cli import clusters, console, options, work
from vlprompt.cli.options import argument, option
from vlprompt.errors import DATA, UserError, data_error, unknown
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.bench import Desk, Plan, Protocol, Request

ALL = "all"
ASKED = ("few-shot", "base-to-novel", "cross-dataset", "domain", "transfer", ALL)

Protocols = Annotated[str, argument("PROTOCOL", f"{', '.join(ASKED)}: docs/protocols.md explains them.")]
Methods = Annotated[
    str | None,
    option(
        "--methods A,B",
        "Methods. `all`: every method, alone and with each overlay (plpp+METHOD, described+METHOD).",
        "the ten of the published report",
    ),
]
Data = Annotated[
    str, option("--data A,B", "Data sets as in `train`; `pocket`: all embedded ones that are a benchmark.")
]
Source = Annotated[
    str | None,
    option(
        "--source A",
        "Cross-dataset and domain: the set to learn from.",
        "the one with the most classes; for domain those that have some",
    ),
]
Shots = Annotated[str | None, option("--shots 1,2,4", "Images per class; 0 takes all.", "few-shot 1,2,4,8,16; else 16")]
Seeds = Annotated[str | None, option("--seeds 1,2,3", "One prompt per seed.", "1,2,3")]
Init = Annotated[Path | None, option("--init RUN", "Transfer: the pretrained prompt, or a run of it.")]
Attempts = Annotated[
    int, option("--attempts", "How often a cell may fail, over all calls, before it is skipped.", min=1)
]
Out = Annotated[Path, option("--out DIR", "Directory for cells and prompts.")]
DryRun = Annotated[bool, option("--dry-run", "Show the plan and do nothing. The papers' sets need not be on disk.")]
Model = Annotated[
    str | None,
    option(
        "--model NAME|DIR|ID",
        "As in `train`.",
        f"{options.DEFAULT_MODEL}, with --quick {pocket.SMALL}; for a plan of the papers' sets that are not on disk their ViT-B/16",
    ),
]
Quick = Annotated[
    bool, option("--quick", "Fill in what you do not give: one seed, two embedded sets, three methods, few shots.")
]


def bench(
    protocol: Protocols,
    methods: Methods = None,
    data: Data = "pocket",
    source: Source = None,
    shots: Shots = None,
    seeds: Seeds = None,
    model: Model = None,
    out: Out = Path("runs/bench"),
    jobs: options.Jobs = 1,
    ray: clusters.Ray = None,
    dry_run: DryRun = False,
    quick: Quick = False,
    settings: options.Settings = None,
    recipe: options.Recipe = "auto",
    views: options.Views = None,
    init: Init = None,
    teacher: options.Teacher = None,
    attempts: Attempts = 3,
    replicas: options.Replicas = 1,
    track: options.Track = None,
    device: options.Device = "auto",
    dtype: options.Precision = "float32",
    cache: options.Cache = None,
    max_memory: options.MaxMemory = None,
    as_json: options.AsJson = False,
) -> None:
    """Learn and test a grid of methods, data sets, shots and seeds by a protocol. Call it again and it does only what is missing.

    Any number of processes, also on other machines, may work on one directory. Ctrl-C stops cleanly.

    Example: `vlprompt bench all --data pocket --quick --out runs/bench`
    """
    _run(dict(locals()))


def _run(asked: dict[str, Any]) -> None:
    """asked: the options as they were given, by their names."""
    from vlprompt import bench

    dry_run, as_json, jobs = asked["dry_run"], asked["as_json"], asked["jobs"]
    means = {"track": options.parse_track(asked["track"]), "threads": threads_each(jobs)}
    sets, shots = names("--data", asked["data"]), asked["shots"]
    made = {
        "protocols": protocols_of(asked["protocol"], asked["init"]),
        "data": sets,
        "model": asked["model"] or default_model(sets, dry_run=dry_run, quick=asked["quick"]),
        "methods": None if asked["methods"] is None else names("--methods", asked["methods"]),
        "source": None if asked["source"] is None else names("--source", asked["source"]),
        "shots": None if shots is None else parse_shots(shots),
        "seeds": None if asked["seeds"] is None else options.parse_seeds(asked["seeds"]),
        "overrides": parse_settings(asked["settings"]),
        "views": options.parse_views(asked["views"]),
    }
    request = options.config_of(bench.Request, asked, made)
    grid = bench.Grid(out=asked["out"], means=options.config_of(bench.Means, asked, means), attempts=asked["attempts"])
    desk = bench.SizedDesk(grid.means) if dry_run else bench.Desk(grid.means)
    plan = _made(request, desk)
    work.show_plan(plan, grid, desk, jobs, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    outcomes = work.carry_out(plan, grid, desk, jobs, asked["ray"])
    if as_json:
        options.dump_records(bench.done(plan, grid))
    work.conclude(plan, grid, outcomes, quiet=as_json)


def _made(request: Request, desk: Desk) -> Plan:
    """The plan. Where a set is not there the error says too that a plan alone does without."""
    from vlprompt import bench

    try:
        return bench.make(request, desk)
    except UserError as problem:
        if isinstance(desk, bench.SizedDesk) or problem.exit_code != DATA or not absent(request.data):
            raise
        raise data_error(f"{problem} With --dry-run cells, hours and disk are planned without the data.") from problem


def absent(data: Sequence[str]) -> tuple[str, ...]:
    """Those of the papers' sets asked for that are not on this disk."""
    from vlprompt import bench

    return tuple(name for name in bench.expand(data) if bench.lacking(name) is not None)


def default_model(data: Sequence[str], *, dry_run: bool, quick: bool) -> str:
    """The usual one, or the small one if it should be quick; ViT-B/16, with a note, if a dry run plans data sets that are not on disk."""
    from vlprompt.bench import PAPERS_MODEL

    if not dry_run or not absent(data):
        return pocket.SMALL if quick else options.DEFAULT_MODEL
    console.note(
        f"Planned for {PAPERS_MODEL}, since no --model is given. The grid itself needs --model {PAPERS_MODEL}."
    )
    return PAPERS_MODEL


def protocols_of(protocol: str, init: Path | None) -> tuple[Protocol, ...]:
    """`all` -> the first four, and transfer where there is a prompt to transfer. UserError for unknown ones."""
    from vlprompt.bench import PROTOCOLS

    if protocol == ALL:
        return tuple(one for one in PROTOCOLS if one != "transfer" or init is not None)
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, ASKED)
    chosen = options.one_of("PROTOCOL", protocol, PROTOCOLS)
    if chosen == "transfer" and init is None:
        raise UserError("transfer needs the pretrained prompt that is transferred: --init RUN.")
    if chosen != "transfer" and init is not None:
        raise UserError(f"--init is for transfer; {protocol} starts from the methods' own start. Leave it out.")
    return (chosen,)


def names(option: str, text: str) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"). UserError for an empty or a repeated one."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise UserError(f"{option} {text!r} has an empty or a repeated name. Write for example {option} a,b.")
    return found


def parse_shots(text: str) -> tuple[int | None, ...]:
    """`1,2,4` -> (1, 2, 4); 0 stands for all images. UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise UserError(
            f"--shots {text!r} is not a list of different whole numbers from 0. Write for example --shots 1,4,16."
        )
    return tuple(int(part) or None for part in parts)


def threads_each(jobs: int) -> int | None:
    """Threads of each of several processes, so together they do not take more than there are."""
    import os

    return None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
