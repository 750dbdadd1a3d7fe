"""The page of one run: its numbers are the predictions', names are harmless, and it says what it cannot show."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.report.made import record, scored
from vlprompt.records import Predictions, id_hashes, images_of, losses, write
from vlprompt.report.own import MOST_CLASSES, doubtful, title_of, write_own


def answers(label: list[int], predicted: list[int], ids: list[str]) -> Predictions:
    label_N, predicted_N = np.array(label, dtype=np.int64), np.array(predicted, dtype=np.int64)
    sure_N = np.linspace(0.6, 0.95, len(label)).astype(np.float32)
    return Predictions(
        id_hash=id_hashes(ids),
        label=label_N,
        predicted=predicted_N,
        label_probability=np.where(label_N == predicted_N, sure_N, 0.02).astype(np.float32),
        predicted_probability=sure_N,
    )


def run_of(root: Path, names: list[str], label: list[int], predicted: list[list[int]], ids: list[str]) -> list[Path]:
    """A run with a seed for each list of answers."""
    places = []
    for seed, said in enumerate(predicted, 1):
        place, found = root / f"seed{seed}", answers(label, said, ids)
        write(place, dataclasses.replace(record(seed=seed, gained=3, lost=1), **scored(found, names)), found)
        (place / "split.json").write_text(
            json.dumps({"test": [[id, one] for id, one in zip(ids, label, strict=True)]}), encoding="utf-8"
        )
        (place / "metrics.jsonl").write_text('{"epoch": 0, "loss": 2.0}\n{"epoch": 1, "loss": 1.0}\n', encoding="utf-8")
        places.append(place)
    return places


def nothing(images: list[str]) -> dict[str, str]:
    """No pictures."""
    return {}


def test_the_page_says_what_the_predictions_say(tmp_path: Path) -> None:
    label, ids = [0, 0, 1, 1, 2, 2], [f"c/{n}.png" for n in range(6)]
    places = run_of(tmp_path, ["ant", "bee", "cat"], label, [[0, 1, 1, 1, 2, 0], [0, 1, 1, 1, 2, 2]], ids)
    assert images_of(places[0]) == tuple(ids)
    assert losses(places[0]) == [2.0, 1.0]
    asked: list[str] = []

    def draw(images: list[str]) -> dict[str, str]:
        asked.extend(images)
        return {}

    write_own(tmp_path, places, draw)
    assert asked == ["c/5.png", "c/1.png"]
    assert 'class="ahead"' not in write_own(tmp_path, places, nothing)[0].read_text(encoding="utf-8")
    for place in places:
        (place / "curve.json").write_text(
            '{"images": [3, 6, 12], "right": ["100001", "100101", "101110"]}', encoding="utf-8"
        )
    files = write_own(tmp_path, places, lambda _: {"c/1.png": "data:image/jpeg;base64,AAAA"}, all_answers=True)
    assert [one.name for one in files] == ["report.html", "report.md", "mistakes.csv", "predictions.csv"]
    rows = list(csv.DictReader(files[2].read_text(encoding="utf-8").splitlines()))
    assert [(row["image"], row["label"], row["predicted"], row["seeds_wrong"]) for row in rows][-1] == (
        *("c/1.png", "ant", "bee"),
        "2",
    )
    assert len(list(csv.DictReader(files[3].read_text(encoding="utf-8").splitlines()))) == 6
    page = files[0].read_text(encoding="utf-8")
    assert re.findall(r">([0-9]+)(?: \?)?</text>", page.partition('class="ahead"')[2].partition("</svg>")[0])[-4:] == [
        "3",
        "6",
        "12",
        "24",
    ]
    assert "With twice as many" in page
    assert "With twice as many" in files[1].read_text(encoding="utf-8")
    assert 'src="data:image/jpeg;base64,AAAA"' in page
    assert "<polyline" in page
    counts = re.findall(r"<td[^>]*>(\d+)</td>", page[page.index('class="matrix"') :])[:9]
    assert counts == ["2", "2", "0", "0", "4", "0", "1", "0", "3"]
    assert "| ant | bee | 2 |" in files[1].read_text(encoding="utf-8")


def test_many_classes_show_the_ones_with_mistakes(tmp_path: Path) -> None:
    names = [f"kind {n:02}" for n in range(100)]
    label = list(range(100))
    said = [0 if n in (70, 71) else n for n in label]
    places = run_of(tmp_path, names, label, [said], [f"{n}.png" for n in label])
    page = write_own(tmp_path, places, nothing)[0].read_text(encoding="utf-8")
    assert f"The {MOST_CLASSES} of 100 classes with the most mistakes" in page
    assert "kind 70 taken for kind 00" in page
    assert page.count("<figure>") >= 2


def test_what_saw_no_training_image_says_so() -> None:
    assert title_of(record(method="descriptions", num_train=0)).endswith(", without training images")
    assert title_of(record(method="coop", num_train=8)).endswith("images of each class")


def test_names_are_harmless(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "=cmd()", "c|d"]
    places = run_of(tmp_path, names, [0, 1, 2], [[1, 0, 2]], ["@a.png", "<b>.png", "c.png"])
    page, markdown, table = (one.read_text(encoding="utf-8") for one in write_own(tmp_path, places, nothing))
    assert "<script" not in page
    assert "<b>.png" not in page
    assert "<script" not in markdown
    assert "'@a.png,<script>alert(1)</script>,'=cmd()" in table


def test_without_paths_or_test_images_it_says_so(tmp_path: Path) -> None:
    places = run_of(tmp_path, ["ant", "bee"], [0, 1], [[1, 1]], ["a", "b"])
    (places[0] / "split.json").unlink()
    assert "Nobody wrote down which images" in write_own(tmp_path, places, nothing)[0].read_text(encoding="utf-8")
    write(tmp_path / "none", dataclasses.replace(record(), num_test=0, top1=None))
    assert write_own(tmp_path, [tmp_path / "none"], nothing) == ()


def test_a_label_is_doubtful_where_another_class_is_as_sure_as_usual() -> None:
    found = answers([0, 0, 0, 1, 1], [0, 0, 1, 1, 1], list("abcde"))
    weak = dataclasses.replace(found, predicted_probability=np.array([0.6, 0.6, 0.5, 0.9, 0.9], dtype=np.float32))
    sure = dataclasses.replace(found, predicted_probability=np.array([0.6, 0.6, 0.95, 0.9, 0.9], dtype=np.float32))
    assert doubtful(weak).tolist() == [False] * 5
    assert doubtful(sure).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("text", ["{}", '{"test": [1]}', '{"test": 5}'])
def test_a_damaged_split_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        images_of(tmp_path)
