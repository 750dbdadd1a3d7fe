"""`vlprompt convert`: published checkpoints of prompts as artifacts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.errors import UserError

PositionName = Literal["end", "middle", "front"]
POSITIONS: tuple[PositionName, ...] = ("end", "middle", "front")


def convert(
    file: Annotated[Path, argument("FILE", "A checkpoint as the methods' published code saves it.")],
    classes: Annotated[
        str,
        option(
            "--classes FILE|A,B,C", "The classes it was learned on, in order: a file with one name per line, or names."
        ),
    ],
    out: Annotated[Path, option("--out DIR", "Directory for the prompt.")],
    model: options.Model = options.DEFAULT_MODEL,
    template: Annotated[
        str, option("--template", "Words of the zero-shot classifier, {} for the name.")
    ] = "a photo of a {}.",
    position: Annotated[str, option("--position", "Where CoOp's class name stands: end, middle or front.")] = "end",
    method: Annotated[
        str | None,
        option(
            "--method NAME",
            "Which method learned it, where files look alike: kgcoop, prograd, pomp; promptsrc.",
            "coop; ivlp",
        ),
    ] = None,
) -> None:
    """Turn a published checkpoint (`.pth.tar`) into a prompt that predict, eval, explain and `train --init` take.

    The file is read, never executed. Class names and backbone are checked against the embeddings in it.

    Example: `vlprompt convert model.pth.tar-5 --model openai/clip-vit-base-patch16 --classes names.txt --out prompts/maple`
    """
    from vlprompt.convert import convert as write
    from vlprompt.towers import load

    names = options.parse_names([classes]) or ()
    where = options.one_of("--position", position, POSITIONS)
    if template.count("{}") != 1:
        raise UserError(f"--template {template!r} must have one {{}}, where the class name stands.")
    learned = write(file, load(model), names, out, model=model, template=template, position=where, method=method)
    console.show(
        f"{out}: {learned.method.name}, {learned.num_parameters:,} learned numbers, {len(names)} classes, for {model}."
    )
    place = shlex.quote(str(out))
    console.commands("Next:", [f"vlprompt predict {place} PICTURE.jpg", f"vlprompt eval {place} --data FOLDER"])
