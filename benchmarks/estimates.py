"""What `vlprompt train` says before it learns, memory and time, over what learning then takes; at ViT-B/16's text size.

    python -m benchmarks.estimates [--json FILE] [--steps 2]

One process per number of classes and limit (`--max-memory`): CoOp with 16 context tokens on 32 images, through the library's own
loop. The peak is the whole process's, weights included; the time is that of the loop, images already encoded on neither side.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, publish
from benchmarks.process import peak_mib, restart_peak
from benchmarks.text_sides import NUM_CONTEXT, class_names, random_clip
from vlprompt.data import FeatureStore, Sample
from vlprompt.engine.duration import measure
from vlprompt.engine.images import Images
from vlprompt.engine.memory import parse_bytes
from vlprompt.engine.train import Lesson, estimate_step, train
from vlprompt.methods.resolve import resolve

JOBS = ((100, ""), (100, "4G"), (1000, ""), (1000, "4G"), (1000, "1G"))
"""Classes and limits; the last is one that binds."""
BATCH = 32


def samples(num_classes: int) -> list[Sample]:
    """As many noisy images as a batch has, of the first classes."""
    rng = np.random.RandomState(0)
    out = []
    for i in range(BATCH):
        buffer = io.BytesIO()
        Image.fromarray(rng.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(buffer, "PNG")
        out.append(Sample(id=f"{i}.png", label=i % num_classes, source=buffer.getvalue))
    return out


def serve(num_classes: int, limit: str, steps: int) -> None:
    """Child process: the estimates, and then what learning takes."""
    clip = random_clip()
    method = resolve("coop", {"n_ctx": NUM_CONTEXT, "epochs": steps, "batch": BATCH})
    lesson = Lesson(
        samples=samples(num_classes),
        class_names=tuple(class_names(num_classes)),
        template="a photo of a {}.",
        seed=1,
        views=1,
        max_memory=parse_bytes(limit) if limit else None,
    )
    images = Images(clip, FeatureStore(None))
    images.prepare(lesson.samples, [0])
    need = estimate_step(clip, method, lesson)
    estimated = measure(clip, method, lesson, images, max_rows=need.max_rows)
    restart_peak()
    began = time.perf_counter()
    train(clip, method, lesson, images)
    took, peak = time.perf_counter() - began, peak_mib()
    found = {"memory": need.total / 2**20, "peak": peak, "time": estimated.seconds, "took": took}
    print(json.dumps({**found, "max_rows": need.max_rows or need.rows}))


def figures(steps: int) -> list[Figure]:
    """Estimate and measurement of every job, and their ratio."""
    out = []
    for num_classes, limit in JOBS:
        options = ["--classes", str(num_classes), "--limit", limit, "--steps", str(steps)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.estimates", *options], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        name = f"{num_classes}_{limit}" if limit else f"{num_classes}"
        out += [
            Figure(f"rows_at_once_{name}", found["max_rows"], "own text rows"),
            Figure(f"peak_mib_{name}", found["peak"], "MiB"),
            Figure(f"memory_estimate_over_peak_{name}", found["memory"] / found["peak"], "times"),
            Figure(f"step_s_{name}", found["took"] / steps, "s"),
            Figure(f"time_estimate_over_measured_{name}", found["time"] / found["took"], "times"),
        ]
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--steps", type=int, default=2, help="steps of each job (default 2)")
    parser.add_argument("--classes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--limit", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.classes:
        serve(arguments.classes, arguments.limit, arguments.steps)
    else:
        publish(figures(arguments.steps), arguments.json)


if __name__ == "__main__":
    main()
