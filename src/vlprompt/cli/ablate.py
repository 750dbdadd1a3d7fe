"""`vlprompt ablate`: sweeps that choose a method's defaults, on validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

app = typer.Typer(help="Sweep a method's options on validation images.", no_args_is_help=True)
DEFAULT_DATA = "emoji-subgroups,clipart-things"


@options.command(app, "plpp")
def plpp(
    data: Annotated[
        str, option("--data A,B", "Data sets with validation images, as --data of train takes them.")
    ] = DEFAULT_DATA,
    model: options.Model = options.DEFAULT_MODEL,
    host: Annotated[str, option("--host", "The method that PLPP is added to.")] = "coop",
    shots: Annotated[int, option("--shots", "Training images per class.", min=1)] = 16,
    seeds: options.Seeds = "1,2,3",
    out: Annotated[Path, option("--out DIR", "Directory for cells and table.")] = Path("runs/ablate-plpp"),
    only: Annotated[
        str | None, option("--only A;B", 'Rows of the table to measure, with the host: "plpp;labels=random".')
    ] = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """Try PLPP's options and controls, one at a time, on VALIDATION images: base and novel halves, convergence, gradients.

    Call it again and it does only what is missing.

    Example: `vlprompt ablate plpp --data emoji-subgroups,clipart-things --seeds 1,2,3 --out runs/ablate-plpp`
    """
    from vlprompt.ablate import render, run_ablation

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


@options.command(app, "pretraining")
def pretraining(
    data: Annotated[str, option("--data DIR|URL|NAME", "As in pretrain.")] = "pocket",
    model: options.Model = options.DEFAULT_MODEL,
    targets: Annotated[str | None, option("--targets A,B", "Data sets to transfer to.", "the embedded ones")] = None,
    seeds: options.Seeds = "1,2,3",
    epochs: Annotated[int, option("--epochs", "Epochs of every cell.", min=1)] = 5,
    out: Annotated[Path, option("--out DIR", "Directory for cells and tables.")] = Path("runs/ablate-pretraining"),
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """Compare POMP, RPP and its parts, distillation weights, epochs and amounts of data, then test each prompt on other data sets.

    Call it again and it does only what is missing. Start it twice, and two processes share the work.

    Example: `vlprompt ablate pretraining --data pocket --seeds 1,2,3 --out runs/ablate-pretraining`
    """
    from vlprompt.pretrain.study import TABLE, Study, run_study

    study = Study(
        out=out,
        data=data,
        model=model,
        targets=None if targets is None else tuple(one.strip() for one in targets.split(",")),
        seeds=options.parse_seeds(seeds),
        epochs=epochs,
        device=device,
        cache=cache,
    )
    with observing() as observer:
        run_study(study, observer)
    console.plain((out / TABLE).read_text(encoding="utf-8"))
    console.commands(
        "Paired differences:",
        [f"vlprompt compare {out}/transfer/rpp {out}/transfer/pomp"],
    )
