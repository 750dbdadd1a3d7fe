"""`vlprompt recipes`: the published rows, with their hyperparameters, sources and commands."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from vlprompt.cli import console, options
from vlprompt.cli.options import argument, option
from vlprompt.errors import DATA

if TYPE_CHECKING:
    from vlprompt.methods.recipes import Recipe


def recipes(
    name: Annotated[str | None, argument("[NAME]", "A recipe, for `train --recipe`.")] = None,
    check: Annotated[
        bool,
        option(
            "--check", "Check that all files are complete: every setting is known, every method and protocol has one."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the recipes, one per method and protocol, or show one: settings, source, published numbers and its commands.

    Example: `vlprompt recipes maple-base-to-novel`
    """
    from vlprompt.methods.recipes import names, read

    if check:
        _check(as_json=as_json)
    elif as_json:
        console.dump([as_dict(read(one)) for one in names()] if name is None else as_dict(read(name)))
    elif name is None:
        _list([read(one) for one in names()])
    else:
        _show(read(name))


def _check(*, as_json: bool) -> None:
    """Say what is wrong with the files, and end with exit code 3 if anything is."""
    from vlprompt.methods.audit import problems
    from vlprompt.methods.recipes import names, read

    found, files = problems(), {file for name in names() for file in read(name).files}
    if as_json:
        console.dump({"recipes": len(names()), "files": len(files), "problems": found})
    elif not found:
        console.show(f"{len(names())} recipes of {len(files)} files: all whole.")
    for problem in found if not as_json else ():
        console.warn(problem)
    if found:
        raise typer.Exit(DATA)


def as_dict(recipe: Recipe) -> dict[str, object]:
    """JSON-ready: shots that are keys become strings."""
    epochs = {str(shots): count for shots, count in recipe.epochs.items()}
    return dataclasses.asdict(recipe) | {"epochs": epochs, "commands": recipe.commands}


def _list(found: list[Recipe]) -> None:
    rows = []
    for one in found:
        whose = "published" if one.choices == "published" else "project's choice"
        rows.append((one.name, one.method, one.protocol, whose, len(one.published) or "-"))
    columns = ("!name", "method", "protocol", "settings", "published numbers")
    console.show(console.table("Recipes", columns, rows))
    console.commands("More:", [f"vlprompt recipes {found[0].name}", f"vlprompt train --recipe {found[0].name}"])


def _show(recipe: Recipe) -> None:
    whose = "as published" if recipe.choices == "published" else "the project's choice"
    facts = {
        "method": recipe.method,
        "protocol": recipe.protocol,
        "settings": f"{whose}: {recipe.source}",
        "file": " over ".join(recipe.files),
        **({"note": recipe.note} if recipe.note else {}),
        "model": recipe.model,
        **({"learned on": ", ".join(recipe.train)} if recipe.train else {}),
        **({"tested on": ", ".join(recipe.test)} if recipe.test else {}),
        "images per class": ", ".join(map(str, recipe.shots)),
        "seeds": ", ".join(map(str, recipe.seeds)),
        "views": str(recipe.views),
        **{f"template of {one}": words for one, words in recipe.templates.items()},
    }
    console.show(Text(recipe.title, style="bold"), console.pairs(facts), _settings(recipe))
    if recipe.published:
        console.show(_numbers(recipe))
    console.commands("Commands (SET is one of the data sets above):", recipe.commands)


def _settings(recipe: Recipe) -> Table:
    rows = [(name, value, "") for name, value in {**recipe.options, **recipe.schedule}.items()]
    rows += [("epochs", count, f"{shots} images per class") for shots, count in recipe.epochs.items()]
    rows += [(name, value, on) for on, own in recipe.datasets.items() for name, value in own.items()]
    for case in recipe.cases:
        where = f"{', '.join(case.datasets)} with {', '.join(map(str, case.shots))} images per class"
        rows += [(name, value, where) for name, value in case.settings.items()]
    if recipe.protocol == "pretraining":
        pretrain = dataclasses.asdict(recipe.pretrain)
        own = () if recipe.pretrain.classes else ("classes", "correction")  # options of the method then
        rows += [
            (name, value, "pretraining") for name, value in pretrain.items() if value is not None and name not in own
        ]
    return console.table("Settings, as --set takes them", ("name", "value", "where"), rows)


def _numbers(recipe: Recipe) -> Table:
    rows = []
    for one in recipe.published:
        shots = "" if one.shots is None else one.shots
        rows.append((one.dataset, shots, one.metric.replace("_", " "), f"{one.value:g}", one.source))
    return console.table("Published numbers, percent", ("data set", "shots", "what", "value", "source"), rows)
