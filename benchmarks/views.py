"""How many fixed views of a training image are worth their encoding: validation accuracy against cold wall-clock time.

    python -m benchmarks.views [--data A,B] [--views centre,1,2,4,8,16,epochs] [--seeds 1,2,3] [--json FILE] [--figure FILE]

Every number of views learns the same prompt with an empty feature cache. After each epoch the prompt is measured on ALL validation
images of the set, with the clock stopped; test images are not opened. Accuracy is the mean over data sets and seeds, time the mean
too, image encoding included. Two times are given, to within 0.3 points, from where the curve stays there: of a number's own final
accuracy, and of the best final accuracy of all numbers (none where it is never reached). `epochs` is a fresh view in every epoch, as
published; `centre` the test view.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, publish
from vlprompt.bench import Desk, Means
from vlprompt.data import FeatureStore, few_shot
from vlprompt.engine.checkpoint import State, Watch
from vlprompt.engine.evaluate import Classifier, accuracy
from vlprompt.engine.images import Images
from vlprompt.engine.train import Lesson, prompt_at, train
from vlprompt.methods.resolve import recipe_of, resolve
from vlprompt.towers import Clip, load
from vlprompt.types import Views

NEAR = 0.3
"""Points of accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One number of views: means over data sets and seeds, after each epoch."""

    views: Views
    seconds: list[float]
    """From the start, cold, measuring left out."""
    accuracy: list[float]
    """Percent of the validation images."""

    def reaches(self, target: float) -> float | None:
        """Seconds until the curve is within `NEAR` of an accuracy, and stays there; None: it is not in the end."""
        low = [epoch for epoch, value in enumerate(self.accuracy) if value < target - NEAR]
        first = low[-1] + 1 if low else 0
        return self.seconds[first] if first < len(self.seconds) else None


@dataclass(slots=True)
class Run:
    """One prompt's way: a mark after each epoch."""

    seconds: list[float] = field(default_factory=list)
    """From the start, measuring left out."""
    accuracy: list[float] = field(default_factory=list)


def learn(clip: Clip, data: str, seed: int, views: Views, arguments: argparse.Namespace, judged: Images) -> Run:
    """One prompt with an empty cache."""
    dataset = Desk(Means(device="cpu")).material(data)
    assert not dataset.test
    assert dataset.val, f"{data} has no validation images"
    chosen = resolve(
        arguments.method,
        dict(one.split("=", 1) for one in arguments.set),
        shots=arguments.shots,
        recipe=recipe_of(arguments.method, "few-shot", arguments.model),
        dataset=dataset.name,
        facts=clip.facts,
    )
    lesson = Lesson(
        samples=few_shot(dataset, arguments.shots, seed).train,
        class_names=dataset.class_names,
        template=dataset.template,
        seed=seed,
        views=views,
    )
    judged.features(dataset.val, None)
    with tempfile.TemporaryDirectory() as cold:
        images = Images(clip, FeatureStore(Path(cold)))
        run, spec, begun, stopped = Run(), chosen.prompt, time.perf_counter(), 0.0

        def measure(state: State) -> None:
            nonlocal stopped
            now = time.perf_counter()
            run.seconds.append(now - begun - stopped)
            prompt = prompt_at(state, clip, spec, len(lesson.class_names), lesson.seed)
            found = accuracy(Classifier(clip, chosen, prompt, lesson.class_names, lesson.template), dataset.val, judged)
            assert found is not None, "there are validation images"
            run.accuracy.append(found)
            stopped += time.perf_counter() - now

        train(clip, chosen, lesson, images, checkpoints=Watch(after=measure))
    return run


def curve(clip: Clip, views: Views, arguments: argparse.Namespace, judged: Images) -> Curve:
    """All data sets and seeds with one number of views."""
    runs = [
        learn(clip, data, seed, views, arguments, judged)
        for data in arguments.data.split(",")
        for seed in map(int, arguments.seeds.split(","))
    ]
    return Curve(
        views=views,
        seconds=[statistics.fmean(values) for values in zip(*(run.seconds for run in runs), strict=True)],
        accuracy=[statistics.fmean(values) for values in zip(*(run.accuracy for run in runs), strict=True)],
    )


def figures(curves: Sequence[Curve]) -> list[Figure]:
    """Final accuracy, whole time, and the two times to accuracy of each number of views; a time that is none is left out."""
    best = max(one.accuracy[-1] for one in curves)
    out = []
    for one in curves:
        name = one.views if isinstance(one.views, str) else f"V{one.views}"
        out += [Figure(f"final_{name}", one.accuracy[-1], "%"), Figure(f"whole_{name}", one.seconds[-1], "s")]
        for which, target in (("own", one.accuracy[-1]), ("best", best)):
            if (seconds := one.reaches(target)) is not None:
                out.append(Figure(f"to_{which}_{name}", seconds, "s"))
    return out


def draw(curves: Sequence[Curve], path: Path, title: str) -> None:
    """Accuracy against time, a curve for each number of views."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 4.5), layout="constrained")
    axes = canvas.subplots()
    for one in curves:
        axes.plot(one.seconds, one.accuracy, marker=".", label=str(one.views))
    axes.set(xscale="log", xlabel="seconds, image encoding included", ylabel="validation accuracy, %", title=title)
    axes.legend(title="views")
    canvas.savefig(path, dpi=150)


def parse_views(text: str) -> Views:
    """A number, `epochs` or `centre`."""
    if text == "epochs":
        return "epochs"
    return "centre" if text == "centre" else int(text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-subgroups,clipart-things", help="data sets with validation images")
    parser.add_argument("--model", default="pocket-s")
    parser.add_argument("--method", default="coop")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--views", default="centre,1,2,4,8,16,epochs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the method")
    parser.add_argument("--json", type=Path, help="write the figures to this file, and the curves next to it")
    parser.add_argument("--figure", type=Path, help="draw the curves")
    arguments = parser.parse_args()
    clip = load(arguments.model)
    judged = Images(clip, FeatureStore(None))
    curves = [curve(clip, parse_views(text), arguments, judged) for text in arguments.views.split(",")]
    publish(figures(curves), arguments.json)
    if arguments.json is not None:
        arguments.json.with_suffix(".curves.json").write_text(
            json.dumps([asdict(one) for one in curves]) + "\n", encoding="utf-8"
        )
    if arguments.figure is not None:
        draw(curves, arguments.figure, f"{arguments.method}, {arguments.data}, {arguments.shots} shots")


if __name__ == "__main__":
    main()
