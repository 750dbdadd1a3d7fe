"""Choose the pocket recipes: learning rates (and starts) of every method, on validation images, never on test images.

python tools/pocket/tune.py OUT.jsonl --methods ivlp,maple     # adds lines; what is there already is not repeated
python tools/pocket/tune.py OUT.jsonl --show                   # the table

A line is one setting on one set with one seed: learned on 16 images of every base class, tested on all validation images of the base
and of the novel classes, and after every epoch on those of the base classes (to choose the number of epochs).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch

from vlprompt.data import Sample, few_shot, open_dataset, restrict, split_by_rule
from vlprompt.engine.checkpoint import Watch
from vlprompt.engine.evaluate import Classifier, accuracy, zero_shot
from vlprompt.engine.images import open_images
from vlprompt.engine.train import Lesson, prompt_at, train
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import load

SETS = ("emoji-groups", "emoji-people", "emoji-symbols", "clipart-things")
SEEDS = (1,)
RATES = (0.003, 0.01, 0.03)
GRID: dict[str, tuple[dict[str, object], ...]] = {
    **{name: tuple({"lr": lr} for lr in RATES) for name in ("vpt", "vpt-deep", "ivlp", "rpp")},
    "promptsrc": (*({"lr": lr} for lr in (*RATES, 0.1)), {"lr": 0.03, "epochs": 20}),
    "cocoop": tuple({"lr": lr} for lr in (0.002, 0.01, 0.05)),
    "kgcoop": tuple({"lr": lr, "weight": w} for lr in (0.03, 0.1, 0.3) for w in (2, 8)),
    "prograd": tuple(
        {"lr": lr, **start}
        for lr in (0.03, 0.1)
        for start in ({}, {"n_ctx": 3, "init": "a picture of"}, {"n_ctx": 16, "init": "zeros + a picture of"})
    ),
    "plpp+prograd": (
        {},
        {"plpp.mutual": "ppl"},
        {"plpp.mutual": "inverse"},
        {"plpp.detach": "teacher"},
        {"n_ctx": 3, "init": "a picture of"},
    ),
    "pomp": tuple({"lr": lr} for lr in (0.03, 0.1)),
    "coop": ({"lr": 0.1},),
}


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", default=",".join(GRID))
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.is_file() else []
    rows = [json.loads(line) for line in lines]
    if given.show:
        show(rows)
        return
    done = {json.dumps([row[key] for key in ("method", "options", "set", "seed")]) for row in rows}
    clip = load("pocket-s")
    images = open_images(clip, None)
    for name in given.methods.split(","):
        for options in GRID[name]:
            for dataset in SETS:
                for seed in SEEDS:
                    if json.dumps([name, options, dataset, seed]) in done:
                        continue
                    row = measure(clip, images, name, options, dataset, seed)
                    with given.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")


def measure(clip, images, name: str, options: dict[str, object], dataset: str, seed: int) -> dict[str, object]:
    """One line."""
    whole = dataclasses.replace(split_by_rule(open_dataset(dataset)), test=())
    method = resolve(name, options, shots=16, recipe=recipe_of(name, "few-shot", "", "pocket"))
    sample = restrict(few_shot(whole, 16, seed), "base")
    lesson = Lesson(
        samples=sample.train,
        class_names=sample.class_names,
        template=whole.template,
        seed=seed,
        views="centre",
    )

    def top1(prompt: torch.nn.Module | None, part: str) -> float:
        there = restrict(whole, part)
        val: tuple[Sample, ...] = there.val
        if prompt is None:
            return accuracy(zero_shot(clip, there.class_names, whole.template, whole.template), val, images)
        return accuracy(Classifier(clip, method, prompt, there.class_names, whole.template), val, images)

    by_epoch: list[float] = []
    watch = Watch(after=lambda state: by_epoch.append(top1(prompt_at(state, clip, method.prompt, lesson), "base")))
    prompt = train(clip, method, lesson, images, checkpoints=watch)
    parts = ("base", "novel")
    return {
        "method": name,
        "options": options,
        "set": dataset,
        "seed": seed,
        "top1": {part: top1(prompt, part) for part in parts},
        "zero_shot": {part: top1(None, part) for part in parts},
        "by_epoch": by_epoch,
    }


def show(rows: list[dict]) -> None:
    """Means over sets and seeds, as a Markdown table: base, novel, and base after each quarter of the epochs."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["method"], json.dumps(row["options"])].append(row)
    print("| method | options | cells | base (zero-shot) | novel (zero-shot) | base by epoch |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    for (name, options), found in groups.items():
        columns = []
        for part in ("base", "novel"):
            ours, zero = (fmean(row[key][part] for row in found) for key in ("top1", "zero_shot"))
            columns.append(f"{ours:.1f} ({zero:.1f})")
        epochs = len(found[0]["by_epoch"])
        marks = sorted({max(0, round(epochs * q / 5) - 1) for q in range(1, 6)})
        course = ", ".join(f"{mark + 1}: {fmean(row['by_epoch'][mark] for row in found):.1f}" for mark in marks)
        said = ", ".join(f"{key} {value}" for key, value in json.loads(options).items())
        print(f"| {name} | {said} | {len(found)} | {' | '.join(columns)} | {course} |")


if __name__ == "__main__":
    main()
