"""What it saves that frozen image features are computed once: a second epoch, and a second method, against the first.

    python -m benchmarks.feature_cache [--json FILE]

ViT-B/16's size with random weights, 64 images of 224 x 224 in 16 classes, one view, batches of 32, float32. The first epoch of CoOp
finds an empty cache on disk; its second epoch, and the first epoch of KgCoOp, which opens that cache anew, find it full. An epoch's
seconds are wall time from the call (or from the end of the epoch before) until its state would be saved: reading and decoding
images, the frozen tower, prompts, text tower, losses, gradients and steps; loading the model is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.class_names import CLASS_NAMES
from benchmarks.figures import Figure, publish
from benchmarks.text_sides import random_clip
from vlprompt.data import FeatureStore, open_dataset
from vlprompt.engine.checkpoint import Watch
from vlprompt.engine.images import Images
from vlprompt.engine.train import Lesson, train
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.towers.config import TowerConfig

IMAGES, CLASSES, SIDE = 64, 16, 224
VIT_B16 = TowerConfig(width=768, layers=12, heads=12, hidden=4 * 768, activation="quick_gelu")


def write_images(root: Path, classes: int = CLASSES, each: int = IMAGES // CLASSES) -> Path:
    """Noise in class folders, always the same."""
    rng = np.random.RandomState(0)
    for name in CLASS_NAMES[:classes]:
        place = root / "train" / name.replace("/", " ")
        place.mkdir(parents=True)
        for i in range(each):
            pixels = rng.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def epochs(clip: Clip, data: Path, cache: Path, method: str, number: int) -> list[float]:
    """Seconds of each epoch of a method, with a cache opened for it."""
    dataset = open_dataset(data)
    lesson = Lesson(samples=dataset.train, class_names=dataset.class_names, template=dataset.template, seed=1, views=1)
    chosen = resolve(method, {"epochs": number, "batch": 32, "n_ctx": 16, "init": "normal"})
    times: list[float] = []
    watch = Watch(after=lambda _: times.append(time.perf_counter()))
    begin = time.perf_counter()
    train(clip, chosen, lesson, Images(clip, FeatureStore(cache)), checkpoints=watch)
    return [later - earlier for earlier, later in zip([begin, *times], times)]


def figures() -> list[Figure]:
    """One cold run and two warm ones."""
    clip = random_clip(image=VIT_B16, image_size=SIDE)
    with tempfile.TemporaryDirectory() as scratch:
        data, warmth = write_images(Path(scratch) / "noise"), write_images(Path(scratch) / "warmth")
        epochs(
            random_clip(), warmth, Path(scratch) / "other", "coop", 1
        )  # libraries start up outside of what is measured
        first, second = epochs(clip, data, Path(scratch) / "cache", "coop", 2)
        (other,) = epochs(clip, data, Path(scratch) / "cache", "kgcoop", 1)
    return [
        Figure("first_epoch_s", first, "s"),
        Figure("second_epoch_s", second, "s"),
        Figure("second_method_s", other, "s"),
        Figure("second_epoch_ratio", first / second, "times"),
        Figure("second_method_ratio", first / other, "times"),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    publish(figures(), parser.parse_args().json)


if __name__ == "__main__":
    main()
