"""The benchmarks run, agree with the plain way, and write what docs/performance.md quotes. Speed is never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import teacher
from benchmarks.figures import Figure, publish
from benchmarks.methods import LEARNING, parse_methods
from benchmarks.methods_sides import SMALL, made, our_step, plain_step, random_clip

from vlprompt.engine.teacher import Teacher

ROOT = Path(__file__).resolve().parents[1]


def test_figures_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish([Figure("ratio", 2.5, "times")], tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == [
        {"name": "ratio", "value": 2.5, "unit": "times"}
    ]
    assert "2.5 times" in capsys.readouterr().out


@pytest.mark.parametrize("name", LEARNING)
def test_both_sides_of_the_methods_benchmark_give_the_same_gradients(name: str) -> None:
    clip = random_clip(SMALL)
    task = made(name, clip, 10)
    plain, ours = plain_step(task, clip)(), our_step(task, clip)()
    assert plain.keys() == ours.keys() == task.parameters.keys()
    for key, wanted in plain.items():
        assert float((ours[key] - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
        assert float(wanted.abs().max()) > 0


def test_the_methods_benchmark_takes_methods_that_learn() -> None:
    assert parse_methods("coop,vpt-deep") == ["coop", "vpt-deep"]
    with pytest.raises(ValueError, match="'zero-shot' does not learn in steps"):
        parse_methods("coop,zero-shot")


def test_the_three_ways_of_a_teacher_are_timed() -> None:
    took = teacher.seconds(random_clip(SMALL), Teacher(random_clip(SMALL), None), 2, 3, 1)
    assert took.keys() == {"itself", "large", "cached"}
    assert min(took.values()) > 0


@pytest.mark.slow
def test_the_methods_benchmark_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ["--methods", "maple", "--repeats", "1", "--pairs", "1", "--json", str(out)]
    subprocess.run([sys.executable, "-m", "benchmarks.methods", *options], cwd=ROOT, check=True)
    values = {figure["name"]: figure["value"] for figure in json.loads(out.read_text(encoding="utf-8"))}
    assert values["gradient_error_maple"] <= 1e-4
    assert {
        "time_ratio_maple",
        "memory_ratio_maple",
        "image_ratio_maple",
        "product_ratio_maple",
        "plpp_overhead_coop",
    } <= values.keys()


@pytest.mark.slow
def test_the_text_tower_at_full_size_agrees_with_the_plain_way(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.text_tower", "--repeats", "1", "--json", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    values = {figure["name"]: figure["value"] for figure in json.loads(out.read_text(encoding="utf-8"))}
    assert values["gradient_error_100"] <= 1e-4
    assert values["peak_gib_1000"] <= 4
    assert {"time_ratio_100", "memory_ratio_100", "peak_fraction_100", "share_products"} <= values.keys()


@pytest.mark.slow
def test_what_is_said_before_learning_is_measured_against_what_learning_takes() -> None:
    options = ["--classes", "20", "--steps", "2"]
    command = [sys.executable, "-m", "benchmarks.estimates", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.6 < found["memory"] / found["peak"] < 1.7
    assert found["time"] > 0
