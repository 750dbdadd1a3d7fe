"""`vlprompt models`: the models inside the package, and which others can be used."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options

OTHERS = (
    "Any CLIP with a ViT image tower in the Hugging Face layout works too: a directory with config.json, model.safetensors, "
    "tokenizer.json and preprocessor_config.json, or its id on the Hub (for example openai/clip-vit-base-patch16)."
)
COLUMNS = ("name", "parameters", "pixels", "patch", "text width", "image width", "embedding", "words")


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="One model: a name, a directory or a Hub id.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the embedded models, or check one of your own.

    Example: `vlprompt models path/to/clip`
    """
    from vlprompt import pocket

    rows = [_facts(one) for one in ([name] if name else pocket.model_names())]
    if as_json:
        console.dump(rows)
        return
    table = Table(box=box.SIMPLE_HEAD, title="Models", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in rows:
        table.add_row(
            *(Text(f"{row[column]:,}" if isinstance(row[column], int) else str(row[column])) for column in COLUMNS)
        )
    console.show(table)
    if name is None:
        console.show(OTHERS)


def _facts(name: str) -> dict[str, object]:
    """What can be said of a model; loading it is the check."""
    from vlprompt.towers import load

    clip = load(name)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in clip.parameters()),
        "pixels": clip.preprocess.crop,
        "patch": clip.config.patch_size,
        "text width": clip.facts.text_width,
        "image width": clip.facts.image_width,
        "embedding": clip.facts.embed_dim,
        "words": len(clip.vocabulary.word_ids),
        "weight_hash": clip.weight_hash,
    }
