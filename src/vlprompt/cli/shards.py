"""`vlprompt data shards`: a data set as tar shards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vlprompt.cli import console, failures
from vlprompt.cli.progress import counting


@failures.guarded
def write(
    source: Annotated[str, typer.Argument(metavar="DIR|FILE|NAME", help="What you would give to `pretrain --data`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the shards go.")],
    class_names: Annotated[
        Path | None,
        typer.Option("--class-names", metavar="FILE", help="As in pretrain.", show_default="beside the data"),
    ] = None,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Training images per class; 0 takes all.")] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the sample and of the order in the shards.")] = 42,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, help="Images in a shard.")] = 1000,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not decode every image first.")] = False,
) -> None:
    """Write a data set as tar shards in the WebDataset layout, shuffled, with their list `shards.json`.

    An interrupted run goes on when it is started again.

    Example: `vlprompt data shards imagenet21k_resized --out shards21k`
    """
    from vlprompt.data import write_shards
    from vlprompt.data.store import default_root
    from vlprompt.pretrain.config import PretrainConfig
    from vlprompt.pretrain.source import open_corpus

    config = PretrainConfig(
        method="rpp", model="", data=source, out=out, class_names=class_names, shots=shots or None, seed=seed
    )
    corpus = open_corpus(config, default_root())
    for note in corpus.notes:
        console.warn(note)
    with counting("writing images") as progress:
        skipped = write_shards(corpus, out, per_shard=per_shard, seed=seed, verify=not no_check, progress=progress)
    for one in skipped[:5]:
        console.warn(f"left out: {one.id} ({one.reason})")
    if len(skipped) > 5:
        console.warn(f"left out: {len(skipped) - 5} more")
    console.show(f"{out}: {len(corpus.class_names)} classes in {len(list(out.glob('*.tar')))} shards")
    console.commands("Learn from them:", [f"vlprompt pretrain --data {shlex.quote(str(out))}"])
