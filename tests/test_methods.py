"""The table of methods: names, recipes, settings from text, and what is refused with which hint."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from vlprompt.cli.methods import listed
from vlprompt.errors import UserError
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.plpp import PlppOptions
from vlprompt.methods.options import options_of
from vlprompt.methods.resolve import HOSTS, OVERLAYS, every, ignored, options, recipe_of, resolve, takes_steps, whose
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip
from vlprompt.types import Schedule, Steps

NAMES = (*(host.name for host in HOSTS), "plpp+coop", "plpp+kgcoop", "plpp+pomp")


def test_coop_is_the_published_one() -> None:
    method = resolve("coop", recipe="coop-few-shot")
    assert method.prompt == ContextSpec(n_ctx=16, init="normal", position="end", per_class=False)
    assert method.schedule == Schedule(epochs=200, lr=0.002, batch=32, momentum=0.9, weight_decay=5e-4)
    assert method.terms == (CROSS_ENTROPY,)
    assert method.steps.rule is method.steps.average is None


@pytest.mark.parametrize(
    ("shots", "epochs"),
    [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200), (3, 100), (5, 200), (9, 200), (32, 200), (None, 200)],
)
def test_published_epochs_by_shots_and_the_next_larger_count_between(shots: int | None, epochs: int) -> None:
    for name in ("coop", "plpp+coop"):
        schedule = resolve(name, shots=shots, recipe="coop-few-shot").schedule
        assert schedule is not None
        assert schedule.epochs == epochs


def test_the_pockets_recipe_is_another_and_shorter() -> None:
    published, pocket = (resolve("coop", recipe=one).schedule for one in ("coop-few-shot", "coop-pocket"))
    assert published is not None
    assert pocket is not None
    assert pocket.epochs < published.epochs


def test_an_overlay_adds_its_terms_to_the_hosts() -> None:
    host, both = resolve("coop"), resolve("plpp+coop", {"plpp.lambda": "0.5"})
    assert (both.name, both.prompt, both.schedule) == ("plpp+coop", host.prompt, host.schedule)
    assert [(term.name, term.weight) for term in both.terms] == [
        ("cross-entropy", 1.0),
        ("plpp", 0.5),
        ("plpp-inverse", 0.5),
    ]
    assert both.needs == {"host_states"}


def test_with_lambda_0_it_is_the_host_exactly() -> None:
    host, both = resolve("coop"), resolve("plpp+coop", {"plpp.lambda": 0})
    assert (both.terms, both.needs, both.prompt, both.schedule) == (host.terms, host.needs, host.prompt, host.schedule)


@pytest.mark.parametrize(
    ("mutual", "names"),
    [("both", ["plpp", "plpp-inverse"]), ("ppl", ["plpp"]), ("inverse", ["plpp-inverse"])],
)
def test_mutual_chooses_the_terms(mutual: str, names: list[str]) -> None:
    assert [term.name for term in resolve("plpp+coop", {"plpp.mutual": mutual}).terms[1:]] == names


@pytest.mark.parametrize("name", NAMES)
def test_resolved_options_resolve_to_the_same_method(name: str) -> None:
    settings = {"plpp.k": "all", "plpp.scale": "20", "plpp.tau": "0.05"} if "+" in name else {}
    method = resolve(name, settings)
    for again in (resolve(name, method.options), resolve(name, {k: str(v) for k, v in method.options.items()})):
        assert again.options == method.options
        assert again.prompt == method.prompt
        assert getattr(again.learner, "schedule", None) == getattr(method.learner, "schedule", None)
        assert [term.formula for term in again.terms] == [term.formula for term in method.terms]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_listed_with_help_and_takes_its_own_default(name: str) -> None:
    listed = options(name)
    method = resolve(name)
    if isinstance(method.learner, Steps):
        assert [option.name for option in listed if option.name in method.options] == list(method.options)
    for option in listed:
        assert option.help
        assert option.allowed
        assert resolve(name, {option.name: str(option.default)}).options == method.options


def test_every_field_of_plpp_is_an_option_with_help() -> None:
    assert [option.name for option in options_of(PlppOptions())] == [field.name for field in fields(PlppOptions)]


@pytest.mark.parametrize(
    ("setting", "value", "resolved"),
    [
        ("n_ctx", "4", 4),
        ("init", "a photo of a", "a photo of a"),
        ("per_class", "true", True),
        ("position", "middle", "middle"),
        ("epochs", "7", 7),
        ("lr", "1e-3", 1e-3),
        ("plpp.k", "all", "all"),
        ("plpp.k", "5", 5),
        ("plpp.shift", "0", 0),
        ("plpp.scale", "raw", "raw"),
        ("plpp.scale", "100", 100.0),
        ("plpp.labels", "permuted", "permuted"),
        ("plpp.weight_inverse", "same", "same"),
        ("plpp.weight_inverse", "0.3", 0.3),
        ("plpp.balance", "off", "off"),
        ("plpp.balance", "0", "off"),
        ("plpp.centre", "true", True),
    ],
)
def test_settings_are_converted_from_text(setting: str, value: str, resolved: object) -> None:
    assert resolve("plpp+coop", {setting: value}).options[setting] == resolved


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("n_ctx", "four", "n_ctx=four: it must be a whole number"),
        ("per_class", "maybe", "true or false"),
        ("position", "begin", "end, middle, front"),
        ("epochs", "0", "epochs=0: it must be a whole number from 1"),
        ("epochs", "1.5", "whole number"),
        ("lr", "fast", "lr=fast: it must be a number"),
        ("lr", "nan", "a number"),
        ("lr", "-1", "at least 0"),
        ("momentum", "1", "below 1"),
        ("plpp.label", "sof", "soft, hard"),
        ("plpp.k", "x", 'a whole number or "all"'),
        ("plpp.k", "-1", "plpp.k=-1"),
        ("plpp.k", "0", 'plpp.k=0 would mean "all". Write plpp.k=all for that'),
        ("plpp.scale", "0.0", "plpp.scale=raw"),
        ("plpp.weight_inverse", "none", "plpp.weight_inverse=same"),
        ("plpp.tau", "0", "above 0"),
        ("plpp.lambda", "-0.1", "at least 0"),
        ("plpp.shift", "2", "1, 0"),
        ("plpp.lambda_inverse", "-1", "at least 0"),
        ("plpp.balance", "-1", '"off"'),
        ("plpp.tau_random", "0", "above 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_is_allowed(setting: str, value: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve("plpp+coop", {setting: value})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cooop", {}, "Did you mean 'coop'?"),
        ("plp+coop", {}, "unknown overlay 'plp'. Did you mean 'plpp'?"),
        ("coop+plpp", {}, "Write 'plpp+coop'. Methods: zero-shot, descriptions, linear-probe, "),
        ("plpp", {}, "Write for example 'plpp+coop'"),
        ("coop+coop", {}, "only overlays can be added"),
        ("plpp+plpp+coop", {}, "twice"),
        ("plpp+zero-shot", {}, "'zero-shot' learns nothing"),
        ("", {}, "unknown method ''"),
        ("maple", {"depth": 0}, "depth=auto"),
        ("linear-probe", {"C": 0}, "C=search"),
        ("coop", {"n_ctxx": "3"}, "Did you mean 'n_ctx'?"),
        ("coop", {"plpp.k": "3"}, "unknown option of 'coop'"),
        ("plpp+coop", {"k": "3"}, "plpp.k=..."),
        ("plpp+coop", {"plpp.kk": "3"}, "Did you mean 'plpp.k'?"),
        ("plpp+coop", {"plpp.lambda": 1, "plpp.weight": 1}, "twice"),
        ("zero-shot", {"n_ctx": "3"}, "unknown option"),
        ("plpp+coop", {"plpp.labels": "uniform", "plpp.k": "1"}, "at least two words"),
        ("plpp+coop", {"plpp.head": "host", "position": "front"}, "differ by class"),
    ],
)
def test_what_is_refused_says_what_was_meant(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve(name, settings)
    assert message in str(refused.value)


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UserError, match="pocket"):
        resolve("coop", recipe="pockett")


def test_schedule_fields_are_accepted_by_a_method_without_steps_and_named_as_ignored() -> None:
    settings = {"epochs": "3", "lr": "1"}
    assert resolve("zero-shot", settings).learner is None
    assert ignored("zero-shot", settings) == ("epochs", "lr")
    assert ignored("coop", settings) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_ctx": 1, "plpp.shift": 1}, "no gradient"),
        ({"n_ctx": 2, "plpp.shift": 1}, "50% of the perplexity term is constant"),
        ({"plpp.labels": "uniform"}, "inverse term is constant"),
    ],
)
def test_a_dead_term_is_warned_of(settings: dict[str, object], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        resolve("plpp+coop", settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_ctx": 1},
        {"n_ctx": 2},
        {"n_ctx": 4, "plpp.shift": 1},
        {"n_ctx": 1, "plpp.shift": 1, "plpp.detach": "none"},
        {"n_ctx": 1, "plpp.shift": 1, "plpp.mutual": "inverse"},
        {"n_ctx": 1, "plpp.shift": 1, "plpp.lambda": 0, "plpp.lambda_inverse": 1},
    ],
)
def test_live_terms_are_not_warned_of(settings: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve("plpp+coop", settings)


def test_the_table_lists_methods_and_overlays_with_sources() -> None:
    rows = {row["name"]: row for row in listed()}
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds == dict.fromkeys([host.name for host in HOSTS], "method") | {"plpp": "overlay", "described": "overlay"}
    for row in rows.values():
        assert row["summary"]
        assert row["learns"]
        assert "arXiv" in row["source"]


def test_each_term_of_plpp_has_its_weight() -> None:
    def weights(**settings: object) -> dict[str, float]:
        terms = resolve("plpp+coop", {f"plpp.{name}": value for name, value in settings.items()}).terms[1:]
        return {term.name: term.weight for term in terms}

    assert weights() == {"plpp": 0.1, "plpp-inverse": 0.1}
    assert weights(**{"lambda": 0.2}) == {"plpp": 0.2, "plpp-inverse": 0.2}
    assert weights(**{"lambda": 0.2, "lambda_inverse": 0.5}) == {"plpp": 0.2, "plpp-inverse": 0.5}
    assert weights(lambda_inverse=0) == {"plpp": 0.1}
    assert weights(**{"lambda": 0, "lambda_inverse": 0.5}) == {"plpp-inverse": 0.5}
    assert weights(**{"lambda": 0}) == {}


def test_the_temperature_may_depend_on_how_the_context_starts() -> None:
    words, random = {"n_ctx": 4, "init": "a photo of a"}, {"n_ctx": 4, "init": "normal"}
    formula = {
        kind: resolve("plpp+coop", {**start, "plpp.tau_random": 0.01}).terms[1].formula
        for kind, start in (("words", words), ("random", random))
    }
    assert "/ 0.1)" in formula["words"]
    assert "/ 0.01)" in formula["random"]
    assert "/ 0.1)" in resolve("plpp+coop", random).terms[1].formula


def test_all_methods_are_the_hosts_and_the_overlays_on_those_with_a_text_context() -> None:
    known = every()
    hosts = tuple(row["name"] for row in listed() if row["kind"] == "method")
    assert known[: len(hosts)] == hosts
    learned = {host.name for host in HOSTS if host.prompt.layout is not None and takes_steps(host)}
    assert {"coop", "maple", "rpp", "tcp"} <= learned
    assert not learned & {"zero-shot", "linear-probe", "vpt", "tip-adapter", "tpt", "clip-lora"}
    described = {name.removeprefix("described+") for name in known if name.startswith("described+")}
    assert {"tip-adapter", "lp-plus-plus", "clip-adapter", "vpt", "kgcoop", "promptsrc", "tcp"} <= described
    assert not described & {"zero-shot", "descriptions", "linear-probe", "coop", "maple", "tpt", "clip-lora"}
    assert set(known[len(hosts) :]) == {f"plpp+{name}" for name in learned} | {
        f"described+{name}" for name in described
    }


def test_a_recipes_depth_that_a_tower_has_not_is_the_rows(clip: Clip) -> None:
    shallow = resolve("maple", recipe="maple-few-shot", facts=clip.facts)
    assert (resolve("maple", recipe="maple-few-shot").options["depth"], shallow.options["depth"]) == (9, "auto")
    assert resolve("maple", {"depth": 30}, recipe="maple-few-shot", facts=clip.facts).options["depth"] == 30


@pytest.mark.parametrize(
    ("method", "overrides", "dataset", "shots", "answer"),
    [
        ("coop", {}, "dtd", 16, "published"),
        ("coop", {"epochs": "200"}, "dtd", 16, "published"),
        ("coop", {"epochs": "20"}, "dtd", 16, "changed"),
        ("coop", {}, "dtd", 3, "project"),
        ("coop", {}, "my photos", 16, "project"),
        ("maple", {}, "dtd", 16, "project"),
        ("plpp+coop", {}, "dtd", 16, "project"),
    ],
)
def test_whose_settings_a_run_has(
    method: str, overrides: dict[str, object], dataset: str, shots: int, answer: str
) -> None:
    recipe = recipe_of(method, "few-shot", "a/clip")
    found = resolve(method, overrides, recipe=recipe, shots=shots, dataset=dataset)
    assert whose(found, overrides, recipe, dataset=dataset, shots=shots) == answer
    if answer == "published":
        assert whose(found, overrides, recipe, dataset=dataset, shots=shots, changed=True) == "changed"


def test_fixed_words_stand_before_the_name_alone() -> None:
    assert resolve("coop", {"words": "of a"}).prompt.layout.words == "of a"  # type: ignore[union-attr]
    with pytest.raises(UserError, match="stand before the class name, and position is middle"):
        resolve("coop", {"words": "of a", "position": "middle"})


@pytest.mark.parametrize(
    ("name", "page"), [*((host.name, f"{host.name}.md") for host in HOSTS), ("plpp+coop", "plpp.md")]
)
def test_the_methods_page_has_every_option_with_its_default(name: str, page: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / "methods" / page).read_text(encoding="utf-8")
    own = [
        option
        for option in options(name, recipe=recipe_of(name, "few-shot", ""))
        if ("." in option.name) == ("+" in name)
    ]
    for option in own:
        if option.name not in {field.name for field in fields(Schedule)}:
            assert f"| `{option.name}` | `{option.default}` |" in text


def test_the_list_that_is_read_off_the_source_is_the_tables() -> None:
    assert listed() == [
        {"name": row.name, "kind": kind, "summary": row.summary, "learns": row.learns, "source": row.source}
        for kind, rows in (("method", HOSTS), ("overlay", OVERLAYS))
        for row in rows
    ]
