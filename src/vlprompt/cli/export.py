"""`vlprompt export`: what a learned prompt makes of class names, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, failures, options

app = typer.Typer(help="Files for other programs: class vectors.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Files for other programs."""


@app.command("class-vectors", epilog=options.ANYWHERE)
@failures.guarded
def class_vectors(
    run: options.Run,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="vectors.npy or vectors.safetensors.")],
    names: Annotated[
        Path | None,
        typer.Option(
            "--names",
            metavar="FILE",
            help="A name per line, a JSON list, or COCO / LVIS annotations.",
            show_default="the classes it was learned on",
        ),
    ] = None,
    unit: Annotated[bool, typer.Option("--unit", help="Vectors of length 1 (Detic normalises by itself).")] = False,
    model: options.Backbone = None,
    device: options.Device = "auto",
) -> None:
    """Write the class features of a learned prompt, one row per name: open-vocabulary detectors take them as a classifier.

    Example: `vlprompt export class-vectors runs/rpp21k/best --names lvis_v1_val.json --out lvis_rpp.npy`
    """
    from vlprompt.artifact import pick, read_facts
    from vlprompt.engine.class_vectors import class_vectors as vectors_of
    from vlprompt.engine.class_vectors import read_names, write_vectors
    from vlprompt.engine.precision import resolve_device
    from vlprompt.towers import load

    place = resolve_device(device)
    clip = load(model, device=place) if model is not None else None
    chosen = read_names(names) if names is not None else tuple(read_facts(pick(run).directory)["class_names"])
    vectors_CE, learned = vectors_of(run, chosen, clip=clip, unit=unit, device=str(place))
    write_vectors(out, vectors_CE, chosen, learned)
    console.show(
        f"{out}: {vectors_CE.shape[0]} x {vectors_CE.shape[1]} float32, of {learned.method.name} on {learned.model}"
    )
