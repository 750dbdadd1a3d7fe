"""The published rows: every file is whole, resolves, says the same as its commands, and prints no number without a source."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from tools import recipes_table

from tests.engine.made import config, write_images
from vlprompt import cli
from vlprompt.data.papers import catalogue
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError
from vlprompt.methods import audit, recipes
from vlprompt.methods.recipes import Recipe
from vlprompt.methods.resolve import resolve

TEXT = """
title = "t"
method = "coop"
protocol = "few-shot"
choices = "published"
source = "a/b: c"
model = "m"
shots = [1, 16]
seeds = [1]
views = "epochs"
train = ["dtd"]
"""


@pytest.fixture(params=recipes.names())
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return recipes.read(request.param)


def test_every_recipe_resolves_to_what_it_says(recipe: Recipe) -> None:
    for shots in recipe.shots:
        for dataset in {*recipe.train, *recipe.datasets}:
            wanted = recipe.settings(shots=shots, dataset=dataset)
            found = resolve(recipe.method, recipe=recipe.name, shots=shots, dataset=dataset).options
            assert {name: found[name] for name in wanted} == wanted


def test_the_files_are_whole() -> None:
    """Every setting known and stated, every method with every protocol that is possible."""
    assert audit.problems() == []


def test_gaps_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    left = tuple(one for one in recipes.names() if one not in ("maple-domain", "rpp-pocket"))
    monkeypatch.setattr(recipes, "names", lambda: left)
    found = " ".join(audit.problems())
    assert "maple has no recipe for domain" in found
    assert "rpp has no recipe for the small models" in found


def test_a_file_that_leaves_a_number_to_a_default_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recipes.read("maple-domain")
    cut = dataclasses.replace(whole, options={"n_ctx": 2, "init": "a photo of a"}, train=("imagenet", "imaginet"))
    monkeypatch.setattr(recipes, "read", lambda name: cut if name == "maple-domain" else whole)
    monkeypatch.setattr(recipes, "names", lambda: ("maple-domain",))
    found = " ".join(audit.problems())
    assert "depth is left to a default" in found
    assert "imaginet is not a data set" in found


def test_the_hash_is_that_of_the_files_bytes() -> None:
    folder = Path(recipes.__file__).parents[1] / "recipes"
    for name, files in (
        ("coop-few-shot", ["coop-few-shot"]),
        ("plpp-coop-few-shot", ["plpp", "coop-few-shot"]),
        ("vpt-few-shot", ["vpt-few-shot", "vpt-deep-few-shot", "vpt-deep-base-to-novel"]),
    ):
        bytes_ = b"".join((folder / f"{one}.toml").read_bytes() for one in files)
        assert recipes.read(name).hash == recipes.hash_of(name) == hashlib.sha256(bytes_).hexdigest()
        assert list(recipes.read(name).files) == [f"{one}.toml" for one in files]


def settings(name: str, **where: Any) -> dict[str, Any]:
    return dict(recipes.read(name).settings(**where))


def test_published_settings() -> None:
    """Against the configurations in the repositories that the files name, written out a second time."""
    assert settings("coop-few-shot", shots=2)["epochs"] == 100
    assert settings("coop-few-shot", shots=16, dataset="imagenet")["epochs"] == 50
    assert settings("coop-base-to-novel", shots=16) | {"epochs": 200, "n_ctx": 4, "init": "a photo of a"} == settings(
        "coop-base-to-novel", shots=16
    )
    one = settings("cocoop-base-to-novel")
    assert (one["batch"], one["epochs"], one["lr"]) == (1, 10, 0.002)
    one = settings("maple-domain")
    assert (one["depth"], one["lr"], one["epochs"], one["batch"]) == (3, 0.0026, 2, 4)
    one = settings("maple-base-to-novel")
    assert (one["n_ctx"], one["depth"], one["lr"], one["epochs"]) == (2, 9, 0.0035, 5)
    for dataset, average in (("caltech101", (30, 30)), ("EuroSAT", (45, 5)), ("fgvc-aircraft", (45, 5))):
        one = settings("promptsrc-few-shot", shots=4, dataset=dataset)
        assert (one["average_mean"], one["average_std"]) == average
        assert one["average_epochs"] == one["epochs"] == 50
    one = settings("promptsrc-cross-dataset")
    assert (one["depth"], one["average_mean"], one["average_std"], one["epochs"]) == (3, 6, 10, 20)
    one = settings("kgcoop-base-to-novel")
    assert (one["batch"], one["epochs"], one["weight"]) == (128, 100, 8)
    one = settings("pomp-pretraining")
    assert (one["classes"], one["correction"], one["epochs"], one["n_ctx"], one["batch"]) == (1000, "log10", 5, 4, 256)
    pretrain = recipes.read("pomp-pretraining").pretrain
    assert (pretrain.processes, pretrain.copies, pretrain.views, pretrain.keep) == (8, 4, "published", "best")
    assert recipes.read("prograd-few-shot").template("Food-101") == "a type of food, a photo of {}."


def test_numbers_have_sources_and_the_papers_own_methods_have_none(recipe: Recipe) -> None:
    assert "/" in recipe.source or "project's choice" in recipe.source
    for one in recipe.published:
        assert "/" in one.source
        assert ".md" in one.source
    if "plpp" in recipe.method or "rpp" in recipe.method:
        assert recipe.choices == "project"
        assert recipe.published == ()
    if recipe.choices == "project" and recipe.model != recipes.POCKET:
        assert recipe.note
        assert "project's choice" in recipe.source
    halves = {one.metric: one.value for one in recipe.published if recipe.protocol == "base-to-novel"}
    if halves:
        base, novel = halves["base"], halves["novel"]
        assert halves["harmonic_mean"] == pytest.approx(2 * base * novel / (base + novel), abs=0.011)


def test_an_overlays_recipe_is_its_hosts() -> None:
    for name in recipes.names():
        if not name.startswith("plpp-"):
            continue
        ours, theirs = recipes.read(name), recipes.read(name.removeprefix("plpp-"))
        assert ours.method == f"plpp+{theirs.method}"
        assert (ours.choices, ours.published) == ("project", ())
        assert (ours.shots, ours.seeds, ours.train, ours.test, ours.views) == (
            theirs.shots,
            theirs.seeds,
            theirs.train,
            theirs.test,
            theirs.views,
        )
        for dataset in ("imagenet", "eurosat", "caltech101"):
            for shots in ours.shots:
                own = ours.settings(shots=shots, dataset=dataset)
                host = theirs.settings(shots=shots, dataset=dataset)
                assert {one: value for one, value in own.items() if not one.startswith("plpp.")} == host


def test_data_sets_are_those_of_the_catalogue(recipe: Recipe) -> None:
    for name in (*recipe.train, *recipe.test, *recipe.datasets, *recipe.templates):
        row = catalogue.find(name)
        assert row is not None
        assert row.name == name


def test_the_commands_follow_from_the_recipe(recipe: Recipe) -> None:
    """They are parsed as the command line parses them."""
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    first, *others = [shlex.split(one) for one in recipe.commands]
    pretraining = recipe.protocol == "pretraining"
    if pretraining:
        assert first[:5] == ["torchrun", "--nproc-per-node", "8", "-m", "vlprompt"]
        first = first[4:]
    assert first[1] == ("pretrain" if pretraining else "train")
    given = commands[first[1]].make_context(first[1], first[2:]).params
    assert given["recipe"] == recipe.name
    assert given["data"] == (recipe.train[0] if len(recipe.train) == 1 else "SET")
    if recipe.model != recipes.POCKET:
        assert given["model"] == recipe.model
    if not pretraining:
        assert given["shots"] in recipe.shots
        assert given["seeds"] == ",".join(map(str, recipe.seeds))
        assert given["subset"] == ("base" if recipe.protocol == "base-to-novel" else "all")
    assert len(others) == (recipe.protocol not in ("few-shot", "any"))
    for other in others:
        tested = commands[other[1]].make_context("eval", other[2:]).params
        assert tested["run"] == (given["out"] / "best" if pretraining else given["out"])
        assert tested["subset"] == ("novel" if recipe.protocol == "base-to-novel" else "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('protocol = "few"', "protocol is 'few'; it must be one of few-shot"),
        ('choices = "mine"', "choices is 'mine'"),
        ("shots = [-1]", "shots is [-1]"),
        ('shots = "many"', "a list of whole numbers"),
        ('views = "all"', "views is 'all'"),
        ('train = "twelve"', "one of eleven, ten, four, fourteen"),
        ('title = ""', "title is ''"),
        ("[datasets]\ndtd = 3", "datasets.dtd"),
        ('[[published]]\nvalue = 101\nmetric = "top1"\ndataset = "dtd"\nsource = "s"', "a number in percent"),
        ('[[published]]\nvalue = 10\nmetric = "top1"\ndataset = "dtd"', "source is None"),
        ("epoch = 3", "epoch is 3; it must be left out: allowed are title, method"),
        ("title =", "is damaged or no TOML"),
        ('extends = "coop-nowhere"', "extends is 'coop-nowhere', and no file has that name"),
        ("[pretrain]\nprocess = 8", "process is 8; it must be left out: allowed are processes"),
        ('[pretrain]\nkeep = "first"', "keep is 'first'; it must be one of best, last"),
        ("[pretrain]\ncopies = -1", "copies is -1; it must be a whole number of at least 0"),
        ("[epochs]\nmany = 5", "epochs is {'many': 5}; it must be"),
        ('[[cases]]\ndatasets = "dtd"\nshots = [1]', "datasets is 'dtd'; it must be a list of data sets"),
    ],
)
def test_a_file_that_is_wrong_says_what(change: str, message: str) -> None:
    key = change.partition(" ")[0]
    lines = [line for line in TEXT.splitlines() if line.partition(" ")[0] != key]
    with pytest.raises(UserError) as refused:
        recipes.parse("mine", "\n".join([*lines, change]))
    assert message in str(refused.value)
    assert "mine" in str(refused.value)


def test_a_file_may_leave_out_what_has_a_default() -> None:
    found = recipes.parse("mine", TEXT + "[epochs]\n1 = 5\n16 = 20\n[options.plpp]\nk = 3\n")
    assert found.settings(shots=1) == {"plpp.k": 3, "epochs": 5}
    assert found.settings(shots=2)["epochs"] == found.settings(shots=99)["epochs"] == found.settings()["epochs"] == 20
    assert found.template("dtd") is None


def test_settings_are_those_of_the_data_set_and_of_its_numbers_of_images() -> None:
    case = '[[cases]]\ndatasets = ["dtd"]\nshots = [16]\nsettings = { lr = 3 }\n'
    found = recipes.parse("mine", TEXT + case + "[schedule]\nlr = 1\n[datasets.dtd]\nlr = 2\n")
    assert [found.settings(shots=16, dataset=one)["lr"] for one in ("DTD", "eurosat")] == [3, 1]
    assert [found.settings(shots=one, dataset="dtd")["lr"] for one in (1, None)] == [2, 2]


def test_what_a_file_extends_comes_below_its_own() -> None:
    text = (
        'extends = "coop-few-shot"\ntitle = "t"\nmethod = "coop"\nchoices = "project"\nsource = "project\'s choice"\n'
    )
    found = recipes.parse("mine", text)
    assert (found.settings(shots=1)["epochs"], found.settings(shots=1, dataset="imagenet")["epochs"]) == (50, 50)
    assert (found.published, found.note, found.files) == ((), "", ("coop-few-shot.toml",))
    own = recipes.parse("mine", text + "[schedule]\nepochs = 7\n")
    assert own.settings(shots=1)["epochs"] == 7, "its own epochs, not those by shots below"


def test_unknown_recipes_name_the_nearest() -> None:
    for ask in (lambda: recipes.read("maple-base-to-nowel"), lambda: resolve("maple", recipe="maple-base-to-nowel")):
        with pytest.raises(UserError, match="Did you mean 'maple-base-to-novel'"):
            ask()


def test_what_the_user_says_comes_last_and_an_overlay_may_be_added() -> None:
    found = resolve("plpp+coop", {"epochs": "3", "plpp.k": "5"}, recipe="coop-few-shot", shots=1)
    assert (found.options["epochs"], found.options["plpp.k"], found.options["n_ctx"]) == (3, 5, 16)
    assert [term.name for term in found.terms] == ["cross-entropy", "plpp", "plpp-inverse"]


@pytest.mark.parametrize(("method", "recipe"), [("maple", "coop-few-shot"), ("coop", "plpp-coop-few-shot")])
def test_another_methods_recipe_is_refused(method: str, recipe: str) -> None:
    with pytest.raises(UserError, match=r"the recipe .* is for .*, not for"):
        resolve(method, recipe=recipe)


def test_a_recipe_brings_its_template_and_its_views(clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "DTD")
    asked = {"method": "kgcoop", "recipe": "kgcoop-base-to-novel", "views": None}
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run", **asked, overrides={"epochs": 1}))
    assert record.template == "a photo of a {}, a type of texture."
    assert record.recipe == "kgcoop-base-to-novel"
    assert record.recipe_hash == recipes.hash_of("kgcoop-base-to-novel")
    assert record.choices == "changed", "the epochs are not the recipe's"
    assert record.options["weight"] == 8
    assert '"views": "epochs"' in (tmp_path / "run" / "seed1" / "config.json").read_text(encoding="utf-8")


def test_the_methods_page_names_its_recipes(recipe: Recipe) -> None:
    overlay, _, host = recipe.method.rpartition("+")
    page = Path(__file__).parents[1] / "docs" / "methods" / f"{overlay or host}.md"
    name = f"{overlay}-METHOD-PROTOCOL" if overlay else recipe.name
    assert f"`{name}`" in page.read_text(encoding="utf-8")


def test_the_tables_of_the_pages_are_the_recipes() -> None:
    for page in ("protocols.md", "reproducing.md"):
        text = (recipes_table.DOCS / page).read_text(encoding="utf-8")
        assert text.count("<!-- recipes ") == text.count("<!-- /recipes -->") > 0
        assert recipes_table.filled(text) == text, "python tools/recipes_table.py"
