"""`vlprompt quickstart`: see in minutes what prompt learning does, without GPU and without a download."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vlprompt.cli import console, options
from vlprompt.cli.options import option
from vlprompt.cli.progress import observing
from vlprompt.methods.options import parse_settings

if TYPE_CHECKING:
    from vlprompt.bench import Cell, Outcome


def quickstart(
    out: Annotated[Path, option("--out DIR", "Directory for runs, table, figure and page.")] = Path("runs/quickstart"),
    data: options.Data = "fashion",
    model: options.Model = "pocket-m",
    shots: options.Shots = 16,
    seeds: options.Seeds = "1,2,3",
    settings: options.Settings = None,
    device: options.Device = "auto",
    markdown: Annotated[bool, option("--markdown", "The table alone, as Markdown on stdout.")] = False,
) -> None:
    """Learn from pictures of half of the classes, and ask about both halves: CoOp, PLPP and RPP next to hand-written words.

    It ends with a table, a figure and a page. Call it again and it does only what is missing.

    Example: `vlprompt quickstart --out runs/quickstart`
    """
    from vlprompt import quickstart as first
    from vlprompt.cli.explain import TOP, words_and_perplexity
    from vlprompt.explain import read
    from vlprompt.report.tables import as_markdown, as_rich

    chosen = (shots or None, options.parse_seeds(seeds), parse_settings(settings))
    with observing(notes=False) as observer:
        outcome = first.run(out, data, model, *chosen, device, observer, said)
    if markdown:
        console.plain(as_markdown(outcome.table))
        return
    console.show(as_rich(outcome.table, console.width()), CAUTION)
    console.show(*words_and_perplexity(read(outcome.words, top=TOP)))
    console.show(f"Figure: {outcome.figure}", f"Table:  {out / first.TABLE}", f"Page:   {outcome.page}")
    learned = shlex.quote(str(outcome.prompt))
    console.commands(
        f"Ask the prompt that did best on validation images ({outcome.best}) about a picture and classes of your own:",
        [f'vlprompt predict {learned} PICTURE.jpg --classes "shirt,hat,shoe"'],
    )
    console.commands(
        "Learn from a folder of your own (FOLDER/CLASS/picture.jpg), with a real CLIP where you have one:",
        [
            "vlprompt data check FOLDER",
            "vlprompt train FOLDER --model openai/clip-vit-base-patch16 --out runs/mine",
            "vlprompt predict runs/mine PICTURE.jpg",
        ],
    )


CAUTION = (
    "Hand-written words are a sentence such as 'a photo of a {}.'; the methods learn vectors in its place, from pictures of the first "
    "half of the classes alone. The model is small: this shows the steps, not what the methods do with a real CLIP."
)


def said(cell: Cell, outcome: Outcome) -> None:
    """A line for every test that is done."""
    if outcome.top1 is not None:
        half = "seen" if cell.subset == "base" else "new"
        console.note(f"{cell.course.method}, seed {cell.course.seed}, {half} classes: {outcome.top1:.1f} %")
