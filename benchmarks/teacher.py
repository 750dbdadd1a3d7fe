"""What a teacher of another size costs: RPP's step on ViT-B/16's shape, taught by itself, and by ViT-L/14's shape.

    python -m benchmarks.teacher [--json FILE] [--batch 4] [--classes 20] [--repeats 3]

Random weights, as many numbers as the published models have. Three ways in turn, to see the same noise: the frozen model
itself teaches, whose image features are computed in the step; the large one, on fresh views; the large one, whose features of fixed
views come from the cache. The teacher's class features are computed once per run and are not in a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.class_names import CLASS_NAMES
from benchmarks.figures import Figure, publish
from vlprompt.engine.forward import Forward
from vlprompt.engine.step import gradients_of, weighted
from vlprompt.engine.teacher import Teacher
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.towers.random_clip import VIT_B16, draw_clip, tower

VIT_L14 = replace(VIT_B16, embed_dim=768, text=tower(768, 1), image=tower(1024, 24), patch_size=14)
"""Its image tower; the text tower is not in a step, and is one layer here."""
TEMPLATE = "a photo of a {}."


def seconds(clip: Clip, large: Teacher, batch: int, classes: int, repeats: int) -> dict[str, float]:
    """Way -> median seconds of a step."""
    method, names = resolve("rpp", facts=clip.facts), CLASS_NAMES[:classes]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, clip.config.image_size, clip.config.image_size, generator=generator)
    labels = torch.randint(0, classes, (batch,), generator=generator)
    prompt = method.prompt.build(clip.facts, generator, classes)
    parameters = list(prompt.parameters())
    own = Forward(clip, method, names, TEMPLATE)
    other = Forward(clip, method, names, TEMPLATE, taught=large)
    kept = torch.randn(batch, large.clip.facts.embed_dim, generator=generator)

    def step(way: str) -> None:
        frozen: Tensor | None = None
        taught: Tensor | None = None
        with torch.no_grad():
            if way == "itself":
                frozen = clip.encode_images(pixels).pooled
            elif way == "large":
                taught = large.embed(pixels)
            else:
                taught = kept
        forward = own if way == "itself" else other
        gradients_of(
            method, weighted(method.terms, forward(prompt, labels, frozen, pixels, taught_BE=taught)), parameters
        )

    took: dict[str, list[float]] = {"itself": [], "large": [], "cached": []}
    for repeat in range(1 + repeats):
        for way, times in took.items():
            began = time.perf_counter()
            step(way)
            if repeat:
                times.append(time.perf_counter() - began)
    return {way: statistics.median(times) for way, times in took.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--batch", type=int, default=4, help="images of a step (default 4)")
    parser.add_argument("--classes", type=int, default=20, help="classes of a step (default 20)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each way (default 3)")
    given = parser.parse_args()
    large = Teacher(draw_clip(VIT_L14, seed=1), None)
    took = seconds(draw_clip(), large, given.batch, given.classes, given.repeats)
    figures = [Figure(f"step_{way}_s", value, "s") for way, value in took.items()]
    ratios = [Figure(f"{way}_over_itself", took[way] / took["itself"], "times") for way in ("large", "cached")]
    publish([*figures, *ratios], given.json)


if __name__ == "__main__":
    main()
