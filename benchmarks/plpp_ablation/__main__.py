"""The ablation of PLPP as a command: `python -m benchmarks.plpp_ablation`; `--help` lists its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.plpp_ablation.run import run_ablation
from benchmarks.plpp_ablation.table import render
from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

app = typer.Typer(add_completion=False)
DEFAULT_DATA = "emoji-subgroups,clipart-things"


@options.command(app, "plpp_ablation")
def plpp_ablation(
    data: Annotated[
        str, option("--data A,B", "Data sets with validation images, as --data of train takes them.")
    ] = DEFAULT_DATA,
    model: options.Model = options.DEFAULT_MODEL,
    host: Annotated[str, option("--host", "The method that PLPP is added to.")] = "coop",
    shots: Annotated[int, option("--shots", "Training images per class.", min=1)] = 16,
    seeds: options.Seeds = "1,2,3",
    out: Annotated[Path, option("--out DIR", "Directory for cells and table.")] = Path("runs/plpp-ablation"),
    only: Annotated[
        str | None, option("--only A;B", 'Rows of the table to measure, with the host: "plpp;labels=random".')
    ] = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """Try PLPP's options and controls, one at a time, on VALIDATION images: base and novel halves, convergence, gradients.

    Call it again and it does only what is missing. A trial that cannot be learned is named at the end; the others are done.

    Example: `python -m benchmarks.plpp_ablation --data emoji-subgroups,clipart-things --seeds 1,2,3`
    """
    names = [name.strip() for name in data.split(",")]
    if not all(names):
        raise UserError(f"--data {data!r} has an empty name. Write for example --data {DEFAULT_DATA}.")
    with observing() as observer:
        cells = run_ablation(
            names,
            model,
            options.parse_seeds(seeds),
            out,
            observer,
            host=host,
            overrides=parse_settings(settings),
            shots=shots,
            only=[name.strip() for name in (only or "").split(";") if name.strip()],
            cache=cache,
            device=device,
        )
    console.plain(render(cells))
    console.note(f"Cells and table: {out}")


if __name__ == "__main__":
    app()
