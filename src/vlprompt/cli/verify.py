"""`vlprompt verify`: whether this machine computes what the published implementations computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing

if TYPE_CHECKING:
    from vlprompt.verify import Check, Compared

FAILED = 1
NOT_JUDGED = (
    "Errors in {dtype} are shown, not judged: the tolerances are float32's. Here a case fails only where a token id differs or a "
    "number is not finite."
)
KINDS = ("values", "gradients", "steps", "tensors")
MANY = 3
"""So many gradients or tensors of one case are counted, not listed."""


def verify(
    device: options.Device = "cpu",
    dtype: options.Precision = "float32",
    cases: Annotated[Path | None, option("--cases DIR", "Another folder of cases.", "the one in the package")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute the published methods, single passes and whole training runs, and compare with what their own code gave.

    Weights are random, from a seed; nothing is downloaded. An error is max |ours - theirs| / max |theirs|; of a training run's losses
    and rates the largest of all steps, each relative to itself.

    Example: `vlprompt verify --device cuda`
    """
    from vlprompt.engine.precision import DTYPES, resolve_device
    from vlprompt.verify import OURS, Folder, cases_in, run_case

    options.one_of("--dtype", dtype, DTYPES)
    place = str(resolve_device(device))
    asked = cases_in(OURS if cases is None else Folder(cases))
    results = []
    with observing() as observer:
        observer.stage("comparing", len(asked))
        for case in asked:
            results.append(run_case(case, device=place, dtype=dtype))
            observer.advance(1, {})
    failed = sum(not result.ok for result in results)
    if as_json:
        console.dump({"device": place, "dtype": dtype, "failed": failed, "cases": [_as_dict(one) for one in results]})
    else:
        console.show(_table(results, f"{dtype} on {place}"))
        if dtype != "float32":
            console.show(NOT_JUDGED.format(dtype=dtype))
        console.plain(f"{len(results)} cases, {failed} failed\n")
    if failed:
        raise typer.Exit(FAILED)


def _table(results: Sequence[Compared], title: str) -> Table:
    """Two rows a case: its values and gradients, or a run's steps and tensors, next to the repository and the file of the source."""
    columns = ("~case", "~source", "~compared", ">error", ">tolerance", "~ok")
    table = console.table(f"Compared with the published implementations, {title}", columns, ())
    for result in results:
        kinds = [[check for check in result.checks if check.kind == kind] for kind in KINDS]
        rows = [_row(checks) for checks in kinds if checks]
        places = [Text(part.strip()) for part in result.source.split(":", 1)]
        for name, place, row in zip_longest([Text(result.name)], places, rows):
            table.add_row(name, place, *(row or ()))
    return table


def _row(checks: Sequence[Check]) -> tuple[Text, ...]:
    names = ", ".join(check.what for check in checks)
    if (kind := checks[0].kind) in ("gradients", "tensors"):
        names = f"{len(checks)} {kind}" if len(checks) >= MANY else f"{kind.removesuffix('s')}: {names}"
    off = [check.what for check in checks if not check.ok]
    compared = f"{names}; off: {', '.join(off)}" if off else names
    worst = max((check.error for check in checks), key=lambda error: math.inf if math.isnan(error) else error)
    judged = any(check.judged and check.what != "token ids" for check in checks)
    tolerance = f"{checks[0].tolerance:.0e}" if judged else "-"
    verdict = Text("NO", style="bold red") if off else Text("yes" if judged else "-")
    return Text(compared), Text(f"{worst:.1e}"), Text(tolerance), verdict


def _as_dict(result: Compared) -> dict[str, object]:
    checks = [
        {
            "what": check.what,
            "kind": check.kind,
            "error": check.error if math.isfinite(check.error) else None,
            "tolerance": check.tolerance if check.judged else None,
            "ok": check.ok,
        }
        for check in result.checks
    ]
    return {"name": result.name, "source": result.source, "ok": result.ok, "checks": checks}
