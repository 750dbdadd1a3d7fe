"""`vlprompt quickstart`: see in minutes what prompt learning does, without GPU and without a download."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, options
from vlprompt.cli.progress import observing


def quickstart(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where runs, table, figure and page go.")] = Path(
        "runs/quickstart"
    ),
    data: options.Data = options.POCKET_DATA,
    model: options.Model = options.POCKET_MODEL,
    shots: options.Shots = 16,
    seeds: options.Seeds = "1,2,3",
    settings: options.Settings = None,
    device: options.Device = "auto",
    markdown: Annotated[bool, typer.Option("--markdown", help="The table alone, as Markdown on stdout.")] = False,
) -> None:
    """Zero-shot, CoOp and PLPP on the embedded images: a table, a figure, and the words nearest to the learned prompt.

    Called again it does only what is missing.

    Example: `vlprompt quickstart --out runs/quickstart`
    """
    from vlprompt import quickstart as first
    from vlprompt.cli.explain import read_run, words_and_perplexity
    from vlprompt.report.tables import as_markdown, as_rich

    plan = first.Plan(
        out=out,
        data=data,
        model=model,
        shots=shots or None,
        seeds=options.parse_seeds(seeds),
        overrides=options.parse_settings(settings),
        device=device,
    )
    outcome = first.run(plan, observing)
    if markdown:
        console.plain(as_markdown(outcome.table))
        return
    console.show(as_rich(outcome.table, console.width()))
    console.show(*words_and_perplexity(read_run(plan.learned)))
    console.show(f"Figure: {outcome.figure}", f"Table:  {out / first.TABLE}", f"Page:   {outcome.page}")
    learned = shlex.quote(str(plan.learned))
    console.commands("Try the learned prompt on a picture of your own:", [f"vlprompt predict {learned} PICTURE.png"])
    console.commands(
        "Learn from a folder of your own (FOLDER/CLASS/picture.jpg) with a real CLIP:",
        [
            "vlprompt data check FOLDER",
            "vlprompt train --data FOLDER --model openai/clip-vit-base-patch16 --method plpp+coop --out runs/mine",
            "vlprompt predict runs/mine PICTURE.jpg",
        ],
    )
