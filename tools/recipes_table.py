"""The tables of docs/ that say, for each method and protocol, what is published and what is this project's: from the recipes.

python tools/recipes_table.py    # writes them between their marks in docs/protocols.md and docs/reproducing.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vlprompt.methods import recipes
from vlprompt.methods.audit import possible
from vlprompt.methods.recipes import Recipe
from vlprompt.methods.resolve import HOSTS, OVERLAYS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROTOCOLS = ("few-shot", "base-to-novel", "cross-dataset", "domain", "pretraining")


def matrix() -> str:
    """Method by protocol: whose the settings are."""
    lines = [f"| method | {' | '.join(PROTOCOLS)} |", f"| --- |{' --- |' * len(PROTOCOLS)}"]
    for host in HOSTS:
        cells = []
        for protocol in PROTOCOLS:
            name = recipes.named(host.name, protocol)
            cells.append(recipes.read(name).choices if name else "-" if not possible(host.name, protocol) else "none")
        lines.append(f"| {host.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"| {overlay.name}+METHOD |{' project |' * len(PROTOCOLS)}" for overlay in OVERLAYS)])


def settings() -> str:
    """A line for each recipe: whose its settings are, what they are, and where they stand."""
    lines = ["| recipe | whose | settings | where they stand |", "| --- | --- | --- | --- |"]
    for host in HOSTS:
        own = [one for one in map(recipes.read, recipes.names()) if one.method == host.name]
        for one in sorted(own, key=lambda one: (recipes.PROTOCOLS.index(one.protocol), one.name)):
            lines.append(f"| `{one.name}` | {one.choices} | {_settings(one)} | {one.source} |")
    return "\n".join(lines)


def _settings(recipe: Recipe) -> str:
    parts = [_pairs({**recipe.options, **recipe.schedule})]
    if recipe.epochs:
        parts.append(f"epochs by images per class {_pairs(recipe.epochs)}")
    same: dict[str, list[str]] = {}
    for dataset, own in recipe.datasets.items():
        same.setdefault(_pairs(own), []).append(dataset)
    parts += [f"{', '.join(sets)}: {own}" for own, sets in same.items()]
    parts += [
        f"{', '.join(case.datasets)} with {', '.join(map(str, case.shots))} images: {_pairs(case.settings)}"
        for case in recipe.cases
    ]
    if recipe.protocol == "pretraining":
        pretrain = recipe.pretrain
        parts.append(f"{pretrain.processes} processes, {pretrain.copies} {pretrain.views} views of an image")
    return "; ".join(parts).replace("|", "\\|")


def _pairs(values: Mapping[str, object] | Mapping[int, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


PARTS = {"matrix": matrix, "settings": settings}


def filled(text: str) -> str:
    """A page with its tables as the recipes have them now."""
    for name, make in PARTS.items():
        mark = re.compile(rf"(<!-- recipes {name} -->\n).*?(<!-- /recipes -->)", re.DOTALL)
        text = mark.sub(lambda found, table=make: f"{found[1]}{table()}\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    for page in ("protocols.md", "reproducing.md"):
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
