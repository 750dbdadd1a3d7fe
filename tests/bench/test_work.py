"""Working plans off: only what is missing, second attempts, reasons that are kept, other work refused."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny
from tests.bench.made import QUICK, grid_of, plan_of, request
from vlprompt import records
from vlprompt.bench import (
    PROTOCOLS,
    Cell,
    Desk,
    Grid,
    Outcome,
    Plan,
    carrier,
    lines,
    look_ahead,
    run_cells,
    work,
    work_off,
)
from vlprompt.bench import carry as grid_module
from vlprompt.bench.work import ATTEMPTS, SILENT_END, GivenUp, attempt, check_all, read
from vlprompt.disk import locked
from vlprompt.engine import train
from vlprompt.errors import NUMERICAL, UserError


def everything(plan: Plan, grid: Grid) -> dict[Path, Outcome]:
    return work_off(plan.cells, grid, carrier(1))


@pytest.fixture
def grid(sets: Path, tmp_path: Path) -> Grid:
    return grid_of(tmp_path / "out", sets)


@pytest.fixture
def plan(clip_dir: Path, sets: Path, grid: Grid) -> Plan:
    """Two methods in all protocols."""
    asked = request(clip_dir, sets, *PROTOCOLS[:4], data=("shades", "others", "dark"), methods=("zero-shot", "coop"))
    return plan_of(asked, grid)


def test_a_second_call_does_only_what_is_missing(plan: Plan, grid: Grid, clip_dir: Path, sets: Path) -> None:
    outcomes = everything(plan, grid)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert set(outcomes) == {cell.place for cell in plan.cells}
    found = dict(records.find(grid.out))
    assert set(found) == {grid.of(cell) for cell in plan.cells}, "a record for every cell, and no other"
    for cell in plan.cells:
        record = found[grid.of(cell)]
        assert (record.protocol, record.dataset, record.subset) == (cell.protocol, cell.dataset, cell.subset)
        assert (record.method, record.source) == (cell.course.method, cell.source)
    assert everything(plan, grid) == {}
    (lost,) = [cell for cell in plan.cells if cell.protocol == "domain" and cell.dataset == "dark"][1:]
    written = {path: path.stat().st_mtime_ns for path in grid.out.rglob("*") if path.is_file() and path.name != ".lock"}
    (grid.of(lost) / records.RESULT).unlink()
    assert list(everything(plan, grid)) == [lost.place]
    after = {path: path.stat().st_mtime_ns for path in written}
    changed = {path.parent for path in written if after[path] != written[path]}
    assert changed == {grid.of(lost)}, "the prompt was not learned again"
    more = plan_of(request(clip_dir, sets, data=("shades",), seeds=(1, 2)), grid)
    assert [place.name for place in everything(more, grid)] == ["seed2"]


def test_a_cell_that_crashes_is_begun_again_up_to_a_limit(
    clip_dir: Path, sets: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(request(clip_dir, sets, "base-to-novel"), grid)
    heard: list[Outcome] = []
    honest, begun = work.learn_course, []

    def fails(*arguments: object) -> None:
        begun.append(1)
        if len(begun) < 3:
            raise RuntimeError(f"no memory, time {len(begun)}")
        honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "learn_course", fails)
    outcomes = work_off(plan.cells, grid, carrier(1), lambda cell, outcome: heard.append(outcome))
    assert [one.state for one in heard] == ["failed"] * 4 + ["done"] * 2, "two cells of one prompt, which failed twice"
    assert heard[0].reason == "RuntimeError: no memory, time 1"
    assert {one.state for one in outcomes.values()} == {"done"}
    assert not list(grid.out.rglob(ATTEMPTS))


def test_after_the_limit_it_is_left_alone_with_its_reason(
    clip_dir: Path, sets: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(request(clip_dir, sets), grid)
    (cell,) = plan.cells
    begun = []

    def fails(*_: object) -> None:
        begun.append(1)
        raise RuntimeError("the disk sings")

    with monkeypatch.context() as patch:
        patch.setattr(work, "learn_course", fails)
        (outcome,) = everything(plan, grid).values()
        assert (outcome.state, outcome.exit_code, len(begun)) == ("failed", 1, 3)
        (outcome,) = everything(plan, grid).values()
        assert (outcome.state, outcome.reason, len(begun)) == ("given up", "the disk sings", 3)
    assert not grid.finished(cell)
    assert read(grid.learned(cell.course)).reasons == ["the disk sings"] * 3
    assert lines(plan, grid)[0].failed == 1
    patient = grid_of(grid.out, sets, attempts=4)
    assert everything(plan, patient)[cell.place].state == "done"
    assert lines(plan, grid)[0].failed == 0


def test_what_the_user_has_to_mend_is_tried_once_a_call(
    clip_dir: Path, sets: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(request(clip_dir, sets, overrides={**QUICK, "epochs": "4", "lr": "1e30"}), grid)
    (outcome,) = everything(plan, grid).values()
    assert (outcome.state, outcome.exit_code, outcome.again) == ("failed", NUMERICAL, False)
    assert "not finite" in outcome.reason
    assert len(read(grid.learned(plan.cells[0].course)).reasons) == 1


def test_a_killed_attempt_counts_unless_it_got_on(tmp_path: Path) -> None:
    place = tmp_path / "cell"
    place.mkdir()
    mark = place / ATTEMPTS
    mark.write_text(json.dumps({"schema": 1, "begun": True, "reasons": []}), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), attempt(place, 2):
        raise KeyboardInterrupt
    assert (read(place).begun, read(place).reasons) == (False, [SILENT_END])
    mark.write_text(json.dumps({"schema": 1, "begun": True, "reasons": [SILENT_END]}), encoding="utf-8")
    with pytest.raises(GivenUp, match="without a word"), attempt(place, 2):
        raise AssertionError("never begun")
    mark.write_text(json.dumps({"schema": 1, "begun": True, "reasons": [SILENT_END]}), encoding="utf-8")
    ahead = mark.stat().st_mtime + 3600  # the file server's clock; this machine's says something else
    os.utime(mark, (ahead, ahead))
    (place / "checkpoint.safetensors").touch()
    os.utime(place / "checkpoint.safetensors", (ahead + 1, ahead + 1))
    with attempt(place, 2):
        assert read(place).begun
    assert not mark.exists()


def test_an_interrupt_is_no_failure_and_the_next_call_goes_on(
    clip_dir: Path, sets: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(request(clip_dir, sets, "base-to-novel"), grid)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work, "examine_cell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            everything(plan, grid)
    assert not list(grid.out.rglob(ATTEMPTS))
    assert not list(grid.out.rglob(records.RESULT))
    assert {one.state for one in everything(plan, grid).values()} == {"done"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"overrides": {**QUICK, "lr": "0.5"}}, r"options.lr: 0.01 -> 0.5"),
        ({"dtype": "bfloat16"}, r"dtype: 'float32' -> 'bfloat16'"),
        ({"views": 2}, r"views: 1 -> 2"),
    ],
)
def test_other_work_in_a_directory_is_refused_before_anything_is_done(  # type: ignore[no-untyped-def]
    clip_dir: Path, sets: Path, grid: Grid, changes, named: str
) -> None:
    everything(plan_of(request(clip_dir, sets), grid), grid)
    other = plan_of(request(clip_dir, sets, seeds=(1, 2), **changes), grid)
    with pytest.raises(UserError, match=named):
        everything(other, grid)
    assert len(list(records.find(grid.out))) == 1


def test_another_set_of_images_under_the_same_name_is_refused(
    clip_dir: Path, sets: Path, grid: Grid, tmp_path: Path
) -> None:
    import shutil

    everything(plan_of(request(clip_dir, sets), grid), grid)
    shutil.copytree(sets / "shades", tmp_path / "other" / "shades")
    (tmp_path / "other" / "shades" / "test" / "cat" / "0.png").unlink()
    with pytest.raises(UserError, match="test_hash"):
        check_all(plan_of(request(clip_dir, tmp_path / "other"), grid).cells, grid)


def test_a_prompt_in_other_hands_is_waited_for(
    clip_dir: Path, sets: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(request(clip_dir, sets, seeds=(1, 2)), grid)
    first, second = plan.cells
    heard: list[Cell] = []
    with locked(grid.learned(first.course)):
        assert [one.state for one in run_cells([first], grid)] == ["busy"]
        monkeypatch.setattr(grid_module.time, "sleep", lambda _: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            work_off(plan.cells, grid, carrier(1), lambda cell, _: heard.append(cell))
    assert heard == [second], "the other prompt was learned meanwhile"
    assert not read(grid.learned(first.course)).reasons
    assert list(everything(plan, grid)) == [first.place]


def test_time_and_memory_are_estimated_from_what_was_measured(clip_dir: Path, sets: Path, grid: Grid) -> None:
    plan = plan_of(request(clip_dir, sets, shots=(1, 2), seeds=(1, 2), methods=("coop", "zero-shot")), grid)
    measured = [cell for cell in plan.cells if (cell.course.shots, cell.course.seed) == (2, 1)]
    work_off(measured, grid, carrier(1))
    facts = json.loads((grid.learned(measured[0].course) / "prompt.json").read_text(encoding="utf-8"))["learning"]
    coop, zero_shot = lines(plan, grid)
    assert (coop.cells, coop.finished, coop.prompts, coop.need.unknown) == (4, 1, 3, 0)
    testing = records.read(grid.of(measured[0])).seconds - facts["seconds"]
    assert coop.need.seconds == pytest.approx(facts["seconds"] * (1 + 0.5 + 0.5) + 3 * testing)
    assert coop.need.peak_mib == facts["peak_mib"] > 0
    unmeasured = plan_of(request(clip_dir, sets, methods=("maple",), overrides={"epochs": "3"}), grid)
    assert lines(unmeasured, grid)[0].need.unknown == 1
    ahead = look_ahead(unmeasured, grid, Desk(grid.means))
    (maple,) = lines(unmeasured, grid, ahead)
    (learning,), tests = ahead.learnings, ahead.tests
    assert (maple.need.unknown, learning.num_train) == (0, 8)
    assert list(tests) == [unmeasured.cells[0].place]
    assert maple.need.seconds == learning.seconds + sum(tests.values()) > learning.seconds > 0
    assert maple.need.peak_mib > 100
    known = look_ahead(plan, grid, Desk(grid.means))
    assert (known.learnings, known.tests, known.steps) == ((), {}, ())
    assert not grid.learned(unmeasured.cells[0].course).exists()
    assert (zero_shot.prompts, zero_shot.need.seconds, zero_shot.need.peak_mib) == (0, 0, None)


def test_seeds_may_be_learned_together(clip_dir: Path, sets: Path, tmp_path: Path) -> None:
    found = {}
    for replicas in (1, 3):
        grid = grid_of(tmp_path / f"out{replicas}", sets)
        grid = replace(grid, means=replace(grid.means, replicas=replicas))
        asked = request(clip_dir, sets, "few-shot", methods=("zero-shot", "coop", "cocoop"), seeds=(1, 2, 3))
        plan = plan_of(asked, grid)
        assert {outcome.state for outcome in everything(plan, grid).values()} == {"done"}
        found[replicas] = {cell.place: grid.record(cell) for cell in plan.cells}
        assert everything(plan, grid) == {}
    for place, record in found[1].items():
        other = found[3][place]
        assert (record.top1, record.val_top1, record.config_hash) == (other.top1, other.val_top1, other.config_hash)


def test_one_seed_that_breaks_leaves_the_others_of_its_batch(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(tmp_path / "out", sets)
    grid = replace(grid, means=replace(grid.means, replicas=3))
    plan = plan_of(request(clip_dir, sets, "few-shot", methods=("coop",), seeds=(1, 2, 3)), grid)
    steps = train.Learner.steps

    def breaks(learner: train.Learner, *arguments: object) -> None:
        if learner.feed.seed == 2:
            raise UserError("a gradient is not finite", exit_code=NUMERICAL)
        steps(learner, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train.Learner, "steps", breaks)
    outcomes = everything_of(plan, grid)
    states = {cell.course.seed: outcomes[cell.place] for cell in plan.cells}
    assert [states[seed].state for seed in (1, 2, 3)] == ["done", "failed", "done"]
    assert states[2].exit_code == NUMERICAL


def everything_of(plan: Plan, grid: Grid) -> dict[Path, Outcome]:
    """Every outcome, those of cells that were finished before too."""
    new = everything(plan, grid)
    return {cell.place: Outcome(place=cell.place, state="done") for cell in plan.cells if grid.finished(cell)} | new


def test_a_full_disk_is_no_failed_attempt(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(5):
        with pytest.raises(OSError, match="No space"), attempt(tmp_path, 2):
            raise full
    assert read(tmp_path).reasons == []
    with attempt(tmp_path, 2):
        pass


def test_a_teacher_teaches_the_methods_that_have_one(clip_dir: Path, sets: Path, grid: Grid, tmp_path: Path) -> None:
    """A run teaches PromptKD; CoOp of the same grid has none. What was there before keeps its place and its facts."""
    own = request(clip_dir, sets, "few-shot")
    everything(plan_of(own, grid), grid)
    teacher = grid.out / "prompts" / "shades" / "all" / "coop" / "shots2" / "seed1"
    other = replace(grid, out=tmp_path / "other")
    asked = request(
        clip_dir,
        sets,
        "base-to-novel",
        methods=("coop", "promptkd"),
        teacher=str(teacher),
        overrides={"epochs": "2", "n_image": "2", "batch": "5"},
    )
    plan = plan_of(asked, other)
    coop, taught = {cell.course.method: cell.course for cell in plan.cells}.values()
    assert coop.place == Path("prompts/shades/base/coop/shots2/seed1")
    assert "teacher_hash" not in coop.facts
    assert taught.place == Path(f"prompts/shades/base/promptkd-by-{taught.teacher_hash[:8]}/shots2/seed1")
    assert [one for one in everything(plan, other).values() if one.state != "done"] == []
    facts = json.loads((other.learned(taught) / "prompt.json").read_text(encoding="utf-8"))
    assert facts["teacher_hash"] == taught.teacher_hash
    cell = next(cell for cell in plan.cells if cell.course is taught)
    assert other.record(cell).setting == "transductive"


def test_a_wider_teacher_leaves_its_classes_with_the_prompt(
    clip_dir: Path, sets: Path, grid: Grid, tmp_path: Path
) -> None:
    """Validation and test compare the projected image with the teacher's class features, of the teacher's width."""
    wide = tiny.clip_dir(tmp_path / "wide", seed=5, embed_dim=48)
    overrides = {"epochs": "2", "n_image": "2", "batch": "5"}
    asked = request(clip_dir, sets, "base-to-novel", methods=("promptkd",), teacher=str(wide), overrides=overrides)
    done = everything(plan_of(asked, grid), grid).values()
    assert [(one.state, one.reason) for one in done if one.state != "done"] == []


def test_a_teacher_that_no_method_asks_is_refused(clip_dir: Path, sets: Path, grid: Grid) -> None:
    with pytest.raises(UserError, match="compares no answers with a teacher's"):
        plan_of(request(clip_dir, sets, teacher=str(clip_dir)), grid)
