"""What a grid plans is what the recipes' files say: every method, protocol, data set of the papers and number of images."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import vlprompt
from tests.bench.made import request
from tests.bench.test_outlook import TINY
from vlprompt import cli
from vlprompt.bench import PAPERS_MODEL, PROTOCOLS, Cell, Means, Plan, Request, SizedDesk, estimate, make, workspace
from vlprompt.bench.request import EVERY
from vlprompt.data.papers import catalogue
from vlprompt.errors import UserError
from vlprompt.methods.resolve import every, resolve
from vlprompt.towers.random_clip import draw_clip, tower

FILES = Path(vlprompt.__file__).parent / "recipes"
SMALL = dataclasses.replace(TINY, text=tower(64, 12), image=tower(64, 12))
"""ViT-B/16's layers, in tiny towers."""
SHOTS = (1, 2, 4, 8, 16)


def stated(name: str, dataset: str, shots: int) -> dict[str, Any]:
    """What the files state for one run, read a second time: the file that is extended first, then its own."""
    if name.startswith("plpp-"):
        host = name.removeprefix("plpp-")
        own = tomllib.loads((FILES / "plpp.toml").read_text(encoding="utf-8")).get("over", {}).get(host, {})
        return stated(host, dataset, shots) | {f"plpp.{option}": value for option, value in own.items()}
    chain, at = [], name
    while at:
        values = tomllib.loads((FILES / f"{at}.toml").read_text(encoding="utf-8"))
        chain.insert(0, values)
        at = values.get("extends", "")
    found: dict[str, Any] = {}
    for values in chain:
        if "options_from" in values:
            steps = {one: found[one] for one in ("epochs", "lr", "batch") if one in found}
            found = (
                steps | tomllib.loads((FILES / f"{values['options_from']}.toml").read_text(encoding="utf-8"))["options"]
            )
        found |= values.get("options", {}) | values.get("schedule", {})
    by_shots, cases = {}, []
    own: dict[str, Any] = {}
    for values in chain:
        by_shots |= values.get("epochs", {})
        own |= values.get("datasets", {}).get(dataset, {}) if "options_from" not in values else {}
        cases += values.get("cases", [])
    if by_shots:
        found["epochs"] = by_shots[str(shots)]
    found |= own
    for case in cases:
        if dataset in case["datasets"] and shots in case["shots"]:
            found |= case["settings"]
    return found


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Every method by all protocols on the papers' sets, a hundredth of their size, on a model of ViT-B/16's layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch_to_nothing(patch)
        asked = Request(
            protocols=PROTOCOLS[:4], data=("papers",), model=PAPERS_MODEL, methods=EVERY, shots=SHOTS, seeds=(1,)
        )
        return make(asked, SizedDesk(Means(device="cpu")))


def patch_to_nothing(patch: pytest.MonkeyPatch) -> None:
    """No data and no weights on this machine."""

    def load(model: str, **_: object) -> None:
        raise UserError(f"cannot fetch {model!r}: no network.")

    rows = [
        dataclasses.replace(row, sizes=tuple(size and max(100, size // 100) for size in row.sizes), classes=5)
        for row in catalogue.ROWS
    ]
    patch.setattr(catalogue, "ROWS", tuple(rows))
    patch.setattr(workspace, "load", load)
    patch.setattr(workspace, "draw_clip", lambda **means: draw_clip(SMALL, **means))
    patch.delenv("VLPROMPT_DATA", raising=False)


def test_every_cell_has_the_settings_of_its_file_field_by_field(plan: Plan) -> None:
    seen = set()
    for cell in plan.cells:
        course, one = cell.course, cell.planned
        method, protocol = course.method, cell.protocol
        assert one["recipe"] == f"{method.replace('+', '-')}-{protocol}"
        wanted = stated(str(one["recipe"]), course.dataset, course.shots or 1)
        settings = one["settings"]
        assert isinstance(settings, Mapping)
        assert {name: settings[name] for name in wanted} == wanted, cell.name
        seen.add((method, protocol, course.dataset, course.shots))
    for method in every():
        resolved = resolve(method)
        for protocol, sources, counts in (
            ("few-shot", 11, SHOTS),
            ("base-to-novel", 11, SHOTS[-1:]),
            ("cross-dataset", 1, SHOTS[-1:]),
            ("domain", 1, SHOTS[-1:]),
        ):
            found = [one for one in seen if one[:2] == (method, protocol)]
            possible = not resolved.prompt.reach.own_classes or protocol in ("few-shot", "domain")
            possible = possible and "descri" not in method  # whose sentences for these sets are not in the package
            if resolved.learner is None or resolved.unlabelled is not None:
                counts = (0,)  # nothing is learned, or from all images without their labels
            assert len(found) == sources * len(counts) * possible, (method, protocol)


def cell_of(plan: Plan, protocol: str, method: str, data: str = "imagenet", shots: int = 16) -> Cell:
    return next(
        one
        for one in plan.cells
        if (one.protocol, one.course.method, one.course.dataset, one.course.shots) == (protocol, method, data, shots)
    )


LITERAL: list[tuple[str, str, str, int, str, dict[str, object]]] = [
    (
        "few-shot",
        "coop",
        "dtd",
        16,
        "published",
        {"n_ctx": 16, "init": "normal", "epochs": 200, "batch": 32, "lr": 0.002},
    ),
    ("few-shot", "coop", "dtd", 1, "published", {"epochs": 50}),
    ("few-shot", "coop", "dtd", 4, "published", {"epochs": 100}),
    ("few-shot", "coop", "imagenet", 16, "published", {"epochs": 50}),
    ("base-to-novel", "coop", "dtd", 16, "published", {"n_ctx": 4, "init": "a photo of a", "epochs": 200}),
    ("base-to-novel", "coop", "imagenet", 16, "published", {"n_ctx": 4, "init": "a photo of a", "epochs": 50}),
    ("cross-dataset", "coop", "imagenet", 16, "published", {"n_ctx": 4, "init": "a photo of a", "epochs": 50}),
    ("domain", "coop", "imagenet", 16, "published", {"n_ctx": 4, "init": "a photo of a", "epochs": 50}),
    ("cross-dataset", "cocoop", "imagenet", 16, "published", {"epochs": 10, "batch": 1, "lr": 0.002}),
    ("base-to-novel", "maple", "dtd", 16, "published", {"depth": 9, "lr": 0.0035, "epochs": 5, "batch": 4}),
    ("cross-dataset", "maple", "imagenet", 16, "published", {"depth": 3, "lr": 0.0026, "epochs": 2, "n_ctx": 2}),
    ("domain", "maple", "imagenet", 16, "published", {"depth": 3, "lr": 0.0026, "epochs": 2}),
    ("few-shot", "maple", "dtd", 16, "project", {"depth": 9, "epochs": 50}),
    (
        "base-to-novel",
        "promptsrc",
        "dtd",
        16,
        "published",
        {"depth": 9, "average_mean": 15, "average_std": 1, "epochs": 20},
    ),
    ("cross-dataset", "promptsrc", "imagenet", 16, "published", {"depth": 3, "average_mean": 6, "average_std": 10}),
    (
        "domain",
        "promptsrc",
        "imagenet",
        16,
        "published",
        {"depth": 3, "average_mean": 6, "average_std": 10, "epochs": 20},
    ),
    (
        "few-shot",
        "promptsrc",
        "food101",
        4,
        "published",
        {"epochs": 50, "average_mean": 30, "average_std": 30, "depth": 9},
    ),
    ("few-shot", "promptsrc", "imagenet", 4, "published", {"average_mean": 30, "average_std": 30}),
    ("few-shot", "promptsrc", "stanford_cars", 4, "published", {"epochs": 50, "average_mean": 45, "average_std": 5}),
    ("few-shot", "promptsrc", "eurosat", 1, "published", {"average_mean": 45, "average_std": 5}),
    ("cross-dataset", "plpp+promptsrc", "imagenet", 16, "project", {"depth": 3, "average_mean": 6, "average_std": 10}),
    ("cross-dataset", "plpp+coop", "imagenet", 16, "project", {"n_ctx": 4, "epochs": 50}),
    ("cross-dataset", "rpp", "imagenet", 16, "project", {"depth": 3, "epochs": 20}),
    ("few-shot", "rpp", "dtd", 16, "project", {"depth": 9, "epochs": 50}),
    ("base-to-novel", "kgcoop", "dtd", 16, "published", {"weight": 8, "batch": 128, "epochs": 100}),
    ("few-shot", "prograd", "dtd", 4, "published", {"strength": 1.0, "epochs": 100}),
    *(
        ("few-shot", "prograd", data, shots, "published", {"strength": strength, "epochs": 200})
        for data, strength in (("dtd", 0.8), ("eurosat", 0.8), ("oxford_flowers", 0.8), ("oxford_pets", 1.0))
        for shots in (8, 16)
    ),
    ("few-shot", "prograd", "oxford_pets", 2, "published", {"init": "zeros + a type of pet, a photo of", "words": "a"}),
    ("few-shot", "prograd", "food101", 2, "published", {"init": "zeros + a type of food, a photo", "words": "of"}),
    ("few-shot", "prograd", "ucf101", 2, "published", {"init": "zeros + a photo of a person doing", "words": ""}),
    ("base-to-novel", "prograd", "dtd", 16, "project", {"strength": 1.0}),
    ("base-to-novel", "vpt-deep", "dtd", 16, "published", {"n_image": 8, "depth": 12, "epochs": 5, "lr": 0.0025}),
]
"""The papers' numbers as their code has them, written a second time."""


@pytest.mark.parametrize(("protocol", "method", "data", "shots", "choices", "settings"), LITERAL)
def test_published_numbers_one_by_one(
    plan: Plan, protocol: str, method: str, data: str, shots: int, choices: str, settings: dict[str, object]
) -> None:
    cell = cell_of(plan, protocol, method, data, shots)
    assert {name: cell.course.options[name] for name in settings} == settings
    assert (cell.course.choices, cell.course.views) == (choices, "epochs")


@pytest.mark.parametrize("data", ["dtd", "eurosat", "oxford_pets", "ucf101", "imagenet"])
def test_deep_image_prompts_have_one_sentence_for_all_sets(plan: Plan, data: str) -> None:
    assert cell_of(plan, "base-to-novel", "vpt-deep", data).course.template == "a photo of a {}."


def test_protocols_share_a_prompt_where_their_settings_are_the_same_and_only_there(plan: Plan) -> None:
    places = {
        (method, protocol): cell_of(plan, protocol, method).course.place
        for method in ("coop", "cocoop")
        for protocol in ("few-shot", "cross-dataset", "domain")
    }
    assert str(places["coop", "few-shot"]) == "prompts/imagenet/all/coop/shots16/seed1"
    assert str(places["coop", "cross-dataset"]) == "prompts/imagenet/all/coop@cross-dataset/shots16/seed1"
    assert places["coop", "domain"] == places["coop", "cross-dataset"]
    assert len({places["cocoop", one] for one in ("few-shot", "cross-dataset", "domain")}) == 1
    facts: dict[Path, object] = {}
    for cell in plan.cells:
        assert facts.setdefault(cell.course.place, cell.course.facts) == cell.course.facts


def test_the_command_prints_the_plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    patch_to_nothing(monkeypatch)
    for name, value in (("FEW", 2), ("MANY", 4), ("VERY_MANY", 5), ("ENOUGH", 0.0)):
        monkeypatch.setattr(estimate, name, value)
    asked = ["bench", "few-shot", "--data", "dtd,eurosat", "--methods", "coop,plpp+coop", "--seeds", "1", "--dry-run"]
    assert cli.run([*asked, "--device", "cpu", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert len(cells) == 2 * 2 * len(SHOTS)
    for cell in cells:
        assert {"method", "data", "protocol", "shots", "seed", "recipe", "settings"} <= cell.keys()
        assert cell["settings"]["epochs"] == (50 if cell["shots"] == 1 else 100 if cell["shots"] < 8 else 200)
        assert cell["choices"] == ("published" if cell["method"] == "coop" else "project")
        assert [(FILES / name).is_file() for name in cell["recipe_files"]] == [True] * (1 + ("plpp" in cell["method"]))
        assert len(cell["recipe_hash"]) == 64
    assert cli.run([*asked, "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "coop-few-shot.toml (published)" in said
    assert "plpp.toml over coop-few-shot.toml (project)" in said


def test_a_small_model_has_its_own_recipe_and_a_new_set_the_projects_choices(clip_dir: Path, tmp_path: Path) -> None:
    asked = request(clip_dir, tmp_path, data=("emoji-symbols",), overrides={}, views=None)
    desk = SizedDesk(Means(device="cpu"))
    for model, recipe, views in ((str(clip_dir), "coop-few-shot", 8), ("pocket-s", "coop-pocket", "centre")):
        (cell,) = make(dataclasses.replace(asked, model=model, data=("emoji-symbols",)), desk).cells
        assert (cell.course.recipe, cell.course.choices, cell.course.views) == (recipe, "project", views)
