"""The files of a report: tables, CSV, details, and a page that stands alone."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

from tests.report import made
from vlprompt import records
from vlprompt.errors import UserError
from vlprompt.report.comparison import compare
from vlprompt.report.details import BINS, class_names, reliability
from vlprompt.report.sides import Run, read_side
from vlprompt.report.write import write_report


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark with its report; not to be changed."""
    root = tmp_path_factory.mktemp("report") / "bench"
    methods = ("zero-shot", "coop", "plpp+coop", "maple")
    made.benchmark(root, methods=methods, sets=("birds", "food", "cars"), shots=(1, 16), classes=6, images=60)
    write_report(root)
    return root


def embedded(root: Path) -> dict[str, object]:
    page = (root / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    values: dict[str, object] = json.loads(found[1])
    return values


def test_markdown_has_the_papers_tables_with_the_best_in_bold(bench: Path) -> None:
    text = (bench / "report.md").read_text(encoding="utf-8")
    for title in ("Few-shot classification", "Base-to-novel", "Cross-dataset", "Domain", "Differences in points"):
        assert title in text
    table = text.partition("### Average of 3 data sets\n\n")[2].partition("\n\n")[0].splitlines()
    assert table[0] == "| method | 1 shot | 16 shots |"
    last = [line.split("|")[3].strip() for line in table[2:]]
    means = [float(re.sub(r"\*", "", one).split()[0]) for one in last]
    assert [one.startswith("**") for one in last] == [mean == max(means) for mean in means]
    assert "H of the means | mean of H" in text
    assert "OOD average" in text


def advice(root: Path) -> list[str]:
    text = (root / "report.md").read_text(encoding="utf-8")
    return text.partition("### Which to take\n\n")[2].partition("\n\n")[0].splitlines()


def test_it_says_which_method_to_take_and_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    """A best that is surely better is taken alone; of two that cannot be told apart the cheaper one is named; what looks at test
    images is never taken."""
    sure, close = tmp_path / "sure", tmp_path / "close"
    for root, better in ((sure, 60), (close, 2)):
        for method, right, seconds, setting in (
            ("coop", 100, 9.0, "inductive"),
            ("rpp", 100 + better, 20.0, "inductive"),
            ("tpt", 190, 1.0, "test-time"),
        ):
            for seed in (1, 2, 3):
                found = made.predictions("birds", [n % 5 for n in range(200)], 5, 0.0, seed=1)
                wrong = (found.label + 1) % 5
                number = np.arange(200) if method == "coop" else 199 - np.arange(200)
                found = dataclasses.replace(found, predicted=np.where(number < right, found.label, wrong))
                own = made.record(
                    method=method, seed=seed, seconds=seconds, setting=setting, protocol="few-shot", num_train=1
                )
                own = dataclasses.replace(own, **made.scored(found, [f"birds {n}" for n in range(5)]))
                records.write(root / method / f"seed{seed}", own, found)
        write_report(root)
    assert advice(sure) == [
        "- With 16 images of a class: take rpp (80.0 %). It took 20.0 s a run; every other method is worse."
    ]
    assert advice(close) == [
        "- With 16 images of a class: rpp (51.0 %) is best, but it cannot be told from coop (50.0 %). The cheapest of these is coop: "
        "9.0 s a run, against 20.0 s."
    ]
    assert "take rpp (80.0 %)" in (sure / "report.html").read_text(encoding="utf-8")


def test_csv_has_one_line_per_method_and_place(bench: Path) -> None:
    with (bench / "report.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    mine = [
        one
        for one in lines
        if (one["protocol"], one["data set"], one["shots"], one["method"]) == ("few-shot", "food", "16", "maple")
    ]
    (line,) = mine
    values = [record.top1 or 0.0 for _, record in records.find(bench / "few-shot" / "food-all-16" / "maple")]
    assert line["seeds"] == "1 2 3"
    assert float(line["top1_mean"]) == pytest.approx(statistics.fmean(values), abs=1e-3)
    assert float(line["top1_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-3)


def test_class_csv_has_the_mean_recall_of_every_class(bench: Path) -> None:
    with (bench / "report-classes.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = {
        one["class"]: float(one["recall_mean"])
        for one in lines
        if (one["protocol"], one["data set"], one["method"]) == ("few-shot", "birds", "coop")
    }
    records_of = [one for _, one in records.find(bench / "few-shot" / "birds-all-16" / "coop")]
    assert len(found) == 6
    for name, value in found.items():
        assert value == pytest.approx(statistics.fmean(one.per_class[name] for one in records_of), abs=1e-3)


def test_the_same_records_give_the_same_files(bench: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bench.glob("report*")}
    assert len(before) == 4
    write_report(bench)
    assert {path.name: path.read_bytes() for path in bench.glob("report*")} == before


def test_the_page_asks_nothing_of_the_network(bench: Path) -> None:
    page = (bench / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#|data:)", page)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_differences_are_those_of_compare(bench: Path) -> None:
    (pair,) = [
        one
        for one in embedded(bench)["differences"]  # type: ignore[attr-defined]
        if one["section"] == "Few-shot classification" and one["first"] == 1
    ]
    ends = [bench / "few-shot" / f"{name}-all-16" for name in ("birds", "cars", "food")]
    sides = [[run for end in ends for run in read_side(end, name)] for name in ("coop", "plpp+coop")]
    wanted = compare(sides[0], sides[1])[0]
    assert [one["datasets"] for one in pair["found"]] == [list(one.datasets) for one in wanted]
    for one, other in zip(pair["found"], wanted, strict=True):
        assert one["difference"] == pytest.approx(other.estimate.difference, abs=1e-3)
        assert (one["low"], one["high"]) == pytest.approx((other.estimate.low, other.estimate.high), abs=1e-3)
        assert one["verdict"] == other.estimate.verdict


def test_confusions_count_every_answer(bench: Path) -> None:
    data = embedded(bench)
    places, names = data["places"], data["contenders"]
    for detail in data["details"]:  # type: ignore[attr-defined]
        place = places[detail["place"]]  # type: ignore[index]
        if names[detail["contender"]]["name"] != "coop" or place["protocol"] != "few-shot":  # type: ignore[index]
            continue
        wanted: dict[tuple[int, int], int] = {}
        for directory, _ in records.find(bench / "few-shot" / f"{place['dataset']}-all-16" / "coop"):
            found = records.read_predictions(directory)
            assert found is not None
            for cell in zip(found.label.tolist(), found.predicted.tolist(), strict=True):
                wanted[cell] = wanted.get(cell, 0) + 1
        triples = np.array(detail["confusion"]).reshape(-1, 3).tolist()
        assert {(a, b): n for a, b, n in triples} == wanted


def test_reliability_is_the_literal_one() -> None:
    found = made.predictions("birds", [n % 5 for n in range(200)], 5, 0.5, seed=1)
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for i, confidence in enumerate(found.predicted_probability.tolist()):
        bins[next(b for b in range(BINS) if confidence * BINS <= b + 1)].append(i)
    for (count, confidence, accuracy), rows in zip(reliability([found]), bins, strict=True):
        assert count == len(rows)
        if rows:
            assert confidence == pytest.approx(100 * found.predicted_probability[rows].mean(), abs=1e-3)
            assert accuracy == pytest.approx(100 * (found.predicted == found.label)[rows].mean(), abs=1e-3)


def test_class_names_skip_classes_without_test_images() -> None:
    found = made.predictions("birds", [0, 2, 2, 0], 4, 0.5, seed=1)
    run = Run(Path(), made.record(num_classes=4, per_class={"crow": 50.0, "wren": 50.0}))
    assert class_names(run, found) == ("crow", "", "wren", "")
    other = Run(Path(), made.record(num_classes=4, per_class={"crow": 50.0}))
    assert class_names(other, found) == ("", "", "", "")


def test_names_cannot_break_the_page_or_the_tables(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script> & | {{ 7 * 7 }}"
    made.benchmark(
        tmp_path, methods=("coop",), sets=("birds",), shots=(1,), classes=4, images=20, protocols=("few-shot",)
    )
    directory, _ = next(records.find(tmp_path))
    (directory / records.PREDICTIONS).unlink()
    records.write(directory, made.record(dataset=name, method="co</script>op", per_class={name: 1.0}))
    write_report(tmp_path, title=name)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert name in json.dumps(embedded(tmp_path), ensure_ascii=False)
    assert "\\| {{ 7 * 7 }}" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_damaged_records_and_mixed_test_sets_are_told(tmp_path: Path) -> None:
    made.benchmark(
        tmp_path, methods=("coop",), sets=("birds",), shots=(1, 2), classes=4, images=20, protocols=("few-shot",)
    )
    (tmp_path / "few-shot" / "birds-all-1" / "coop" / "seed1" / "result.json").write_text("{", encoding="utf-8")
    records.write(tmp_path / "odd", made.record(shots=2, seed=9, num_test=3, num_classes=4))
    written = write_report(tmp_path)
    assert written.num_runs == 6
    notes = "\n".join(written.notes)
    assert "damaged or no JSON" in notes
    assert "birds: there are records with 3 and with 20 test images" in notes
    for file in ("report.html", "report.md"):
        assert "must not be compared" in (tmp_path / file).read_text(encoding="utf-8")
        assert str(tmp_path) not in (tmp_path / file).read_text(encoding="utf-8")


def test_records_without_predictions_still_make_a_report(tmp_path: Path) -> None:
    for seed in (1, 2):
        records.write(tmp_path / f"seed{seed}", made.record(seed=seed, per_class={"a": 50.0}))
    written = write_report(tmp_path)
    assert (written.num_runs, written.datasets) == (2, ("birds",))
    nothing = tmp_path / "nothing"
    records.write(nothing, made.record(top1=None, top5=None, macro_f1=None, zero_shot_top1=None, num_test=0))
    write_report(nothing)
    assert "missing" in (nothing / "report.md").read_text(encoding="utf-8")


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="not a directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="between 0 and 100"):
        write_report(tmp_path, margin=-1)


def test_the_tables_say_whose_the_settings_are(tmp_path: Path) -> None:
    for seed, changes in enumerate(
        (
            {"recipe": "coop-few-shot", "choices": "published"},
            {"recipe": "coop-domain", "choices": "published", "protocol": "domain", "dataset": "dark"},
            {"recipe": "maple-few-shot", "choices": "project", "method": "maple"},
            {"recipe": "", "choices": "changed", "method": "low-rank"},
            {"recipe": "published", "method": "rpp"},
            {"recipe": "p", "choices": "published", "method": "linear-probe", "val_from": "training images"},
        ),
        start=1,
    ):
        records.write(tmp_path / str(seed), made.record(seed=seed, **changes))
    said = " ".join(write_report(tmp_path).notes)
    assert "Settings as published: coop-domain, coop-few-shot, p." in said
    assert "Settings the project's choice: maple-few-shot." in said
    assert "Settings changed from the recipe by whoever ran it: low-rank without a recipe." in said
    assert "held-out training images, for want of validation images: linear-probe on" in said
    for file in ("report.html", "report.md"):
        assert "the project" in (tmp_path / file).read_text(encoding="utf-8")
