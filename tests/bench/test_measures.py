"""The benchmarks that grids rest on: they run, and say what their definitions say. Speed is never asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import views
from benchmarks.feature_cache import epochs
from benchmarks.views import Curve

from tests.bench.made import QUICK
from vlprompt.towers import Clip


def test_a_curve_reaches_what_it_does_not_leave_again() -> None:
    curve = Curve(views=1, seconds=[1.0, 2.0, 3.0, 4.0], accuracy=[50.0, 60.0, 55.0, 60.1])
    assert curve.reaches(60.1) == 4.0
    assert curve.reaches(55.2) == 2.0
    assert curve.reaches(50.2) == 1.0
    assert curve.reaches(60.5) is None


def test_time_to_accuracy_is_measured_on_validation_images(
    clip_dir: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    arguments = ["--data", str(sets / "shades"), "--model", str(clip_dir), "--shots", "2", "--seeds", "1,2", *settings]
    out = tmp_path / "figures.json"
    more = ["--views", "centre,2,epochs", "--json", str(out), "--figure", str(tmp_path / "curve.png")]
    monkeypatch.setattr(sys, "argv", ["views", *arguments, *more])
    views.main()
    curves = json.loads((tmp_path / "figures.curves.json").read_text(encoding="utf-8"))
    assert [one["views"] for one in curves] == ["centre", 2, "epochs"]
    assert all(len(one["seconds"]) == len(one["accuracy"]) == 2 for one in curves)
    assert all(0 < one["seconds"][0] < one["seconds"][1] for one in curves)
    assert all(
        value * 16 / 100 == pytest.approx(round(value * 16 / 100)) for one in curves for value in one["accuracy"]
    )
    names = {figure["name"] for figure in json.loads(out.read_text(encoding="utf-8"))}
    assert {"final_V2", "whole_epochs", "to_own_centre"} <= names
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert "final_V2" in capsys.readouterr().out


def test_a_warm_cache_encodes_nothing(clip: Clip, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(epochs(clip, sets / "shades", tmp_path / "cache", "coop", 2)) == 2
    monkeypatch.setattr(type(clip), "encode_images", lambda *_: pytest.fail("encoded again"))
    assert len(epochs(clip, sets / "shades", tmp_path / "cache", "kgcoop", 1)) == 1
