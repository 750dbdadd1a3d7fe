"""The settings of the ablation: one factor at a time around the centre."""

from __future__ import annotations

import warnings

import pytest
from benchmarks.plpp_ablation.sweep import ANCHOR, CENTRE, CONTROLS, HOST, LEVELS, ONE_WAY, PULL, settings

from vlprompt.methods.resolve import resolve

OFF: dict[str, object] = {"plpp.balance": "off"}


@pytest.mark.parametrize("at", [{}, OFF])
def test_every_setting_differs_from_the_centre_in_its_factor_alone(at: dict[str, object]) -> None:
    sweep = settings("coop", at)
    assert sweep[0].name == HOST
    assert sweep[0].method == "coop"
    centre = resolve("plpp+coop", at).options
    for setting in sweep[2:]:
        if setting.rival:
            continue
        changed = resolve("plpp+coop", setting.overrides).options
        differing = {name for name in centre if centre[name] != changed[name]}
        if setting.factor == "plpp.balance":
            differing.discard("plpp.weight")  # has a meaning without a balance alone
        wanted = {"plpp.weight" if setting.factor == "plpp.lambda" else setting.factor}
        if setting.factor == "control":
            wanted = set(setting.overrides) - at.keys()
        assert differing == wanted, setting


def test_all_levels_of_all_factors_are_there() -> None:
    names = [setting.name for setting in settings("coop", OFF)]
    assert len(names) == len(set(names)) == 2 + sum(len(levels) - 1 for levels in LEVELS.values()) + len(CONTROLS)
    assert {"shift=0", "k=all", "tau=1.0", "label=hard", ONE_WAY, "lambda=1.0", *CONTROLS} <= set(names)


def test_a_balance_brings_two_rivals_of_the_same_strength_and_leaves_lambda_out() -> None:
    sweep = settings("coop", {"plpp.balance": 0.3})
    rivals = [setting for setting in sweep if setting.rival]
    assert [(one.name, one.method, one.balance) for one in rivals] == [(PULL, "coop", 0.3), (ANCHOR, "coop", 0.0)]
    assert not any(setting.factor == "plpp.lambda" for setting in sweep)
    assert [one.balance for one in settings("coop", {}) if one.rival] == [0.1, 0.0]
    assert not any(setting.rival for setting in settings("coop", OFF))


@pytest.mark.parametrize(("tokens", "there"), [(2, "shift=1"), (4, "shift=0")])
def test_the_shift_that_auto_means_is_not_swept(tokens: int, there: str) -> None:
    names = {setting.name for setting in settings("coop", {"n_ctx": tokens})}
    assert {"shift=0", "shift=1"} & names == {there}


def test_the_centre_can_be_moved() -> None:
    moved = {setting.name: setting for setting in settings("coop", {"plpp.weight": 1.0, "plpp.tau": 0.1})}
    assert {"lambda=0.1", "tau=0.01"} <= moved.keys()
    assert not {"lambda=1.0", "tau=0.1"} & moved.keys()
    assert resolve("plpp+coop", moved["lambda=0.01"].overrides).options["plpp.weight"] == 0.01
    assert resolve("plpp+coop", moved[CENTRE].overrides).options["plpp.tau"] == 0.1
    assert resolve("plpp+coop", moved["shift=0"].overrides).options["plpp.tau"] == 0.1


@pytest.mark.parametrize(("centre", "absent"), [({"plpp.label": "hard"}, "k=100"), ({"plpp.k": "all"}, "student=all")])
def test_levels_that_change_nothing_are_left_out(centre: dict[str, object], absent: str) -> None:
    assert absent not in {setting.name for setting in settings("coop", centre)}


def test_convergence_settings_are_learned_on_all_classes_too() -> None:
    assert [s.name for s in settings("coop", {}) if "all" in s.subsets] == [HOST, CENTRE, ONE_WAY]


def test_no_setting_has_a_dead_term() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for setting in settings("coop", {}):
            resolve(setting.method, setting.overrides)
