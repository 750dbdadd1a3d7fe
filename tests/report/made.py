"""Records with plausible values, any of which can be changed; and the runs of a whole benchmark, made up."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlprompt.records import Predictions, Record, id_hashes, write

BASE = Record(
    method="coop",
    dataset="birds",
    shots=16,
    seed=1,
    model="tiny",
    template="a picture of {}.",
    top1=40.0,
    zero_shot_top1=20.0,
    top5=80.0,
    macro_f1=38.0,
    balanced_accuracy=40.0,
    ece=5.0,
    num_classes=5,
    num_test=50,
    split_hash="0" * 64,
    seconds=12.0,
    seconds_features=3.0,
    epochs=30,
    peak_mib=100.0,
    device="cpu",
    versions={"torch": "2"},
    parameters=3072,
)


def record(**changes: Any) -> Record:
    return dataclasses.replace(BASE, **changes)


METHODS = {
    "zero-shot": (0.0, 0.0),
    "linear-probe": (-0.9, 0.55),
    "coop": (0.1, 0.28),
    "plpp+coop": (0.25, 0.28),
    "maple": (0.2, 0.30),
    "plpp+maple": (0.32, 0.30),
    "promptsrc": (0.35, 0.30),
    "plpp+promptsrc": (0.4, 0.30),
    "rpp": (0.3, 0.34),
    "plpp+rpp": (0.42, 0.35),
}
"""Method -> how much better than the template after one image per class, and the gain with each doubling (logits)."""
SETS = ("birds", "clip art", "emoji", "flowers", "food", "vehicles")
SHOTS = (1, 2, 4, 8, 16)


def class_names(dataset: str, count: int) -> list[str]:
    return [f"{dataset} {chr(97 + i % 26)}{i // 26 or ''}" for i in range(count)]


def predictions(
    dataset: str, labels: Sequence[int], count: int, ability: float, *, seed: int, noise: float = 0.15
) -> Predictions:
    """Answers of someone with an ability: each image has a difficulty, each class too; the seed moves both a little."""
    fixed = np.random.default_rng(zlib.crc32(dataset.encode()))
    own = np.random.default_rng((zlib.crc32(dataset.encode()), seed, int(1000 * (ability + 10))))
    label_N = np.array(labels, dtype=np.int64)
    hard_N = fixed.normal(0, 1.2, len(label_N)) + fixed.normal(0, 0.9, count)[label_N]
    chance_N = 1 / (1 + np.exp(-(ability + own.normal(0, noise) - hard_N + own.normal(0, 0.5, len(label_N)))))
    right_N = own.random(len(label_N)) < chance_N
    wrong_N = (label_N + own.choice([1, 1, 2, count // 2], len(label_N))) % count
    sure_N = np.clip(chance_N * 0.8 + own.normal(0.1, 0.08, len(label_N)), 1 / count, 0.999).astype(np.float32)
    predicted_N = np.where(right_N, label_N, wrong_N)
    return Predictions(
        id_hash=id_hashes([f"{dataset}/{n}" for n in range(len(label_N))]),
        label=label_N,
        predicted=predicted_N,
        label_probability=np.where(right_N, sure_N, (1 - sure_N) / 2).astype(np.float32),
        predicted_probability=sure_N,
    )


def scored(found: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a record that follow from its predictions."""
    right = found.predicted == found.label
    recall = {
        names[label]: float(100 * right[found.label == label].mean()) for label in np.unique(found.label).tolist()
    }
    balanced = float(np.mean(list(recall.values())))
    return {
        "top1": float(100 * right.mean()),
        "top5": min(100.0, float(100 * right.mean()) * 0.5 + 48),
        "macro_f1": balanced - 1.5,
        "balanced_accuracy": balanced,
        "ece": float(100 * abs(found.predicted_probability.mean() - right.mean())),
        "per_class": recall,
        "num_classes": len(names),
        "num_test": len(right),
    }


def benchmark(
    root: Path,
    *,
    methods: Sequence[str] = tuple(METHODS),
    sets: Sequence[str] = SETS,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    classes: int = 12,
    images: int = 240,
    protocols: Sequence[str] = ("few-shot", "base-to-novel", "cross-dataset", "domain"),
) -> int:
    """Writes the runs of a whole benchmark, made up; returns how many."""
    written = 0
    for method in methods:
        for place in _places(method, sets, shots, protocols):
            for seed in seeds[:1] if method == "zero-shot" else seeds:
                dataset, subset = place["dataset"], place["subset"]
                count = {"base": (classes + 1) // 2, "novel": classes // 2}.get(subset, classes)
                names = class_names(dataset, classes)
                names = names[: (classes + 1) // 2] if subset == "base" else names[-count:]
                labels = [n % count for n in range(images if subset == "all" else images // 2)]
                found = predictions(f"{dataset}{subset}", labels, count, _ability(method, place), seed=seed)
                zero = predictions(f"{dataset}{subset}", labels, count, 0.0, seed=1, noise=0.0)
                one = record(
                    **place,
                    **scored(found, names),
                    method=method,
                    seed=seed,
                    zero_shot_top1=float(100 * (zero.predicted == zero.label).mean()),
                    parameters=0 if method == "zero-shot" else 480 * (1 + len(method)),
                    epochs=0 if method in ("zero-shot", "linear-probe") else 30,
                    seconds=3.0 + len(method) + (place["shots"] or 20) / 2,
                    recipe="pocket",
                )
                where = root / place["protocol"] / f"{dataset}-{subset}-{place['shots']}" / method / f"seed{seed}"
                write(where, one, found)
                written += 1
    return written


def _places(method: str, sets: Sequence[str], shots: Sequence[int], protocols: Sequence[str]) -> list[dict[str, Any]]:
    most = max(shots)
    out: list[dict[str, Any]] = []
    for protocol in protocols:
        for dataset in sets:
            if protocol == "few-shot":
                numbers = [most] if method == "zero-shot" else shots
                out += [{"dataset": dataset, "subset": "all", "shots": n, "source": ""} for n in numbers]
            elif protocol == "base-to-novel":
                out += [{"dataset": dataset, "subset": s, "shots": most, "source": ""} for s in ("base", "novel")]
            elif method != "linear-probe" and (protocol == "cross-dataset" or dataset in sets[:3]):
                source = "" if dataset == sets[0] else sets[0]
                out.append({"dataset": dataset, "subset": "all", "shots": most, "source": source})
        for one in out:
            one.setdefault("protocol", protocol)
    return out


def _ability(method: str, place: dict[str, Any]) -> float:
    start, slope = METHODS[method]
    if method == "zero-shot":
        return 0.0
    gain = start + slope * math.log2(place["shots"] or 32)
    if place["subset"] == "novel":
        return 0.35 * start - (0.25 if "+" not in method else 0.05)
    return 0.3 * start if place["source"] else gain


if __name__ == "__main__":
    import sys

    print(benchmark(Path(sys.argv[1]), classes=47, images=690))
