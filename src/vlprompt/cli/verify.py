"""`vlprompt verify`: whether this machine computes what the published implementations computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.progress import observing

if TYPE_CHECKING:
    from vlprompt.verify import Check, Result

FAILED = 1
NOT_JUDGED = (
    "Errors in {dtype} are shown, not judged: the tolerances are float32's. Here a case fails only where a token id differs or a "
    "number is not finite."
)
MANY = 3
"""So many gradients of one case are counted, not listed."""


def verify(
    device: options.Device = "cpu", dtype: options.Precision = "float32", as_json: options.AsJson = False
) -> None:
    """Compute the published methods on seeded random weights and compare with what their own code gave.

    Nothing is downloaded: numbers and seeds are in the package. An error is max |ours - theirs| / max |theirs|.

    Example: `vlprompt verify --device cuda`
    """
    from vlprompt.engine.precision import DTYPES, resolve_device
    from vlprompt.verify import case_names, run_case

    options.one_of("--dtype", dtype, DTYPES)
    place = str(resolve_device(device))
    results = []
    with observing() as observer:
        observer.stage("comparing", len(case_names()))
        for name in case_names():
            results.append(run_case(name, device=place, dtype=dtype))
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


def _table(results: Sequence[Result], title: str) -> Table:
    """Two rows a case: its values and gradients, beside the repository and the file that they were computed with."""
    table = Table(box=box.SIMPLE_HEAD, title=f"Beside the published implementations, {title}", title_justify="left")
    for column in ("case", "source", "compared", "error", "tolerance", "ok"):
        table.add_column(column, justify="right" if column in ("error", "tolerance") else "left", overflow="fold")
    for result in results:
        kinds = [[check for check in result.checks if check.kind == kind] for kind in ("values", "gradients")]
        rows = [_row(checks) for checks in kinds if checks]
        places = [Text(part) for part in result.source.split(":", 1)]
        for name, place, row in zip_longest([Text(result.name)], places, rows):
            table.add_row(name, place, *(row or ()))
    return table


def _row(checks: Sequence[Check]) -> tuple[Text, ...]:
    names = ", ".join(check.what for check in checks)
    if checks[0].kind == "gradients":
        names = f"{len(checks)} gradients" if len(checks) >= MANY else f"gradient: {names}"
    off = [check.what for check in checks if not check.ok]
    compared = f"{names}; off: {', '.join(off)}" if off else names
    worst = max((check.error for check in checks), key=lambda error: math.inf if math.isnan(error) else error)
    judged = any(check.judged and check.what != "token ids" for check in checks)
    tolerance = f"{checks[0].tolerance:.0e}" if judged else "-"
    verdict = Text("NO", style="bold red") if off else Text("yes" if judged else "-")
    return Text(compared), Text(f"{worst:.1e}"), Text(tolerance), verdict


def _as_dict(result: Result) -> dict[str, object]:
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
