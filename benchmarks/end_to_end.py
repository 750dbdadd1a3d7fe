"""From a folder of images to a learned prompt, cold: this library next to CoOp's published loop, both with the published schedule.

    python -m benchmarks.end_to_end [--json FILE] [--parts pocket,b16] [--seeds 1,2,3]

Plain is the published loop (CoOp, arXiv 2109.01134, its code), written out below: in every epoch it opens, crops and encodes every
image anew, and runs every class through the text tower at its whole length. Ours is what `vlprompt train` does with an empty cache and
the usual number of fixed views. Both list the folder, draw the same images, and take the same steps in the same order from the same
first prompt; an epoch of one side follows an epoch of the other in one process, and each side has its clock. Loading the model is in
neither. After each epoch both clocks stop, and all validation images are tested; test images are not written.

  pocket  a small real model and drawings. `near` is the time until a side is within 0.3 points of its last accuracy and stays there;
          `near_plain` is the same for the accuracy that the plain side ends with. Means over seeds.
  b16     ViT-B/16's shape with random weights, some noise for images: accuracy means nothing there, so whole schedules are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.feature_cache import write_images
from benchmarks.figures import Figure, publish
from benchmarks.methods_plain import PlainForward
from benchmarks.views import Curve
from vlprompt import pocket
from vlprompt.data import FeatureStore, few_shot, load_pixels, open_dataset
from vlprompt.data.views import first_view
from vlprompt.engine.checkpoint import State, Watch
from vlprompt.engine.config import DEFAULT_VIEWS, Means
from vlprompt.engine.evaluate import Classifier, accuracy
from vlprompt.engine.images import Images
from vlprompt.engine.job import Job, learn, prepare
from vlprompt.engine.optim import batches, lr_at
from vlprompt.engine.train import new_prompt, prompt_at
from vlprompt.towers import Clip, load
from vlprompt.towers.random_clip import draw_clip
from vlprompt.types import Method, Views

MODEL, DATA, SHOTS, SEEDS = "pocket-s", "fashion", 4, (1,)
RECIPE = "coop-few-shot"
FEW = 3
"""Classes, with one image each, for the large random model."""
SIDES = ("ours", "plain")


@dataclass(slots=True)
class Clock:
    """One side's time: a mark after each epoch, and what it had learned."""

    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    started: float = 0.0
    passed: float = 0.0

    def starts(self) -> None:
        """Its turn."""
        self.started = time.perf_counter()

    def stops(self) -> None:
        """An epoch of it is over."""
        self.passed += time.perf_counter() - self.started
        self.seconds.append(self.passed)


def plain(clip: Clip, folder: Path, method: Method, shots: int, seed: int) -> Iterator[nn.Module]:
    """The published loop on a folder; the prompt after each epoch. The views are numbered as the library numbers fresh ones."""
    dataset, schedule = open_dataset(folder), method.schedule
    drawn = few_shot(dataset, shots, seed).train
    forward = PlainForward(clip, method, dataset.class_names, dataset.template)
    prompt = new_prompt(clip, method.prompt, len(dataset.class_names), seed)
    optimiser = torch.optim.SGD(
        prompt.parameters(), lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay
    )
    for epoch in range(schedule.epochs):
        for group in optimiser.param_groups:
            group["lr"] = lr_at(epoch, schedule)
        for index in batches(len(drawn), schedule.batch, seed=seed, epoch=epoch):
            samples = [drawn[i] for i in index.tolist()]
            labels = torch.tensor([sample.label for sample in samples])
            pixels = load_pixels(samples, clip.preprocess, first_view(seed) + epoch)
            (view,) = forward.views(prompt, labels, pixels)
            optimiser.zero_grad()
            F.cross_entropy(view.logits, view.labels).backward()
            optimiser.step()
        yield prompt


def our_job(clip: Clip, folder: Path, cache: Path, shots: int, seed: int, views: Views, epochs: int | None) -> Job:
    """What the library learns. epochs: instead of the published ones."""
    return prepare(
        Images(clip, FeatureStore(cache)),
        open_dataset(folder),
        "coop",
        model="",
        shots=shots,
        seed=seed,
        recipe=RECIPE,
        views=views,
        overrides={} if epochs is None else {"epochs": epochs},
    )


def both(
    clip: Clip, folder: Path, shots: int, seed: int, *, judge: bool, epochs: int | None = None
) -> dict[str, Clock]:
    """One prompt of each side, epoch by epoch in turn. judge: test after each epoch, on what neither learns from."""
    clocks = {side: Clock() for side in SIDES}
    ours, theirs = clocks.values()
    dataset, judged = open_dataset(folder), Images(clip, FeatureStore(None))
    learned_from = {sample.id for sample in few_shot(dataset, shots, seed).train}
    held = [one for one in (*dataset.train, *dataset.val) if one.id not in learned_from] if judge else []
    judged.features(held, None, quiet=True)
    with tempfile.TemporaryDirectory() as cold:
        ours.starts()
        job = our_job(clip, folder, Path(cold), shots, seed, DEFAULT_VIEWS, epochs)
        spec, published = job.method.prompt, plain(clip, folder, job.method, shots, seed)

        def score(clock: Clock, prompt: nn.Module) -> None:
            answers = Classifier(clip, job.method, prompt, dataset.class_names, job.template)
            clock.accuracy += [found] if (found := accuracy(answers, held, judged)) is not None else []

        def after(state: State) -> None:
            ours.stops()
            score(ours, prompt_at(state, clip, spec, len(dataset.class_names), seed))
            theirs.starts()
            prompt = next(published)
            theirs.stops()
            score(theirs, prompt)
            ours.starts()

        learn(job, job.draw(), Means(device="cpu"), checkpoints=Watch(after=after))
    return clocks


def mean(clocks: Sequence[Clock]) -> Curve:
    """Over seeds."""
    seconds, right = (
        [statistics.fmean(values) for values in zip(*each, strict=True)]
        for each in ([one.seconds for one in clocks], [one.accuracy for one in clocks])
    )
    return Curve(views=DEFAULT_VIEWS, seconds=seconds, accuracy=right)


def near(curves: dict[str, Curve], name: str) -> list[Figure]:
    """The figures of what accuracy means something for; `name` is behind each."""
    out, times = [], {side: curve.reaches(curve.accuracy[-1]) or 0.0 for side, curve in curves.items()}
    for side, curve in curves.items():
        out += [
            Figure(f"{side}_final_{name}", curve.accuracy[-1], "%"),
            Figure(f"{side}_near_{name}", times[side], "s"),
        ]
    out.append(Figure(f"near_ratio_{name}", times["plain"] / times["ours"], "times"))
    same = curves["ours"].reaches(curves["plain"].accuracy[-1])
    return out if same is None else [*out, Figure(f"near_plain_ratio_{name}", times["plain"] / same, "times")]


def whole(seconds: dict[str, float], epochs: int, name: str) -> list[Figure]:
    """The figures of whole schedules."""
    out = [Figure(f"{side}_whole_{name}", value, f"s, {epochs} epochs") for side, value in seconds.items()]
    return [*out, Figure(f"whole_ratio_{name}", seconds["plain"] / seconds["ours"], "times")]


def of_pocket(place: Path, seeds: Sequence[int] = SEEDS) -> list[Figure]:
    """A real model: accuracy counts. Its training and validation images are written as a folder of files first."""
    names = pocket.info(DATA).class_names
    for row in pocket.rows(DATA):
        if row.split != "test":
            file = place / row.split / names[row.label] / f"{row.key.replace('/', '-')}.webp"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pocket.read(row.key))
    clip = load(MODEL)
    runs = [both(clip, place, SHOTS, seed, judge=True) for seed in seeds]
    curves = {side: mean([run[side] for run in runs]) for side in SIDES}
    ends = {side: curve.seconds[-1] for side, curve in curves.items()}
    return [*near(curves, "pocket"), *whole(ends, len(curves["ours"].seconds), "pocket")]


def of_b16(place: Path, seeds: Sequence[int] = SEEDS) -> list[Figure]:
    """ViT-B/16's shape: time alone, of one seed."""
    clocks = both(draw_clip(), write_images(place, FEW, 1), 1, seeds[0], judge=False)
    ends = {side: clock.seconds[-1] for side, clock in clocks.items()}
    return whole(ends, len(clocks["ours"].seconds), "b16")


PARTS = {"pocket": of_pocket, "b16": of_b16}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"default {','.join(PARTS)}")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="of the pocket (default 1)")
    arguments = parser.parse_args()
    found, seeds = list[Figure](), [int(one) for one in arguments.seeds.split(",")]
    for part in arguments.parts.split(","):
        with tempfile.TemporaryDirectory() as place:
            found += PARTS[part](Path(place) / "images", seeds)
    publish(found, arguments.json)


if __name__ == "__main__":
    main()
