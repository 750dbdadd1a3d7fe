"""`vlprompt models`: the models inside the package, and which others can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options

if TYPE_CHECKING:
    from vlprompt.towers import Clip

OTHERS = (
    "Any CLIP works too: a Hugging Face or open_clip directory or Hub id (for example openai/clip-vit-base-patch16), or one of "
    "OpenAI's .pt files, which is read and never executed."
)
COLUMNS = ("name", "parameters", "image tower", "pixels", "text width", "image width", "embedding", "words")
LEFT = ("name", "image tower")


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
        table.add_column(column, justify="left" if column in LEFT else "right")
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
        "image tower": _tower(clip),
        "pixels": clip.preprocess.crop,
        "text width": clip.facts.text_width,
        "image width": clip.facts.image_width,
        "embedding": clip.facts.embed_dim,
        "words": len(clip.vocabulary.word_ids),
        "weight_hash": clip.weight_hash,
    }


def _tower(clip: Clip) -> str:
    if not clip.facts.takes_image_prompts:
        return "ResNet"
    return f"ViT, patch {clip.config.patch_size}" + (" (a trunk's cell)" if clip.reads_cells else "")
