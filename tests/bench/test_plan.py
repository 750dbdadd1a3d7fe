"""Plans: which cells a protocol has, which prompt serves which, and what is refused with its reason."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from tests.bench.made import QUICK, grid_of, plan_of, request, write_set
from vlprompt import pocket
from vlprompt.bench import PROTOCOLS, Plan, lines
from vlprompt.bench.cells import batches
from vlprompt.bench.request import benchmark_sets, domain_sets, expand, quick_sets
from vlprompt.errors import UserError
from vlprompt.methods.resolve import every, resolve


@pytest.fixture
def planned(clip_dir: Path, sets: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Plans a request that differs from the smallest one as said."""

    def make(*protocols: str, **changes: object) -> Plan:
        return plan_of(request(clip_dir, sets, *protocols, **changes), grid_of(tmp_path / "out", sets))  # type: ignore[arg-type]

    return make


def places(plan: Plan) -> list[str]:
    return [str(cell.place) for cell in plan.cells]


def test_few_shot_is_every_set_count_and_seed(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned("few-shot", data=("shades", "others"), methods=("zero-shot", "coop"), shots=(1, 2), seeds=(1, 2))
    assert places(plan) == [
        "few-shot/shades/zero-shot/shots0/seed1",
        "few-shot/others/zero-shot/shots0/seed1",
        *[
            f"few-shot/{name}/coop/shots{shots}/seed{seed}"
            for name in ("shades", "others")
            for shots in (1, 2)
            for seed in (1, 2)
        ],
    ]


def test_what_learns_from_all_images_without_labels_is_learned_once(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned("few-shot", methods=("coop", "promptkd"), shots=(1, 2), seeds=(1, 2))
    counts = {(cell.course.method, cell.course.shots) for cell in plan.cells}
    assert counts == {("coop", 1), ("coop", 2), ("promptkd", None)}
    halves = planned("base-to-novel", methods=("coop", "promptkd"), seeds=(1,))
    assert {cell.course.shots for cell in halves.cells} == {2}  # in the other protocols it stands in the others' column


def test_base_to_novel_learns_on_the_base_half_and_tests_both(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned("base-to-novel")
    assert places(plan) == [f"base-to-novel/shades/coop/shots2/seed1/{half}" for half in ("base", "novel")]
    assert {str(cell.course.place) for cell in plan.cells} == {"prompts/shades/base/coop/shots2/seed1"}
    assert [(cell.subset, cell.num_test) for cell in plan.cells] == [("base", 6), ("novel", 6)]
    assert plan.cells[0].course.num_train == 4


def test_cross_dataset_tests_one_prompt_everywhere(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned("cross-dataset", data=("shades", "others", "dark"))
    assert places(plan) == [f"cross-dataset/shades/coop/shots2/seed1/{name}" for name in ("others", "dark", "shades")]
    assert [cell.source for cell in plan.cells] == ["shades", "shades", ""]
    assert len(batches(plan.cells)) == 1


def test_the_source_is_the_set_with_the_most_classes_or_the_one_named(planned) -> None:  # type: ignore[no-untyped-def]
    assert {cell.course.dataset for cell in planned("cross-dataset", data=("others", "shades")).cells} == {"shades"}
    named = planned("cross-dataset", data=("shades",), source=("others",))
    assert places(named) == [f"cross-dataset/others/coop/shots2/seed1/{name}" for name in ("shades", "others")]


def test_domain_tests_sets_of_the_sources_classes(planned) -> None:  # type: ignore[no-untyped-def]
    for changes in ({"data": ("dark",), "source": ("shades",)}, {"data": ("shades", "dark")}):
        assert places(planned("domain", **changes)) == [
            f"domain/shades/coop/shots2/seed1/{name}" for name in ("dark", "shades")
        ]


def test_all_protocols_share_prompts(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned(*PROTOCOLS[:4], data=("shades", "others", "dark"), shots=(1, 2))
    courses = {str(cell.course.place) for cell in plan.cells}
    assert courses == {
        *[f"prompts/{name}/all/coop/shots{shots}/seed1" for name in ("shades", "others") for shots in (1, 2)],
        "prompts/shades/base/coop/shots2/seed1",
    }
    assert {cell.protocol for cell in plan.cells} == set(PROTOCOLS[:4])
    assert not any(cell.place.parts[:2] == ("few-shot", "dark") for cell in plan.cells)
    assert {one.reason for one in plan.refused} == {
        "others has 3 classes; each half needs at least 2 to be a classification."
    }


@pytest.mark.parametrize(
    ("protocol", "changes", "reason"),
    [
        (
            "base-to-novel",
            {"overrides": {**QUICK, "per_class": "true"}},
            "learned something for each of its 2 classes",
        ),
        ("base-to-novel", {"methods": ("linear-probe",), "overrides": {}}, "has no text side"),
        (
            "cross-dataset",
            {"data": ("shades", "others"), "overrides": {**QUICK, "per_class": "true"}},
            "learned something for each of its",
        ),
        ("cross-dataset", {"data": ("shades", "others"), "methods": ("linear-probe",), "overrides": {}}, "text side"),
        (
            "domain",
            {"data": ("dark",), "source": ("shades",), "methods": ("linear-probe",), "overrides": {}},
            "text side",
        ),
        ("domain", {"data": ("others",), "source": ("shades",)}, r"classes that shades has not.*cross-dataset"),
        ("domain", {}, "no other domain of shades is known"),
        ("cross-dataset", {}, "no set to test on except the source shades"),
        ("few-shot", {"data": ("dark",)}, "dark has no training images"),
        ("base-to-novel", {"data": ("others",)}, "others has 3 classes"),
    ],
)
def test_what_is_impossible_is_refused_with_the_reason(planned, protocol, changes, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=reason):
        planned(protocol, **changes)


def test_in_a_grid_of_several_protocols_it_is_left_out_and_said(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned(*PROTOCOLS[:4], data=("shades", "dark"), methods=("linear-probe",), overrides={})
    assert {cell.protocol for cell in plan.cells} == {"few-shot"}
    assert {one.protocol for one in plan.refused} == {"base-to-novel", "cross-dataset", "domain"}


def test_a_group_of_sets_does_without_those_that_are_impossible(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    small = [name for name in benchmark_sets() if len(pocket.info(name).class_names) < 4]
    grid = grid_of(tmp_path / "out", sets)
    plan = plan_of(request(clip_dir, sets, "base-to-novel", data=("shades",), methods=("coop", "zero-shot")), grid)
    assert not plan.refused
    asked = request(clip_dir, sets, "base-to-novel", methods=("coop",))
    plan = plan_of(dataclasses.replace(asked, data=("pocket",)), grid)
    assert {one.data for one in plan.refused} == set(small)
    assert {cell.dataset for cell in plan.cells} == set(benchmark_sets()) - set(small)
    with pytest.raises(UserError, match=r"base-to-novel with linear-probe.*text side"):
        plan_of(dataclasses.replace(asked, data=("pocket",), methods=("coop", "linear-probe"), overrides={}), grid)


def test_all_methods_are_asked_for_in_one_word_without_those_that_are_impossible(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned("base-to-novel", methods=("all",), overrides={})
    names = {cell.course.method for cell in plan.cells}
    bound = {name for name in every() if resolve(name).prompt.reach.own_classes}
    assert {"linear-probe", "tip-adapter"} <= bound
    described = {name for name in every() if name.startswith("descri")}
    assert names == {*every()} - bound - described
    assert {one.method for one in plan.refused} == bound | described, "nobody has described these classes"


def test_a_probe_may_answer_for_its_own_classes_elsewhere(planned, sets: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.bench.made import SHADES

    twin = write_set(tmp_path / "twin", SHADES, {"test": 2}, 5)
    changes = {"data": (str(twin),), "source": ("shades",), "methods": ("linear-probe",), "overrides": {}}
    assert len(planned("domain", **changes).cells) == 2


def test_a_setting_goes_to_the_methods_that_know_it(planned) -> None:  # type: ignore[no-untyped-def]
    plan = planned(methods=("zero-shot", "coop", "plpp+coop"), overrides={"epochs": "3", "plpp.k": "5"})
    by_method = {cell.course.method: dict(cell.course.overrides) for cell in plan.cells}
    assert by_method == {
        "zero-shot": {},
        "coop": {"epochs": "3"},
        "plpp+coop": {"epochs": "3", "plpp.k": "5"},
    }
    with pytest.raises(UserError, match=r"plpp\.kk"):
        planned(methods=("coop", "plpp+coop"), overrides={"plpp.kk": "5"})


def test_cells_are_plain_values(planned) -> None:  # type: ignore[no-untyped-def]
    for cell in planned("base-to-novel", methods=("zero-shot", "coop", "promptsrc"), overrides={}).cells:
        assert pickle.loads(pickle.dumps(cell)) == cell
        assert cell.facts == dataclasses.replace(cell).facts


def test_what_lies_where_does_not_decide_a_cell(planned) -> None:  # type: ignore[no-untyped-def]
    (cell,) = planned().cells
    moved = dataclasses.replace(cell.course, data="/elsewhere", model="other/place", init="x", num_train=0)
    assert moved.facts == cell.course.facts
    assert dataclasses.replace(cell.course, seed=2).facts != cell.course.facts


def test_a_pretrained_prompt_that_does_not_fit_is_refused(planned, clip_dir: Path, sets: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.engine.made import config
    from tests.tiny import clip_dir as write_clip
    from vlprompt.engine.run import train_run

    few = {"n_ctx": 3, "epochs": 1}
    for name, more in (("coop", few), ("specific", {**few, "per_class": True})):
        train_run(config(clip_dir, sets / "shades", tmp_path / name, overrides=more, cache=sets / "cache"))
    changes = {"data": ("others",), "init": tmp_path / "coop", "methods": None}
    assert places(planned("transfer", **changes))[0].endswith("/shots0/seed1")
    assert planned("transfer", **changes).cells[1].course.options["n_ctx"] == 3, "the shape is the pretrained prompt's"
    with pytest.raises(UserError, match="do not fit this method"):
        planned("transfer", **{**changes, "methods": ("coop",), "overrides": {"n_ctx": "5"}})
    with pytest.raises(UserError, match="do not fit this method"):
        planned("transfer", **{**changes, "methods": ("ivlp",), "overrides": {}})
    with pytest.raises(UserError, match="learned something for each of its 4 classes"):
        planned("transfer", **{**changes, "init": tmp_path / "specific"})
    other = write_clip(tmp_path / "other-clip", seed=5)
    with pytest.raises(UserError, match="works with its own backbone only"):
        planned("transfer", **{**changes, "model": str(other)})
    whole = planned("few-shot", "transfer", **{**changes, "methods": ("coop", "zero-shot")})
    assert {cell.course.method for cell in whole.cells if cell.protocol == "transfer"} == {"coop"}


def test_two_sets_of_one_name_are_refused(planned, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.bench.made import SHADES

    write_set(tmp_path / "shades", SHADES, {"train": 1, "test": 1}, 3)
    with pytest.raises(UserError, match="both called 'shades'"):
        planned(data=("shades", str(tmp_path / "shades")))


def test_defaults_are_the_published_counts_and_quick_fills_what_is_not_given(planned) -> None:  # type: ignore[no-untyped-def]
    unsaid = {"methods": None, "shots": None, "seeds": None, "overrides": {}}
    full = planned("few-shot", **unsaid)
    assert {cell.course.shots for cell in full.cells} == {0, 1, 2, 4, 8, 16}
    assert {cell.course.seed for cell in full.cells} == {1, 2, 3}
    assert {cell.course.shots for cell in planned("base-to-novel", **unsaid).cells} == {0, 16}
    quick = planned("few-shot", quick=True, **unsaid)
    assert {cell.course.method for cell in quick.cells} == {"zero-shot", "coop", "plpp+coop"}
    assert {cell.course.seed for cell in quick.cells} == {1}
    given = planned("few-shot", quick=True, methods=("coop",), shots=(2,), seeds=(4, 5))
    assert {(cell.course.shots, cell.course.seed) for cell in given.cells} == {(2, 4), (2, 5)}


def test_the_pocket_is_its_benchmark_sets_and_quick_takes_two() -> None:
    assert expand(("pocket",)) == tuple(pocket.names("benchmark"))
    assert len(quick_sets(("pocket",))) == 2
    assert set(quick_sets(("pocket",))) <= set(benchmark_sets())
    assert quick_sets(("clipart-things", "emoji-subgroups")) == ("clipart-things", "emoji-subgroups")
    with_domains = [name for name in benchmark_sets() if domain_sets(name)]
    assert with_domains
    assert domain_sets(quick_sets(("pocket",))[0])


def test_lines_count_a_shared_prompt_once(planned, sets: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan = planned(*PROTOCOLS[:4], data=("shades", "dark"), methods=("zero-shot", "coop"))
    found = {(line.protocol, line.method): line for line in lines(plan, grid_of(tmp_path / "none", sets))}
    assert found["few-shot", "coop"].prompts == found["base-to-novel", "coop"].prompts == 1
    assert found["domain", "coop"].prompts == found["few-shot", "zero-shot"].prompts == 0
    assert found["few-shot", "coop"].need.unknown == 1
    assert found["few-shot", "coop"].need.peak_mib is None
    assert not (tmp_path / "none").exists()
