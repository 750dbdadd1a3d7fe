"""Images with several labels: the loss, the thresholds, the scores, and the way from a table to the answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from vlprompt import cli
from vlprompt.classifier import PromptClassifier
from vlprompt.data import open_dataset
from vlprompt.engine import several
from vlprompt.errors import UserError
from vlprompt.losses.classify import bias_of, binary
from vlprompt.records import read

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
SETS = ("red", "green", "blue", "red;green", "green; blue", "blue;red")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a stripe for each of their labels, in parts."""
    top = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(0)
    with (top / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "labels", "split"))
        for part, number in (("train", 18), ("val", 12), ("test", 12)):
            for place in range(number):
                labels = SETS[place % len(SETS)]
                picture = random.integers(0, 40, (16, 16, 3), dtype=np.uint8)
                for stripe, name in enumerate(labels.split(";")):
                    picture[8 * stripe : 8 * stripe + 8] += np.array(COLOURS[name.strip()], dtype=np.uint8) // 2
                Image.fromarray(picture).save(top / f"{part}{place}.png")
                rows.writerow((f"{part}{place}.png", labels, part))
    return top / "t.csv"


def test_the_loss_is_a_literal_one_at_the_bias_that_makes_it_least() -> None:
    torch.manual_seed(1)
    logits, truth = torch.randn(5, 3, dtype=torch.float64).mul(4).add(25), (torch.rand(5, 3) < 0.4).double()
    truth[0, 0] = 1
    logits.requires_grad_(True)
    bias = float(bias_of(logits.detach(), truth))

    def literal(bias: float) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, labels in zip(logits, truth, strict=True):
            for value, label in zip(row, labels, strict=True):
                probability = 1 / (1 + torch.exp(bias - value))
                total = total - (torch.log(probability) if label else torch.log(1 - probability))
        return total / 15

    torch.testing.assert_close(binary(logits, truth), literal(bias))
    assert all(literal(bias) < literal(bias + step) for step in (-0.5, -1e-3, 1e-3, 0.5))
    (found,) = torch.autograd.grad(binary(logits, truth), logits)
    whole = torch.zeros_like(found)  # with the bias that each changed logit asks for
    for place in np.ndindex(5, 3):
        values = []
        for step in (-1e-4, 1e-4):
            changed = logits.detach().clone()
            changed[place] += step
            values.append(float(binary(changed, truth)))
        whole[place] = (values[1] - values[0]) / 2e-4
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    random = np.random.default_rng(2)
    logits, truth = torch.from_numpy(random.normal(size=(20, 4))), random.random((20, 4)) < 0.3
    truth[:, 3] = False
    found = several.average_precision(logits, truth)
    assert list(found) == [0, 1, 2]
    for label, value in found.items():
        order = np.argsort(-logits[:, label].numpy())
        hits = truth[order, label]
        precisions = [hits[: place + 1].mean() for place in range(20) if hits[place]]
        assert value == pytest.approx(100 * np.mean(precisions))


def test_a_threshold_has_the_best_f1() -> None:
    random = np.random.default_rng(3)
    p, y = np.round(random.random(30), 1), random.random(30) < 0.4

    def f1(threshold: float) -> float:
        chosen = p >= threshold
        return float(2 * (chosen & y).sum() / (chosen.sum() + y.sum()))

    assert f1(several.best_threshold(p, y)) == max(f1(one) for one in np.linspace(0, 1, 201))
    assert several.best_threshold(p, np.zeros(30, dtype=bool)) == several.EVEN


def test_a_cell_is_a_set_of_classes(table: Path, tmp_path: Path) -> None:
    data = open_dataset(f"{table}?separator=;")
    assert data.class_names == ("blue", "green", "red")
    assert data.several
    sets = {one.id: {data.class_names[label] for label in one.labels} for one in data.train}
    assert sets["train3.png"] == {"red", "green"}
    assert sets["train0.png"] == {"red"}
    with pytest.raises(UserError, match="separator is empty"):
        open_dataset(f"{table}?separator=")
    other = table.parent / "empty.csv"
    other.write_text("path,labels\ntrain0.png,red;green\ntrain1.png,;\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 3 has no label"):
        open_dataset(f"{other}?separator=;")


def test_from_a_table_to_answers(
    table: Path, clip_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, spec = tmp_path / "run", f"{table}?separator=;"
    same = ["--model", str(clip_dir), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    settings = ["--set", "n_ctx=4", "--epochs", "3", "--shots", "4"]
    assert (
        cli.run(
            ["train", str(table), "--columns", "separator=;", "--out", str(run), *same, *settings, "--method", "coop"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "mean average precision" in said
    assert (run / "report.html").is_file()
    record = read(run / "seed1")
    assert record.mean_ap is not None
    assert record.mean_ap == pytest.approx(np.mean(list(record.per_class.values())))
    facts = json.loads((run / "seed1" / "prompt.json").read_text(encoding="utf-8"))
    assert facts["thresholds"].keys() == {"red", "green", "blue"}
    assert cli.run(["eval", str(run), "--data", spec, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["mean_ap"] == pytest.approx(record.mean_ap, abs=0.1)
    pictures = sorted(table.parent.glob("test*.png"))
    assert cli.run(["predict", str(run), *map(str, pictures), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    classifier = PromptClassifier.load(run, device="cpu")
    assert [set(one["classes"]) for one in told] == [set(one) for one in classifier.predict(pictures)]
    for one in told:
        above = {each["class"] for each in one["top"] if each["probability"] >= facts["thresholds"][each["class"]]}
        assert above == set(one["classes"])
    assert classifier.score(spec) == pytest.approx(record.mean_ap / 100, abs=1e-3)
    assert cli.run(["export", "onnx", str(run), "--out", str(tmp_path / "x.onnx")]) == 2
    assert "several" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "said"), [("tip-adapter", "fitted to one label"), ("linear-probe", "fitted"), ("promptsrc", "losses")]
)
def test_methods_of_one_label_are_refused(
    table: Path, clip_dir: Path, tmp_path: Path, method: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", str(table), "--columns", "separator=;", "--model", str(clip_dir), "--method", method]
    assert cli.run([*given, "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("method", ["kgcoop", "plpp+coop"])
def test_a_loss_that_reads_no_labels_stands_with_several(
    table: Path, clip_dir: Path, tmp_path: Path, method: str
) -> None:
    """A term on the text alone changes what is learned, and its weight is found against the binary loss."""
    learned = {}
    for name in (method, "coop"):
        made = PromptClassifier(clip_dir, name, epochs=2, shots=None, cache=tmp_path / "cache", device="cpu")
        learned[name] = made.fit(f"{table}?separator=;")
    text = [one.learned.prompt.state_dict()["ctx"] for one in learned.values()]
    assert not torch.equal(*text)
    assert 0 <= learned[method].score(f"{table}?separator=;") <= 1


def test_lists_and_indicators_learn_the_same(table: Path, clip_dir: Path, tmp_path: Path) -> None:
    paths = sorted(table.parent.glob("train*.png"))
    names = ["blue", "green", "red"]
    sets = [tuple(name.strip() for name in SETS[int(path.stem[5:]) % len(SETS)].split(";")) for path in paths]
    rows = np.array([[name in one for name in names] for one in sets], dtype=int)
    made = {"n_ctx": 4, "epochs": 2, "shots": None, "cache": tmp_path / "cache", "device": "cpu"}
    by_name = PromptClassifier(clip_dir, "coop", **made).fit(paths, [list(one) for one in sets])
    by_row = PromptClassifier(clip_dir, "coop", class_names=names, **made).fit(paths, rows)
    assert np.array_equal(by_name.predict_proba(paths), by_row.predict_proba(paths))
    assert by_name.score(paths, sets) == by_row.score(np.array(list(map(str, paths))), rows)
    assert all(set(one) <= set(names) for one in by_name.predict(paths))
    with pytest.raises(UserError, match="need class_names"):
        PromptClassifier(clip_dir, "coop", **made).fit(paths, rows)
    with pytest.raises(UserError, match="has no label"):
        by_name.fit(paths, [(), *sets[1:]])


def test_lists_in_a_table_of_lines_are_several_labels(table: Path) -> None:
    lists = table.parent / "t.jsonl"
    with table.open(encoding="utf-8") as file:
        rows = [
            {"path": one["path"], "labels": [name.strip() for name in one["labels"].split(";")], "split": one["split"]}
            for one in csv.DictReader(file)
        ]
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, same = open_dataset(str(lists)), open_dataset(f"{table}?separator=;")
    assert found.several
    assert [(one.id, one.labels) for one in found.train] == [(one.id, one.labels) for one in same.train]
    for row in rows:
        row["labels"] = row["labels"][:1]
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert not open_dataset(str(lists)).several, "a list of one label is a label"
    lists.write_text('{"path": ["train0.png", "b.png"], "label": "red"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"path is .* it must be text"):
        open_dataset(str(lists))
    lists.write_text('{"path": "train0.png", "label": ["red", 3]}\n', encoding="utf-8")
    with pytest.raises(UserError, match="must be text"):
        open_dataset(str(lists))


def test_cells_that_look_like_several_labels_are_asked_about(table: Path) -> None:
    (note,) = (one for one in open_dataset(str(table)).notes if "several labels" in one)
    assert '--columns "separator=;"' in note
    assert not any("several labels" in one for one in open_dataset(f"{table}?separator=;").notes)


def test_a_precision_with_weights_is_that_of_repeated_images() -> None:
    random = np.random.default_rng(5)
    scores, truth = torch.from_numpy(random.integers(0, 6, 30) / 7), random.random(30) < 0.4
    weights = random.integers(0, 4, (3, 30))
    weights[2, truth] = 0
    found = several._precision(scores, truth, weights)
    for value, row in zip(found[:2], weights[:2], strict=True):
        assert value == pytest.approx(average_precision_score(truth, scores.numpy(), sample_weight=row))
    assert np.isnan(found[2])


def test_the_error_of_the_gain_is_that_of_fresh_images() -> None:
    random = np.random.default_rng(3)

    def drawn(number: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray[Any, Any]]:
        truth = random.random((number, 2)) < 0.3
        noise = random.normal(size=(3, number, 2))
        return torch.from_numpy(truth * 1.5 + noise[0]), torch.from_numpy(truth * 0.5 + noise[0] + noise[1]), truth

    gains = []
    for _ in range(200):
        better, worse, truth = drawn(150)
        both = [np.mean(list(several.average_precision(one, truth).values())) for one in (better, worse)]
        gains.append(both[0] - both[1])
    assert several.gain_error(*drawn(150)) == pytest.approx(np.std(gains), rel=0.35)
    assert several.gain_error(better, better, truth) == 0


def test_a_grid_and_its_report_have_the_precision(
    table: Path, clip_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    given = [
        "--data",
        f"{table}?separator=;",
        "--methods",
        "coop,zero-shot",
        "--shots",
        "4",
        "--seeds",
        "1",
        "--set",
        "epochs=2",
    ]
    given += ["--model", str(clip_dir), "--device", "cpu", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert cli.run(["bench", "few-shot", *given]) == 0, capsys.readouterr().err
    found = [read(path.parent) for path in sorted(out.rglob("result.json"))]
    assert [one.method for one in found] == ["coop", "zero-shot"]
    assert all(one.mean_ap is not None and one.ap_gain_error is not None for one in found)
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "mean average precision" in report
    assert "not comparable" not in report
    assert f"| {found[1].mean_ap:.1f}" in report.replace("**", "")
    assert "mean_ap_mean" in (out / "report.csv").read_text(encoding="utf-8")


def test_a_frame_has_all_labels_of_an_image(table: Path, clip_dir: Path, tmp_path: Path) -> None:
    made = PromptClassifier(clip_dir, "coop", epochs=2, shots=None, cache=tmp_path / "cache", device="cpu")
    made.fit(f"{table}?separator=;")
    paths = sorted(table.parent.glob("test*.png"))
    answers = made.predict(paths).tolist()
    frame = made.frame(paths, [list(reversed(one)) for one in answers])
    assert frame["answer"].tolist() == answers
    assert frame["right"].all()
    assert not made.frame(paths, [("red", "green", "blue", "other")] * len(paths))["right"].any()
