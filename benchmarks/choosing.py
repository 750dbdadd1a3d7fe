"""How often `train --method auto` finds the best method, and what it loses: measured without a test image.

    python -m benchmarks.choosing [--sets fashion,furniture] [--shots 2,4,16] [--seeds 1,2,3] [--out docs/records/choosing.json]
    python -m benchmarks.choosing --show [--json FILE]

The training and validation images of an embedded set are pooled and dealt anew for each seed: `shots` of each class to learn from, up to
four of each class for methods that choose on validation images, and the rest is asked about. (Where that leaves fewer than four of a
class to ask about, fewer shots are taken.) `auto` chooses from what there is to learn from. Then every candidate learns from all of it
and is asked about the rest. No candidate is left out for its time. The record holds the right answers of each as bits, so that other
rules can be compared. `--show` prints from the record and measures nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure, publish
from vlprompt.data import Dataset, Sample, open_dataset
from vlprompt.data.splits import MAX_VAL_SHOTS
from vlprompt.engine.choose import CANDIDATES, Candidate, Tried, answered, choose, labels, pick
from vlprompt.engine.images import Images, open_model
from vlprompt.engine.job import prepare

SETS, SHOTS, SEEDS = ("clipart-things", "fashion", "furniture", "emoji-objects"), (2, 4, 16), (1, 2, 3)
MODEL = "pocket-m"
RECORD = Path(__file__).resolve().parents[1] / "docs" / "records" / "choosing.json"
TRIED = (*CANDIDATES, Candidate(method="coop", overrides={"per_class": True}), Candidate(method="tip-adapter-f"))
"""What `auto` tries, and what it might try too."""
LEFT = 4
"""Images of each class that are asked about, at least."""


def dealt(dataset: Dataset, shots: int, seed: int) -> tuple[Dataset, list[Sample], int]:
    """The set with the images to learn from and to choose on, the images to ask about, and the shots taken."""
    pool = [*dataset.train, *dataset.val]
    least = min(Counter(sample.label for sample in pool).values())
    shots = min(shots, least - LEFT - MAX_VAL_SHOTS)
    train: list[Sample] = []
    val: list[Sample] = []
    asked: list[Sample] = []
    for label in range(len(dataset.class_names)):
        own = [sample for sample in pool if sample.label == label]
        random.Random(f"{seed} {label}").shuffle(own)
        chosen = shots + min(shots, MAX_VAL_SHOTS)
        train += own[:shots]
        val += own[shots:chosen]
        asked += own[chosen:]
    return dataclasses.replace(dataset, train=tuple(train), val=tuple(val), test=(), tested=None), asked, shots


def cell(images: Images, dataset: Dataset, shots: int, seed: int) -> dict[str, Any]:
    """What was chosen, and the right answers of every candidate."""
    given, asked, shots = dealt(dataset, shots, seed)
    choice = choose(images, given, model=MODEL, shots=shots, seed=seed, max_seconds=math.inf, candidates=TRIED)
    found = {}
    for one in TRIED:
        job = prepare(images, given, one.method, model=MODEL, shots=shots, seed=seed, overrides=one.overrides)
        sample = job.draw().sample
        logits = answered(job, job.lesson(sample, sample.train), sample.val, asked)
        found[one.label] = bits(logits.argmax(1).numpy() == labels(asked))
    tried = {one.label: None if one.right is None else bits(one.right) for one in choice.tried}
    seconds = {one.label: round(one.seconds, 1) for one in choice.tried}
    facts = {"set": dataset.name, "shots": shots, "seed": seed, "asked": len(asked)}
    return facts | {"seconds": seconds, "tried": tried, "found": found}


def bits(right: NDArray[np.bool_]) -> str:
    """Right answers as text: `1` right, `0` wrong."""
    return "".join("1" if one else "0" for one in right)


def right_of(text: str) -> NDArray[np.bool_]:
    """(N,)"""
    return np.array([one == "1" for one in text])


def chosen_by(rule: str, one: Mapping[str, Any]) -> str:
    """What a rule takes in a cell: `auto`, `highest` (the most right answers on the folds), or a candidate always."""
    if rule not in ("auto", "highest"):
        return rule
    known = [(each.label, right_of(text)) for each in CANDIDATES if (text := one["tried"].get(each.label))]
    if not known:
        return CANDIDATES[0].label
    if rule == "highest":
        return max(known, key=lambda pair: pair[1].mean())[0]
    return known[pick([Tried(label=name, right=right, seconds=0.0) for name, right in known])][0]


def table(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each rule: accuracy, points lost against the best candidate of each cell, and how often it is the best or within the noise.

    Within the noise: the best is not better by more than 1.96 standard errors of the paired difference over images.
    """
    rows = []
    for rule in ("auto", "highest", *cells[0]["found"]):
        accuracy, lost, best, close = [], [], 0, 0
        for one in cells:
            found = {name: right_of(text) for name, text in one["found"].items()}
            own, top = found[chosen_by(rule, one)], max(found.values(), key=np.mean)
            difference = top.astype(float) - own
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            accuracy.append(100 * own.mean())
            lost.append(100 * difference.mean())
            best += difference.mean() <= 0
            close += difference.mean() <= 1.96 * error
        rows.append(
            {
                "rule": rule,
                "accuracy": float(np.mean(accuracy)),
                "lost": float(np.mean(lost)),
                "worst": float(np.max(lost)),
                "best": best / len(cells),
                "close": close / len(cells),
            }
        )
    return rows


def show(record: Mapping[str, Any], path: Path | None) -> None:
    """The table of all cells and of each number of shots, as Markdown and as figures."""
    cells, figures = record["cells"], []
    groups = {"all": cells, **{str(n): [one for one in cells if one["asked_shots"] == n] for n in SHOTS}}
    for name, some in groups.items():
        if not some:
            continue
        print(
            f"\n{name} shots, {len(some)} cells\n\n| rule | accuracy | lost | most lost | the best | best or within the noise |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for row in table(some):
            shares = f"{100 * row['best']:.0f} % | {100 * row['close']:.0f} %"
            print(f"| {row['rule']} | {row['accuracy']:.1f} | {row['lost']:.1f} | {row['worst']:.1f} | {shares} |")
            if name == "all":
                called = row["rule"].replace(" ", "_")
                figures += [
                    Figure(f"lost_{called}", row["lost"], "points"),
                    Figure(f"close_{called}", row["close"], "share"),
                ]
    print("\nchosen:", dict(Counter(chosen_by("auto", one) for one in cells)))
    names = [one.label for one in CANDIDATES]
    print("seconds of choosing, median:", np.median([sum(one["seconds"][name] for name in names) for one in cells]))
    publish(figures, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    cells = json.loads(given.out.read_text(encoding="utf-8"))["cells"] if given.out.is_file() else []
    record = {"model": MODEL, "cells": cells}
    if not given.show:
        images = open_model(MODEL, "float32", "cpu")
        done = {(one["set"], one["asked_shots"], one["seed"]) for one in record["cells"]}
        for seed in map(int, given.seeds.split(",")):
            for shots in map(int, given.shots.split(",")):
                for name in given.sets.split(","):
                    if (name, shots, seed) in done:
                        continue
                    one = cell(images, open_dataset(name), shots, seed) | {"asked_shots": shots}
                    record["cells"].append(one)
                    print(name, shots, seed, chosen_by("auto", one), one["seconds"], flush=True)
                    given.out.parent.mkdir(parents=True, exist_ok=True)
                    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(record, given.json)


if __name__ == "__main__":
    main()
