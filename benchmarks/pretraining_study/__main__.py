"""The study of pretraining as a command: `python -m benchmarks.pretraining_study`; `--help` lists its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pretraining_study.study import TABLE, Study, run_study
from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing

app = typer.Typer(add_completion=False)


@options.command(app, "pretraining_study")
def pretraining_study(
    data: Annotated[str, option("--data DIR|URL|NAME", "As in pretrain.")] = "pocket",
    model: options.Model = options.DEFAULT_MODEL,
    targets: Annotated[str | None, option("--targets A,B", "Data sets to transfer to.", "the embedded ones")] = None,
    seeds: options.Seeds = "1,2,3",
    epochs: Annotated[int, option("--epochs", "Epochs of every cell.", min=1)] = 5,
    out: Annotated[Path, option("--out DIR", "Directory for cells and tables.")] = Path("runs/pretraining-study"),
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """Compare POMP, RPP and its parts, distillation weights, epochs and amounts of data, then test each prompt on other data sets.

    POMP, RPP, RPP without distillation, with shared tokens, and in one tower only are pretrained with every seed; other weights of the
    distillation and fewer images with the first seed. Call it again and it does only what is missing. Start it twice, and two processes
    share the work. OUT gets study.md, study.png, study.json, the runs, and records that `vlprompt compare` reads.

    Example: `python -m benchmarks.pretraining_study --data pocket --seeds 1,2,3`
    """
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
    console.commands("Paired differences:", [f"vlprompt compare {out}/transfer/rpp {out}/transfer/pomp"])


if __name__ == "__main__":
    app()
