"""The benchmarks run, agree with the plain way, and write what docs/performance.md quotes. Speed is never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.figures import Figure, publish

ROOT = Path(__file__).resolve().parents[1]


def test_figures_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish([Figure("ratio", 2.5, "times")], tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == [{"name": "ratio", "value": 2.5, "unit": "times"}]
    assert "2.5 times" in capsys.readouterr().out


@pytest.mark.slow
def test_the_text_tower_at_full_size_agrees_with_the_plain_way(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.text_tower", "--repeats", "1", "--json", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    values = {figure["name"]: figure["value"] for figure in json.loads(out.read_text())}
    assert values["gradient_error_100"] <= 1e-4
    assert values["peak_gib_1000"] <= 4
    assert {"time_ratio_100", "memory_ratio_100", "peak_fraction_100"} <= values.keys()
