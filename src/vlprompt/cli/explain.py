"""`vlprompt explain`: what a prompt has learned, in words and in pictures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.head import shown
from vlprompt.cli.options import option
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.explain import Alike, Looks, Reading
    from vlprompt.losses.words import NearWords

TOP = 5


def explain(
    run: options.Run,
    top: Annotated[int, option("--top", "Words per learned token.", min=1)] = TOP,
    image: Annotated[
        Path | None, option("--image FILE", "Draw where it looks in this picture, before and after learning.")
    ] = None,
    name: Annotated[str | None, option("--class NAME", "Of which class.", "its answer")] = None,
    out: Annotated[Path | None, option("--out FILE", "The drawing.", "looks-NAME.png in the run")] = None,
    model: options.Backbone = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a prompt has learned: tensors, nearest words, perplexity, which classes are alike, and what follows.

    With `--image` it draws where the picture speaks for a class and for its rival, with hand-written words and learned.

    Example: `vlprompt explain runs/mine --image cat.jpg`
    """
    from vlprompt import records
    from vlprompt.artifact import pick
    from vlprompt.explain import read
    from vlprompt.report.judgement import judge

    picked = pick(run)
    if image is not None:
        _draw(picked.directory, image, name, out or run / f"looks-{image.stem}.png", model, as_json=as_json)
        return
    if name is not None or out is not None:
        raise UserError("--class and --out belong to a picture. Give one with --image.")
    reading = read(picked.directory, top=top, model=model)
    if as_json:
        console.dump(_as_dict(reading, str(picked.directory)))
        return
    learned = reading.learned
    console.show(f"{learned.method.name} on {learned.model}, {len(learned.class_names)} classes: {picked.reason}.")
    console.show(*_tensors(reading), *words_and_perplexity(reading))
    if reading.words is not None:
        console.show(*shown(reading.words.head))
    if reading.alike is not None:
        console.show(_alike(reading.alike))
    judged = [judge([records.read(picked.directory)]).sentence] if records.finished(picked.directory) else []
    console.show(Text("What follows", style="bold"), *judged, *map(Text, reading.conclusion))


def _alike(alike: Alike) -> Table:
    rows = [(one, other, f"{before:.3f}", f"{after:.3f}") for one, other, before, after in alike.pairs]
    table = console.table("Classes that are most alike, by cosine", ("class", "class", ">before", ">after"), rows)
    table.add_section()
    table.add_row(Text("mean of all pairs", style="dim"), "", f"{alike.before:.3f}", f"{alike.after:.3f}")
    return table


def _draw(directory: Path, image: Path, name: str | None, out: Path, model: str | None, *, as_json: bool) -> None:
    from vlprompt.data.images import open_image
    from vlprompt.explain import looks

    found = looks(directory, open_image(image), name=name, model=model)
    _figure(found, out)
    said = {
        kind: dict(zip(found.names, look.probability, strict=True))
        for kind, look in (("hand_written", found.before), ("learned", found.after))
    }
    if as_json:
        console.dump({"picture": str(image), "drawing": str(out), **said})
        return
    label, rival = found.names
    for kind, look in (("Hand-written words", found.before), ("The learned prompt", found.after)):
        console.show(f"{kind}: {label} {look.probability[0]:.2f}, {rival} {look.probability[1]:.2f}.")
    console.show(f"{out}: red speaks for a class, blue against it.")


def _figure(found: Looks, out: Path) -> None:
    """The picture, and a row each for hand-written words and the learned prompt."""
    from vlprompt.report.canvas import png

    tall = min(max(found.picture.height / found.picture.width, 0.5), 2.0)
    with png(out, (9.6, 6.4 * tall + 1.2), dpi=110, font_size=9, layout="constrained") as figure:
        axes = figure.subplots(2, 3)
        for row, look in zip(axes, (found.before, found.after), strict=True):
            titles = (look.title, *(f"{n}: {p:.2f}" for n, p in zip(found.names, look.probability, strict=True)))
            for axis, shown_here, title in zip(row, (found.picture, *look.pictures), titles, strict=True):
                axis.imshow(shown_here)
                axis.set_title(title, fontsize=9)
                axis.set_axis_off()
        figure.suptitle("Red speaks for the class, blue against it", fontsize=10)


def words_and_perplexity(reading: Reading) -> list[RenderableType]:
    """The words nearest to each learned token, and the perplexity of the context."""
    words = reading.words
    if words is None:
        return [
            "There are no words to compare with: the method has no text context, or the model's text tower predicts no words."
        ]
    whose = "" if words.of_class is None else f" (the context of the class {words.of_class!r})"
    table = console.table(
        f"Nearest words of each learned token{whose}",
        (">token", "by cosine", ">cosine", "by distance", ">distance"),
        (
            (number, ", ".join(near.words), f"{near.cosine[0]:.3f}", ", ".join(close.words), f"{close.distance[0]:.3f}")
            for number, (near, close) in enumerate(zip(words.by_cosine, words.by_distance, strict=True), 1)
        ),
    )
    for column in (table.columns[0], table.columns[2], table.columns[4]):
        column.no_wrap = True
    table.add_section()
    far = sum(near.chance_distance for near in words.by_distance) / len(words.by_distance)
    chance = Text("a random vector", style="dim")
    table.add_row("", chance, f"{words.by_cosine[0].chance_cosine:.3f}", chance, f"{far:.3f}")
    verdict = (
        f"{words.meaningful} of {len(words.by_cosine)} tokens lie nearer to a word, by cosine, than a random vector does on average; by "
        "chance it would be about half of them. A token that is not nearer than that has no meaning in words."
    )
    rows = [("learned", f"{words.perplexity:,.0f}"), ("the same before learning", f"{words.perplexity_start:,.0f}")]
    if words.perplexity_template is not None:
        rows.append((f"the words {words.template_words!r}", f"{words.perplexity_template:,.0f}"))
    title = "Perplexity of the context: how much it surprises the model as text (low: little)"
    return [table, verdict, console.table(title, ("context", ">perplexity"), rows)]


def _tensors(reading: Reading) -> list[RenderableType]:
    if not reading.tensors:
        return ["Nothing is learned: the template of the data set is used as it is."]
    rows = [
        (one.name, " x ".join(map(str, one.shape)), f"{math.prod(one.shape):,}", one.place) for one in reading.tensors
    ]
    return [console.table("What was learned", ("tensor", "shape", ">numbers", "where it enters"), rows)]


def _as_dict(reading: Reading, directory: str) -> dict[str, object]:
    learned, words = reading.learned, reading.words
    in_words = words and {
        "of_class": words.of_class,
        "by_cosine": [_near(one) for one in words.by_cosine],
        "by_distance": [_near(one) for one in words.by_distance],
        "perplexity": words.perplexity,
        "perplexity_start": words.perplexity_start,
        "perplexity_template": words.perplexity_template,
        "head": words.head.as_dict(),
    }
    return {
        "directory": directory,
        "method": learned.method.name,
        "model": learned.model,
        "classes": list(learned.class_names),
        "tensors": [{"name": one.name, "shape": list(one.shape), "place": one.place} for one in reading.tensors],
        "conclusion": reading.conclusion,
        "alike": reading.alike and dataclasses.asdict(reading.alike),
        "words": in_words,
    }


def _near(near: NearWords) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(near).items() if name != "best_cosine"}
