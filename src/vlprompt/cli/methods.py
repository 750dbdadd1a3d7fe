"""`vlprompt methods`: what there is to learn with, and what each method does."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.describe import Description


def methods(
    name: Annotated[str | None, argument("[NAME]", "A method, alone or with an overlay: plpp+coop.")] = None,
    model: Annotated[str | None, options.MODEL] = None,
    guide: Annotated[bool, option("--guide", "Which method for whom: one table.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the methods, or explain one: what it learns, where that enters, which loss reaches it, all its options.

    With `--model` the list says which methods work on that model, and why others do not.

    Example: `vlprompt methods plpp+coop`
    """
    if guide:
        if name is not None:
            raise UserError(f"--guide is about all methods. Leave {name!r} or --guide away.")
        _guide(as_json)
    elif name is not None:
        _explain(name, model or options.DEFAULT_MODEL, as_json)
    elif model is not None:
        _fits(model, as_json)
    else:
        _list(as_json)


GUIDE = (
    ("method", "for whom", "new classes", "needs validation", "learning runs"),
    ("zero-shot", "no images at all; the bar that all others must pass", "yes", "no", "nothing"),
    ("descriptions", "no images, and names that say little: describe each class", "yes", "no", "nothing"),
    ("coop", "a first learned prompt: few images, and a list of classes that may change", "yes", "no", "text tower"),
    ("linear-probe", "many images of classes that stay", "no", "yes", "features alone"),
    (
        "lp-plus-plus",
        "classes that stay, any number of images; the quickest that learns",
        "no",
        "yes",
        "features alone",
    ),
    ("tip-adapter", "classes that stay, and no time to learn", "no", "yes", "features alone"),
    ("tip-adapter-f", "classes that stay, few or many images", "no", "yes", "features alone"),
    (
        "described+tip-adapter-f",
        "classes that stay, a few images of each, and sentences that describe them",
        "no",
        "yes",
        "features alone",
    ),
    (
        "clip-adapter",
        "features that do not suit your images, and classes that may change",
        "yes",
        "no",
        "features alone",
    ),
    ("kgcoop", "new classes matter more than the ones you have images of", "yes", "no", "text tower"),
    ("prograd", "few images, and new classes matter", "yes", "no", "text tower"),
    ("cocoop", "new classes matter, and an answer may take long", "yes", "no", "text tower"),
    ("tcp", "as coop, with names that say much", "yes", "no", "text tower"),
    ("pomp", "thousands of classes", "yes", "no", "text tower"),
    ("maple", "time or a GPU, and both towers may change", "yes", "no", "text tower and image tower"),
    ("promptsrc", "time or a GPU; new classes matter", "yes", "no", "text tower and image tower"),
    ("rpp", "time or a GPU; new classes matter", "yes", "no", "text tower and image tower"),
    ("clip-lora", "time or a GPU, and images unlike those the model knows", "yes", "no", "text tower and image tower"),
    ("promptkd", "many images without labels, and a bigger model (`--teacher`)", "yes", "no", "image tower"),
    ("tpt", "no training images, and seconds for every answer", "yes", "no", "each test image"),
)
"""For whom each method is, in words (the project's judgement, from the papers' claims and docs/choosing.md). The other columns follow from
the methods, as a test checks; they stand here because the list must not load torch."""


def _guide(as_json: bool) -> None:
    head, *body = GUIDE
    rows = [dict(zip(head, row, strict=True)) for row in body]
    if as_json:
        console.dump(rows)
        return
    first, *others = head
    console.show(
        console.table("Which method for whom", (f"!{first}", *others), body),
        "new classes: it can be asked about names that it has no images of. needs validation: it chooses numbers on validation images; "
        "without any, on training images that are left over. plpp+METHOD adds the regulariser of PLPP, described+METHOD sentences for each "
        "class.",
    )
    console.commands("Let it choose:", ["vlprompt train my_photos"])


def _fits(model: str, as_json: bool) -> None:
    """Every method, and every overlay on every method that it can stand on: whether it works on a model."""
    from vlprompt.describe import obstacle
    from vlprompt.methods.resolve import every, recipe_of
    from vlprompt.towers import load

    clip = load(model)
    why = {name: obstacle(name, clip, recipe_of(name, "few-shot", model)) for name in every()}
    if as_json:
        console.dump([{"name": name, "fits": not reason, "reason": reason} for name, reason in why.items()])
        return
    found = ((name, "no" if reason else "yes", reason) for name, reason in why.items())
    console.show(console.table(f"Methods on {model}", ("!name", "!works", "why not"), found))


KINDS = {"Host": "method", "Overlay": "overlay"}
SAID = ("name", "summary", "learns", "source")


def listed() -> list[dict[str, str]]:
    """All methods, then all overlays: kind, name and words, read off the source of their table, which would load torch."""
    source = Path(__file__).parents[1] / "methods" / "table.py"
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            words = {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg in SAID}
            found.append({"name": words["name"], "kind": KINDS[node.func.id], **words})
    return sorted(found, key=lambda row: row["kind"])


def _list(as_json: bool) -> None:
    rows = listed()
    if as_json:
        console.dump(rows)
        return
    names = [row["name"] if row["kind"] == "method" else f"{row['name']}+METHOD" for row in rows]
    found = ((name, row["summary"], row["learns"], row["source"]) for name, row in zip(names, rows, strict=True))
    console.show(console.table("Methods", ("!name", "what it does", "what it learns", "source"), found))
    console.commands("More:", ["vlprompt methods plpp+coop", "vlprompt train --method plpp+coop"])


def _explain(name: str, model: str, as_json: bool) -> None:
    from vlprompt.describe import describe
    from vlprompt.methods.resolve import options, recipe_of, resolve
    from vlprompt.towers import load

    recipe, clip = recipe_of(name, "few-shot", model), load(model)
    about = describe(resolve(name, recipe=recipe, facts=clip.facts), clip)
    choices = options(name, recipe=recipe)
    if as_json:
        console.dump(about.as_dict() | {"recipe": recipe, "choices": [one.as_dict() for one in choices]})
        return
    facts = {
        "what": about.summary,
        "source": about.source,
        "learns": f"{about.parameters:,} numbers on {about.model}, with {about.num_classes} classes",
        "loss": about.loss,
        **{f"  {term.name}": term.formula for term in about.terms},
        "gradient": about.gradient_rule,
        "result": about.result,
        "a step": "; ".join(about.cost),
        **({"on this host": "; ".join(about.notes)} if about.notes else {}),
        **({"gradients": _lengths(about)} if about.gradient_ratios else {}),
    }
    console.show(Text(about.name, style="bold"), console.pairs(facts))
    if about.tensors:
        names = [term.name for term in about.terms]
        reached = (
            (one.name, " x ".join(map(str, one.shape)), one.place, *map(one.reach, names)) for one in about.tensors
        )
        title = "What is learned, and which loss reaches it (measured)"
        console.show(console.table(title, ("tensor", "shape", "where it enters", *names), reached))
    rows = ((one.name, one.default, one.allowed, one.help) for one in choices)
    title = f"Options for --set (defaults of the recipe {recipe})"
    console.show(console.table(title, ("!name", "default", "allowed", "meaning"), rows))
    console.commands("Try it:", [f"vlprompt train --method {about.name}"])


def _lengths(about: Description) -> str:
    """How long each term's gradient is at the start."""
    each = ", ".join(f"{name} {value:.2g}" for name, value in about.gradient_ratios.items())
    w = ", ".join(f"{one:g}" for one in sorted({term.weight for term in about.terms if term.balance}))
    told = f", with {w} in place of w" if w else ""
    return f"{each} times cross-entropy's, on what the term labels, before the first step, on random images{told}"
