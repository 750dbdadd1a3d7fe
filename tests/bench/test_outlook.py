"""Plans before the data are there: the same cells as with them, features counted as they are cached, and times as they follow."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from tests.bench.made import grid_of, plan_of, request
from tests.data.layouts import DIRECTORIES, MAKERS, Expected
from vlprompt.bench import (
    PAPERS_MODEL,
    PROTOCOLS,
    Cell,
    Desk,
    Means,
    Request,
    SizedDesk,
    carrier,
    estimate,
    expand,
    lines,
    look_ahead,
    make,
    work_off,
    workspace,
)
from vlprompt.bench.estimate import Step, held
from vlprompt.data import open_dataset
from vlprompt.data.papers import catalogue
from vlprompt.data.views import first_view
from vlprompt.errors import UserError
from vlprompt.methods.recipes import GROUPS
from vlprompt.towers.config import ClipConfig
from vlprompt.towers.random_clip import draw_clip, tower

METHODS = ("zero-shot", "linear-probe", "coop", "maple", "promptsrc")
TINY = ClipConfig(
    embed_dim=64,
    text=tower(64, 4),
    image=tower(64, 4),
    vocab_size=49408,
    context_length=77,
    image_size=32,
    patch_size=16,
)

PAPERS = GROUPS["papers"]
"""The sets of the four protocols; Fashion-MNIST is in none of them."""


@pytest.fixture(scope="module")
def minis(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Expected]]:
    """A miniature of each of the papers' sets below one folder, and what each holds."""
    root = tmp_path_factory.mktemp("papers")
    return root, {name: make(root / DIRECTORIES[name]) for name, make in MAKERS.items() if name in PAPERS}


@pytest.fixture
def small_rows(minis: tuple[Path, dict[str, Expected]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The catalogue with the miniatures' sizes, and none of the sets on disk."""
    resized = []
    for row in catalogue.ROWS:
        if row.name in minis[1]:
            own = minis[1][row.name]
            sizes = tuple(own.counts[part] or None for part in ("train", "val", "test"))
            row = dataclasses.replace(row, classes=len(own.class_names), sizes=sizes)  # type: ignore[arg-type]
        resized.append(row)
    monkeypatch.setattr(catalogue, "ROWS", tuple(resized))
    monkeypatch.delenv("VLPROMPT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def asked(clip_dir: Path, sets: Path, **changes: object) -> Request:
    base = request(clip_dir, sets, *PROTOCOLS[:4], methods=METHODS, shots=(1, 2), overrides={"epochs": "3"})
    return dataclasses.replace(base, data=("papers",), **changes)  # type: ignore[arg-type]


def counted(cell: Cell) -> tuple[object, ...]:
    """What of a cell does not depend on the images themselves."""
    course = cell.course
    return (cell.place, course.place, cell.num_test, course.num_train, course.options, course.template, course.views)


def test_the_counts_are_those_of_the_plan_with_the_data(
    clip_dir: Path,
    sets: Path,
    minis: tuple[Path, dict[str, Expected]],
    small_rows: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = asked(clip_dir, sets, seeds=(1, 2))
    without = make(wanted, desk := SizedDesk(Means(device="cpu")))
    assert set(desk.sized) == set(PAPERS)
    monkeypatch.setenv("VLPROMPT_DATA", str(minis[0]))
    there = make(wanted, beside := SizedDesk(Means(device="cpu")))
    assert not beside.sized, "what is on disk is read"
    assert [counted(cell) for cell in without.cells] == [counted(cell) for cell in there.cells]
    assert {cell.protocol for cell in there.cells} == set(PROTOCOLS[:4])
    assert Counter((one.protocol, one.method, one.data) for one in without.refused) == Counter(
        (one.protocol, one.method, one.data) for one in there.refused
    )


def test_the_features_are_as_many_as_with_the_data(
    clip_dir: Path,
    sets: Path,
    minis: tuple[Path, dict[str, Expected]],
    small_rows: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = asked(clip_dir, sets, views="epochs")
    desk = SizedDesk(Means(device="cpu"))
    without = held(make(wanted, desk), desk, 32)
    monkeypatch.setenv("VLPROMPT_DATA", str(minis[0]))
    there = held(make(wanted, desk := SizedDesk(Means(device="cpu"))), desk, 32)
    assert without == there
    assert {one.dataset for one in there} == set(PAPERS)


def test_a_grid_leaves_as_many_features_as_were_counted(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    grid = dataclasses.replace(grid_of(tmp_path / "out", sets), means=Means(device="cpu", cache=tmp_path / "cache"))
    crops = {first_view(seed) + number for seed in (1, 2) for number in (0, 1)}
    for methods, views in ((("maple",), {None}), (("coop", "maple", "linear-probe"), {None, *crops})):
        wanted = request(
            clip_dir, sets, methods=methods, shots=(1, 2), seeds=(1, 2), overrides={"epochs": "2"}, views=2
        )
        plan, desk = plan_of(wanted, grid), Desk(grid.means)
        (expected,) = held(plan, desk, 32)
        assert {outcome.state for outcome in work_off(plan.cells, grid, carrier(1)).values()} == {"done"}
        images = desk.images(wanted.model, wanted.dtype)
        known = {view: images.known(view) for view in (None, *crops)}
        assert {view for view, contents in known.items() if contents} == views
        assert expected.pairs == sum(map(len, known.values()))
        assert expected.images == len(set().union(*known.values()))
        assert expected.bytes == expected.pairs * 32 * 4


def test_a_line_goes_through_both_times() -> None:
    step = Step(method="coop", batch=32, timed={10: 2.0, 110: 7.0})
    assert (step.at(10), step.at(110), step.at(1000)) == pytest.approx((2.0, 7.0, 51.5))
    assert Step(method="coop", batch=32, timed={10: 2.0, 110: 1.9}).at(1000) == pytest.approx(2.0), "level"


def test_time_follows_from_the_steps_that_were_timed(
    clip_dir: Path, sets: Path, small_rows: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("FEW", 2), ("MANY", 4), ("VERY_MANY", 5), ("ENOUGH", 0.0)):
        monkeypatch.setattr(estimate, name, value)
    wanted = asked(clip_dir, sets, seeds=(1, 2))
    plan = make(wanted, desk := SizedDesk(Means(device="cpu", cache=tmp_path / "cache")))
    said: list[str] = []
    grid = grid_of(tmp_path / "none", sets)
    ahead = look_ahead(plan, grid, desk, said.append)
    assert Counter(said) == {
        "Timing the image tower": 1,
        "Timing steps of coop": 2,
        "Timing steps of maple": 2,
        "Timing answers of maple": 2,
        "Timing steps of promptsrc": 2,
        "Timing answers of promptsrc": 2,
    }, "once for each shape: 16 and 4 tokens, and the depths of the protocols"
    assert {step.method for step in ahead.steps} == {"coop", "maple", "promptsrc"}
    found = [
        learning
        for learning in ahead.learnings
        if (learning.method, learning.dataset, learning.subset, learning.shots) == ("maple", "imagenet", "all", 2)
    ]
    timed = [step for step in ahead.steps if step.method == "maple"]
    assert [one.variant for one in found] == ["", "cross-dataset"]
    for one, step in zip(found, timed, strict=True):
        assert one.num_train == 10
        assert one.seconds == pytest.approx(3 * (10 // step.batch) * step.at(5))
    assert set(ahead.tests) == {cell.place for cell in plan.cells if cell.course.method in ("maple", "promptsrc")}, (
        "others read the cache"
    )
    shown = lines(plan, grid, ahead)
    assert {line.method for line in shown if line.need.unknown} == {"linear-probe"}, "it takes no steps"
    coop = [line for line in shown if line.method == "coop" and line.prompts]
    own = {
        (one.dataset, one.subset, one.shots, one.variant): one.seconds
        for one in ahead.learnings
        if one.method == "coop"
    }
    assert sum(line.need.seconds for line in coop) == pytest.approx(2 * sum(own.values())), "two seeds of each"
    assert not (tmp_path / "cache" / "features").exists(), "nothing is kept"
    assert ahead.features == pytest.approx(ahead.image * sum(one.pairs for one in ahead.held))


def test_sets_that_are_there_are_read_beside_those_that_are_not(
    clip_dir: Path, sets: Path, minis: tuple[Path, dict[str, Expected]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dtd").symlink_to(minis[0] / "dtd")
    monkeypatch.setenv("VLPROMPT_DATA", str(tmp_path))
    wanted = request(clip_dir, sets, "few-shot")
    plan = make(dataclasses.replace(wanted, data=("dtd", "eurosat")), desk := SizedDesk(Means(device="cpu")))
    assert list(desk.sized) == ["eurosat"]
    assert {cell.dataset: cell.num_test for cell in plan.cells} == {"dtd": 4, "eurosat": 8100}
    with pytest.raises(UserError, match="no folder, table or embedded set"):
        make(dataclasses.replace(wanted, data=("dtdd",)), SizedDesk(Means(device="cpu")))


def test_the_papers_model_is_stood_in_for_only_where_the_data_are_not_there(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: str, **_: object) -> None:
        raise UserError(f"cannot fetch {model!r}: no network")

    monkeypatch.setattr(workspace, "load", load)
    monkeypatch.setattr(workspace, "draw_clip", lambda **means: draw_clip(TINY, **means))
    desk = SizedDesk(Means(device="cpu"))
    with pytest.raises(UserError, match="cannot fetch"):
        desk.images(PAPERS_MODEL, "float32")
    desk.material("eurosat")
    with pytest.raises(UserError, match="cannot fetch 'other/model'"):
        desk.images("other/model", "float32")
    assert desk.images(PAPERS_MODEL, "float32").clip.facts.embed_dim == 64
    assert "no network" in desk.instead


def test_a_stand_in_has_the_published_sizes_and_no_images() -> None:
    found = {name: workspace.stand_in(catalogue.get(name)) for name in ("eurosat", "dtd", "imagenet_r", "imagenet_a")}
    eurosat = found["eurosat"]
    assert (len(eurosat.train), len(eurosat.val), len(eurosat.test)) == (13500, 5400, 8100)
    assert set(Counter(one.label for one in found["dtd"].train).values()) == {60}
    assert set(found["imagenet_r"].class_names) == set(found["imagenet_a"].class_names)
    assert not set(eurosat.class_names) & {*found["dtd"].class_names, *found["imagenet_r"].class_names}
    with pytest.raises(UserError, match="not on this disk"):
        eurosat.train[0].read()
    with pytest.raises(UserError, match="there is no folder 'eurosat' here"):
        open_dataset("eurosat")
    names = {name for row in catalogue.FEW_SHOT for name in workspace.class_names(catalogue.get(row))}
    assert len(names) == sum(catalogue.get(row).classes for row in catalogue.FEW_SHOT), "no class is in two sets"
    assert set(expand(("papers",))) == {*catalogue.FEW_SHOT, *catalogue.SHIFTED}
