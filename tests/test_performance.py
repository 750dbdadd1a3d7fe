"""The records of benchmarks: how they are made, and that the page shows them as they are. Speed is never asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import all as every
from benchmarks import end_to_end, gpu
from benchmarks.feature_cache import write_images
from benchmarks.methods_sides import SMALL, random_clip
from benchmarks.text_tower import KINDS, shares

from vlprompt.engine.config import Means
from vlprompt.engine.job import learn

FIGURE = {"name": "ratio", "value": 2.5, "unit": "times"}


def record(**parts: list[dict[str, object]]) -> dict[str, Any]:
    about = {"command": "python -m x", "date": "2026-01-02", "threads": 1, "load": [0.1, 0.2]}
    facts = {"processor": "P", "flags": ["avx2"], "cores": 2, "torch": "2"}
    return {"machine": facts, "parts": {part: {**about, "figures": figures} for part, figures in parts.items()}}


def test_the_page_shows_the_records_as_they_are() -> None:
    page = every.PAGE.read_text(encoding="utf-8")
    assert every.records()
    assert every.filled(page, every.records()) == page, "python -m benchmarks.all --page"


def test_machines_stand_side_by_side() -> None:
    one = record(listing=[FIGURE], pretrain=[FIGURE])
    other = record(listing=[{**FIGURE, "value": 4.0}, {**FIGURE, "name": "error", "unit": "|a-b|"}])
    lines = every.tables({"a": one, "b": other}).splitlines()
    assert "| `ratio` | 2.5 | 4 | times |" in lines
    assert r"| `error` | not measured | 2.5 | \|a-b\| |" in lines
    assert lines[lines.index("- b: `python -m x`,") + 1] == "  2026-01-02, threads 1, load 0.1 to 0.2."
    assert lines.index("### Record: pretrain") < lines.index("### Record: listing")
    assert "| `ratio` | 2.5 | times |" in lines, "only one machine has it"


def test_a_record_of_old_figures_says_that_its_load_was_not_kept() -> None:
    old = record(listing=[FIGURE])
    del old["parts"]["listing"]["load"]
    assert "  2026-01-02, threads 1, load not kept." in every.tables({"a": old}).splitlines()


def test_a_gpu_stands_with_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "G100")
    assert every.machine()["gpu"] == "G100"
    found = record(gpu=[FIGURE])
    found["machine"]["gpu"] = "G100"
    lines = every.tables({"a": found}).splitlines()
    assert "| a | P, G100 | avx2 | 2 | 2 |" in lines
    assert "### Record: gpu" in lines


def test_shares_of_a_step_are_all_of_it() -> None:
    left, right = torch.randn(1, 64, 64), torch.randn(64, 64)
    found = shares(lambda: torch.cat([left @ right, left.bmm(left) + 1]))
    assert found.keys() == {*KINDS, "calls"}
    assert sum(found.values()) == pytest.approx(1)
    assert min(found[kind] for kind in ("products", "attention", "copies")) > 0
    assert found["norms"] == 0


def test_a_benchmark_that_fails_leaves_the_figures_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "machine.json"
    out.write_text(json.dumps(record(listing=[FIGURE], replicas=[FIGURE])), encoding="utf-8")
    found = record(listing=[{**FIGURE, "value": 3.0}])["parts"]
    monkeypatch.setattr(every, "measured", found.get)
    every.run(["pretrain", "listing"], out)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["machine"] == every.machine()
    assert written["parts"] == {**record(replicas=[FIGURE])["parts"], **found}
    assert "pretrain failed" in capsys.readouterr().out


def test_every_benchmark_has_the_option_that_records_need() -> None:
    for module, *_ in every.PARTS.values():
        text = (every.ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        assert '"--json"' in text, module


def test_the_benchmark_of_a_gpu_runs_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    monkeypatch.setattr(
        gpu, "decoded", lambda clip, workers, number: float(workers * gpu.decode(clip.preprocess, number))
    )
    options = ["--device", "cpu", "--dtype", "float32", "--tiny", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu", *options])
    gpu.main()
    values = {one["name"]: one["value"] for one in json.loads(out.read_text(encoding="utf-8"))}
    assert {"step_s_tiny_3", "step_share_tiny_40", "peak_gib_tiny_40", "encoded_tiny"} <= values.keys()
    assert values["decoded_tiny"] == 2
    assert all(value > 0 for value in values.values())
    if not torch.cuda.is_available():
        monkeypatch.setattr(sys, "argv", ["gpu"])
        with pytest.raises(SystemExit):
            gpu.main()
        assert "there is no GPU here" in capsys.readouterr().err


def test_the_published_loop_and_ours_learn_the_same_from_the_same_views(tmp_path: Path) -> None:
    clip, folder = random_clip(SMALL), write_images(tmp_path / "noise", 3, 2)
    job = end_to_end.our_job(clip, folder, tmp_path / "cache", 2, 1, "epochs", 2)
    learned, _ = learn(job, job.draw(), Means(device="cpu"))
    *_, published = end_to_end.plain(clip, folder, job.method, 2, 1)
    ours, theirs = (next(one.parameters()).detach() for one in (learned.prompt, published))
    moved = (ours - end_to_end.new_prompt(clip, job.method.prompt, 3, 1).ctx.detach()).abs().max()
    assert float((ours - theirs).abs().max()) <= 1e-4 * float(moved)
    assert float(moved) > 0


def test_from_a_folder_to_a_prompt_both_sides_are_timed_epoch_by_epoch(tmp_path: Path) -> None:
    clocks = end_to_end.both(random_clip(SMALL), write_images(tmp_path / "noise", 3, 2), 1, 1, judge=True, epochs=2)
    for clock in clocks.values():
        assert len(clock.accuracy) == 2
        assert 0 < clock.seconds[0] < clock.seconds[1]
    curves = {side: end_to_end.mean([clock]) for side, clock in clocks.items()}
    assert {one.name for one in end_to_end.near(curves, "x")} >= {"ours_final_x", "plain_near_x", "near_ratio_x"}
