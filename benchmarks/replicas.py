"""What it saves that prompts go through the frozen towers together: three seeds against one, and the ablation of PLPP.

    python -m benchmarks.replicas [--model pocket-s] [--data clipart-things] [--epochs 10] [--json FILE]

An embedded model and set, the base half of its classes, 16 images of each, the recipe of the embedded models. Image features are in the
cache before anything is measured. Sides take turns, and each figure is the median of the rounds: one seed alone, three seeds one after
the other, three seeds together, six PLPP settings one after the other, the same six together. The error is the largest difference of a
learned number from the same prompt learned alone, relative to the largest number of its tensor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from benchmarks.figures import Figure, publish
from vlprompt.data import FeatureStore, few_shot, open_dataset, restrict
from vlprompt.engine.images import Images
from vlprompt.engine.learn import alike, learn_all
from vlprompt.engine.train import Lesson, Task
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip, load

SEEDS = (1, 2, 3)
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"plpp.lambda": 1.0},
    {"plpp.tau": 1.0},
    {"plpp.k": 100},
    {"plpp.mutual": "ppl"},
    {"plpp.centre": True},
)


def pupil(clip: Clip, data: str, method: str, seed: int, epochs: int, changes: dict[str, object]) -> Task:
    """One prompt, to be learned on the base half."""
    half = restrict(few_shot(open_dataset(data), 16, seed), "base")
    recipe = recipe_of(method, "few-shot", clip.name)
    chosen = resolve(method, {**changes, "epochs": epochs}, shots=16, recipe=recipe, facts=clip.facts)
    lesson = Lesson(
        samples=half.train, class_names=half.class_names, template="a picture of {}.", seed=seed, views="centre"
    )
    return Task(method=chosen, feed=lesson)


def difference(one: object, other: object) -> float:
    """The largest difference of two prompts, relative to the largest number of a tensor."""
    assert isinstance(one, nn.Module)
    assert isinstance(other, nn.Module)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def figures(model: str, data: str, epochs: int, rounds: int) -> list[Figure]:
    """Medians over rounds in which all sides take turns."""
    clip = load(model, device="cpu")
    images = Images(clip, FeatureStore(None))
    seeds = [pupil(clip, data, "coop", seed, epochs, {}) for seed in SEEDS]
    sweep = [pupil(clip, data, "plpp+coop", 1, epochs, changes) for changes in SETTINGS]
    assert alike(seeds)
    assert alike(sweep)

    def alone(pupils: Sequence[Task]) -> list[object]:
        return [learn_all(clip, [one], images)[0] for one in pupils]

    def together(pupils: Sequence[Task]) -> list[object]:
        return list(learn_all(clip, pupils, images))

    sides: dict[str, tuple[Callable[[Sequence[Task]], list[object]], Sequence[Task]]] = {
        "one": (alone, seeds[:1]),
        "three": (alone, seeds),
        "three_together": (together, seeds),
        "sweep": (alone, sweep),
        "sweep_together": (together, sweep),
    }
    found = {name: run(pupils) for name, (run, pupils) in sides.items()}  # the features are in the cache after it
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (run, pupils) in sides.items():
            began = time.perf_counter()
            run(pupils)
            times[name].append(time.perf_counter() - began)
    ratio = {name: [a / b for a, b in zip(times[name], times[base], strict=True)] for name, base in BASES.items()}
    pairs = [*zip(found["three_together"], found["three"]), *zip(found["sweep_together"], found["sweep"])]
    return [
        Figure("one_seed_s", statistics.median(times["one"]), "s"),
        Figure("three_seeds_alone_ratio", statistics.median(ratio["three"]), "times one seed"),
        Figure("three_seeds_ratio", statistics.median(ratio["three_together"]), "times one seed"),
        Figure("ablation_ratio", statistics.median(ratio["sweep_together"]), "times one after the other"),
        Figure("replica_error", max(difference(one, other) for one, other in pairs), "relative"),
    ]


BASES = {"three": "one", "three_together": "one", "sweep_together": "sweep"}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket-s", help="an embedded model (default: pocket-s)")
    parser.add_argument("--data", default="clipart-things", help="an embedded set (default: clipart-things)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training images (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="times that every side is measured (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    asked = parser.parse_args()
    publish(figures(asked.model, asked.data, asked.epochs, asked.rounds), asked.json)


if __name__ == "__main__":
    main()
