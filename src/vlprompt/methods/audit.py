"""Whether the recipes are whole: every file can be read, every setting is known, nothing of a paper is left to a default."""

from __future__ import annotations

from collections.abc import Iterator

from vlprompt.errors import UserError
from vlprompt.methods import recipes
from vlprompt.methods.options import options_of
from vlprompt.methods.recipes import ANY, Recipe
from vlprompt.methods.resolve import every, parse, resolve, takes_steps
from vlprompt.types import Steps

FREE = ("per_class", "words")
"""Options that a recipe need not state: off by default, and stated where a source has them on."""
STEPS = ("epochs", "lr", "batch")
OWN_FILES = ("descriptions",)
"""Methods whose settings are a file of the user's: only the embedded sets have one here."""
PRETRAINED_ON = "imagenet21k"


def problems() -> list[str]:
    """A sentence for each thing that is wrong or missing."""
    return [*_of_files(), *_missing()]


def _of_files() -> Iterator[str]:
    for name in recipes.names():
        try:
            found = recipes.read(name)
            yield from _of(found)
        except UserError as problem:
            yield str(problem)


def _of(recipe: Recipe) -> Iterator[str]:
    _, host = parse(recipe.method)
    sets = {*recipe.train, *recipe.test, *recipe.datasets, *recipe.templates}
    sets |= {one for case in recipe.cases for one in case.datasets}
    if unknown := sorted(sets - {*recipes.GROUPS["papers"], PRETRAINED_ON}):
        yield f"recipe {recipe.name}: {', '.join(unknown)} is not a data set of the papers."
    if recipe.choices == "published" and "/" not in recipe.source:
        yield f"recipe {recipe.name}: it is called published and its source names no repository."
    for shots in recipe.shots or (None,):
        for dataset in sorted(sets) or [""]:
            stated = recipe.settings(shots=shots, dataset=dataset)
            found = resolve(recipe.method, recipe=recipe.name, shots=shots, dataset=dataset).options
            if wrong := [one for one, value in stated.items() if found.get(one) != value]:
                yield f"recipe {recipe.name}: {', '.join(wrong)} on {dataset or 'any set'} is not what comes of it."
            own = [one.name for part in (host.prompt, host.options) if part is not None for one in options_of(part)]
            wanted = [one for one in own if one not in FREE] + [*(STEPS if takes_steps(host) else ())]
            if left := [one for one in wanted if one not in stated]:
                yield f"recipe {recipe.name}: {', '.join(left)} is left to a default; state it."
                return


def _missing() -> Iterator[str]:
    for method in every():
        for protocol in recipes.PROTOCOLS:
            small = protocol == ANY
            if not recipes.named(method, protocol, pocket=small) and possible(method, protocol):
                yield f"{method} has no recipe for {'the small models' if small else protocol}."


def possible(method: str, protocol: str) -> bool:
    """Whether a method can be run by a protocol as it comes."""
    if method in OWN_FILES:
        return protocol == ANY
    made = resolve(method)
    if protocol == "pretraining":
        return (
            isinstance(made.learner, Steps)
            and "image" not in made.prompt.reach.sees
            and made.learner.rule is None
            and not made.prompt.reach.own_classes
            and made.unlabelled is None
        )
    return not made.prompt.reach.own_classes or protocol not in ("base-to-novel", "cross-dataset")
