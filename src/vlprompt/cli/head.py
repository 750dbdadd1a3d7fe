"""`vlprompt head`: what the text tower knows as a language model, before PLPP is asked to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import RenderableType
from rich.table import Table

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.errors import UserError
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.head import Head, HeadScores

MEANING = {
    "raw": "raw: h W^T",
    "centred": "centred: (h - mean h) W^T",
    "cosine": "cosine: logit scale x cos(h, W)",
}


def head(
    model: Annotated[
        str | None,
        option(
            "--model NAME|DIR|ID", "The model whose text tower is tested.", "pocket-m; with --run, where its model was"
        ),
    ] = None,
    run: Annotated[Path | None, option("--run RUN", "Also with the learned prompt of this run.", "no prompt")] = None,
    method: Annotated[
        str | None, option("--method NAME", "Also with this method's prompt as it starts.", "no prompt")
    ] = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Test whether the text tower knows language: plain captions, the same words shuffled, random tokens.

    A tower that knows language finds plain captions the least surprising. Look at this before you use PLPP on a model.

    Example: `vlprompt head --model openai/clip-vit-base-patch16`
    """
    if run is not None and (method is not None or settings):
        raise UserError("--run already says the method. Leave out --method and --set, or leave out --run.")
    if settings and method is None:
        raise UserError(
            "--set needs --method: without a prompt there is nothing to set. Add for example --method coop."
        )
    from vlprompt.artifact import loaded, pick
    from vlprompt.engine.precision import resolve_device
    from vlprompt.engine.train import new_prompt
    from vlprompt.explain import head_of
    from vlprompt.methods.resolve import recipe_of, resolve
    from vlprompt.towers import load

    place = resolve_device(device)
    if run is not None:
        learned, clip = loaded(pick(run).directory, model, device=place)
        found = head_of(clip, learned.method.prompt, learned.prompt)
    else:
        model, method = model or options.DEFAULT_MODEL, method or "zero-shot"
        clip, recipe = load(model, device=place), recipe_of(method, "few-shot", model)
        spec = resolve(method, parse_settings(settings), recipe=recipe, facts=clip.facts).prompt
        found = head_of(clip, spec, new_prompt(clip, spec, 1, 1))
    if as_json:
        console.dump(found.as_dict())
        return
    console.show(*shown(found))


def shown(found: Head) -> list[RenderableType]:
    """The table, and the verdict in words."""
    out: list[RenderableType] = [_table(found.heads, "Perplexity a token, and rank of the true next word")]
    if found.prompted is not None:
        out.append(_table(found.prompted, "The same behind the prompt's context"))
    return [
        *out,
        f"{found.captions} captions, {found.num_words:,} words. Rank: share of the other words that are found likelier than the true "
        "one; 50 % is chance.",
        found.raw.verdict,
    ]


def _table(heads: Mapping[str, HeadScores], title: str) -> Table:
    rows = []
    for kind, one in heads.items():
        numbers = (f"{math.exp(min(value, 700)):,.0f}" for value in (one.natural, one.shuffled, one.random))
        rows.append((MEANING[kind], *numbers, f"{100 * one.above:.0f} %"))
    return console.table(title, ("head", ">plain captions", ">shuffled", ">random tokens", ">rank"), rows)
