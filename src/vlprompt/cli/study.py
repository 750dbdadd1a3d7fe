"""`vlprompt ablate pretraining`: what pretraining is worth, on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, failures, options
from vlprompt.cli.progress import observing


@failures.guarded
def pretraining(
    data: Annotated[str, typer.Option("--data", metavar="DIR|URL|NAME", help="As in pretrain.")] = "pocket",
    model: options.Model = options.POCKET_MODEL,
    targets: Annotated[
        str | None,
        typer.Option("--targets", metavar="A,B", help="Data sets to transfer to.", show_default="the embedded ones"),
    ] = None,
    seeds: options.Seeds = "1,2,3",
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of every cell.")] = 5,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells and tables go.")] = Path(
        "runs/ablate-pretraining"
    ),
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """POMP, RPP and its parts, distillation weights, epochs and amount of data; then each prompt on other data sets.

    Called again it does only what is missing; started twice, two processes share the work.

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
    console.plain((out / TABLE).read_text())
    console.commands(
        "Paired differences:",
        [f"vlprompt compare {out}/transfer/rpp {out}/transfer/pomp"],
    )
