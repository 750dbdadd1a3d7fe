"""`vlprompt report`: tables and figures of all runs in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option


def report(
    directory: Annotated[Path, argument("DIR", "Where the runs are, at any depth.")],
    margin: Annotated[float, option("--margin POINTS", "Points. A smaller difference counts as none.")] = 0.5,
    title: Annotated[str, option("--title TEXT", "Heading of the page.", "the directory's name")] = "",
    as_json: options.AsJson = False,
) -> None:
    """Write DIR/report.html (one page, works offline), report.md and report.csv from the records below DIR.

    Tables in the papers' shapes, curves, differences with intervals, classes, confusions, reliability. Nothing is run.

    Example: `vlprompt report runs/bench`
    """
    from vlprompt.report.write import write_report

    written = write_report(directory, margin=margin, title=title)
    for note in written.notes:
        console.warn(note)
    if as_json:
        console.dump(
            {
                "files": [str(path) for path in written.files],
                "runs": written.num_runs,
                "methods": list(written.methods),
                "datasets": list(written.datasets),
                "notes": list(written.notes),
            }
        )
        return
    console.show(
        f"{written.num_runs:,} runs of {len(written.methods)} methods on {len(written.datasets)} data sets.",
        f"Page:   {written.files[0]}",
        *[f"Tables: {path}" for path in written.files[1:]],
    )
