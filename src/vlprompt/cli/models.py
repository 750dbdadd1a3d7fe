"""`vlprompt models`: the models inside the package, and which others can be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import argument

OTHERS = (
    "Any CLIP works too: a Hugging Face or open_clip directory or Hub id (for example openai/clip-vit-base-patch16), or one of "
    "OpenAI's .pt files, which is read and never executed."
)
COLUMNS = ("name", "parameters", "image tower", "pixels", "text width", "image width", "embedding", "words")
TRUNK = " (a trunk's cell)"
LEFT = ("name", "image tower")


def models(
    name: Annotated[str | None, argument("[MODEL]", "One model: a name, a directory or a Hub id.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the embedded models, or check one of your own.

    Example: `vlprompt models path/to/clip`
    """
    from vlprompt import pocket

    rows = [_facts(name)] if name else [_read(one) for one in pocket.model_names()]
    if as_json:
        console.dump(rows)
        return
    columns = [column if column in LEFT else f">{column}" for column in COLUMNS]
    cells = ([f"{row[one]:,}" if isinstance(row[one], int) else row[one] for one in COLUMNS] for row in rows)
    console.show(console.table("Models", columns, cells))
    if name is None:
        console.show(OTHERS)


def _read(name: str) -> dict[str, object]:
    """The same of an embedded model, but its hash, from its configuration and the headers of its weights: torch is not loaded."""
    from vlprompt import pocket, reading

    folder = pocket.model_dir(name)
    config = reading.json_object(folder / "config.json")
    text, image = (
        config.get(part) or config[f"{part}_config"] for part in ("text", "image" if "image" in config else "vision")
    )
    size = {**config, **image}
    return {
        "name": name,
        "parameters": sum(map(_numbers, folder.glob("*.safetensors"))) - 1,  # without the logit scale
        "image tower": f"ViT, patch {size['patch_size']}{TRUNK if 'trunk' in config else ''}",
        "pixels": size["image_size"],
        "text width": text.get("width") or text["hidden_size"],
        "image width": image.get("width") or image["hidden_size"],
        "embedding": config.get("embed_dim") or config["projection_dim"],
        "words": {**config, **text}["vocab_size"] - 2,  # the marks of start and end
    }


def _numbers(weights: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")


def _facts(name: str) -> dict[str, object]:
    """What can be said of a model; loading it is the check."""
    from vlprompt.towers import load

    clip = load(name)
    vit = clip.facts.takes_image_prompts
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in clip.parameters()),
        "image tower": f"ViT, patch {clip.config.patch_size}{TRUNK if clip.reads_cells else ''}" if vit else "ResNet",
        "pixels": clip.preprocess.crop,
        "text width": clip.facts.text_width,
        "image width": clip.facts.image_width,
        "embedding": clip.facts.embed_dim,
        "words": len(clip.vocabulary.word_ids),
        "weight_hash": clip.weight_hash,
    }
