"""`compare` and `report` as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt
from tests.report import made
from vlprompt.errors import DATA, USAGE


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    methods = ("zero-shot", "coop", "plpp+coop")
    made.benchmark(
        root, methods=methods, sets=("birds", "food"), shots=(1, 16), classes=5, images=50, protocols=["few-shot"]
    )
    return root


def test_compare_prints_the_verdict_of_every_data_set_and_the_average(vlprompt: Vlprompt, bench: Path) -> None:
    done = vlprompt("compare", bench, "--methods", "zero-shot,plpp+coop")
    assert done.code == 0, done.err
    assert "plpp+coop against zero-shot" in done.out
    assert done.out.count("better") >= 1
    assert "mean of 2" in done.out
    assert "For birds, food at 16 images per class: the better one is B, plpp+coop. Learning" in " ".join(
        done.out.split()
    )


def test_compare_json_is_the_comparisons_and_nothing_else(vlprompt: Vlprompt, bench: Path) -> None:
    done = vlprompt("compare", bench, "--methods", "coop,plpp+coop", "--margin", 100, "--json")
    found = json.loads(done.out)
    assert found["margin"] == 100
    assert {one["estimate"]["verdict"] for one in found["comparisons"]} == {"same"}
    assert {one["shots"] for one in found["comparisons"]} == {1, 16}


def test_compare_of_single_runs_says_that_one_seed_is_too_little(vlprompt: Vlprompt, bench: Path) -> None:
    ends = [bench / "few-shot" / "birds-all-16" / name / "seed1" for name in ("coop", "plpp+coop")]
    done = vlprompt("compare", *ends)
    assert done.code == 0, done.err
    assert "cannot tell" in done.out
    assert "One seed" in done.out
    assert "cannot tell which is better, so take the cheaper" in " ".join(done.out.split())


def test_compare_refuses_with_the_reason(vlprompt: Vlprompt, bench: Path) -> None:
    done = vlprompt(
        "compare", bench / "few-shot" / "birds-all-16" / "coop", bench / "few-shot" / "food-all-16" / "plpp+coop"
    )
    assert (done.code, "data set birds against food" in done.err) == (DATA, True)
    for arguments, message in (
        ((bench,), "--methods coop,plpp+coop"),
        ((bench, bench), "3 methods"),
        ((bench, "--methods", "coop"), "not two methods"),
        ((bench, "--methods", "coop,plp+coop"), "Did you mean 'plpp+coop'"),
        ((bench, "--methods", "coop,plpp+coop", "--margin", -1), "between 0 and 100"),
        ((bench, "--methods", "coop,plpp+coop", "--although", "shot"), "Did you mean 'shots'"),
    ):
        done = vlprompt("compare", *arguments)
        assert (done.code, message in done.err) == (USAGE, True), done.err


def test_report_writes_its_files_and_says_where(vlprompt: Vlprompt, bench: Path) -> None:
    done = vlprompt("report", bench, "--title", "A trial")
    assert done.code == 0, done.err
    for name in ("report.html", "report.md", "report.csv", "report-classes.csv"):
        assert str(bench / name) in done.out
        assert (bench / name).stat().st_size > 100
    assert "<h1>A trial</h1>" in (bench / "report.html").read_text(encoding="utf-8")
    found = json.loads(vlprompt("report", bench, "--json").out)
    assert (found["runs"], found["datasets"]) == (26, ["birds", "food"])
    assert found["methods"] == ["zero-shot", "coop", "plpp+coop"]


def test_report_without_runs_is_an_error(vlprompt: Vlprompt, tmp_path: Path) -> None:
    done = vlprompt("report", tmp_path / "nowhere")
    assert (done.code, "not a directory" in done.err) == (DATA, True)


def test_train_and_eval_write_the_page_of_their_run(
    trained: Path, photos: Path, tmp_path: Path, vlprompt: Vlprompt
) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "plpp+coop on photos" in page
    rows = list(csv.DictReader((trained / "mistakes.csv").read_text(encoding="utf-8").splitlines()))
    assert all((photos / row["image"]).is_file() for row in rows)
    assert not (trained / "predictions.csv").exists()
    done = vlprompt("eval", trained, "--data", photos, "--out", tmp_path / "again", "--predictions")
    assert done.code == 0
    assert "again/report.html" in done.out
    answers = list(csv.DictReader((tmp_path / "again" / "predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert answers
    assert all((photos / row["image"]).is_file() for row in answers)
    assert vlprompt("eval", trained, "--data", photos, "--predictions").code == 2
