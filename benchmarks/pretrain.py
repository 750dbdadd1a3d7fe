"""One step of prompt pretraining at ViT-B/16's size, by the number of classes that it sees.

    python -m benchmarks.pretrain [--json FILE] [--classes 100,1000,10450,21841] [--repeats 3]

Random weights, class names as long as ImageNet's (`benchmarks.long_class_lists`), float32 on the CPU unless --device and --dtype
say otherwise. A step is the text side of RPP on all N classes at once (unshared tokens in nine layers, cross-entropy and
distillation over all N, 32 images with cached features), its text rows run in parts of --rows and, where there are several parts,
computed once more in the backward pass; it goes through the library's own forward pass, losses and gradients. `text_s` is the text
tower's share of it, `text_cpu_s` the same in processor seconds, which other programs on the machine do not lengthen; growth with
the class tokens is told by it. The teacher's class features are computed once per run, before the first step, and are not in it.
Each N has its own process, whose peak memory is read from the system. `image_..._s` is what one image costs in a step where
the image tower is prompted too: the frozen teacher's forward pass, and RPP's forward and backward pass; `whole_step_s` is a
step of both towers, to which the parts should add up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import process
from benchmarks.figures import Figure, publish
from benchmarks.long_class_lists import long_class_list
from benchmarks.text_sides import random_clip
from vlprompt.engine.classes import said_of
from vlprompt.engine.forward import Forward
from vlprompt.engine.optim import optimiser_of
from vlprompt.engine.step import gradients_of, take, weighted
from vlprompt.engine.train import new_prompt
from vlprompt.methods.resolve import resolve
from vlprompt.pretrain.run import CHUNK_ROWS
from vlprompt.towers import Clip
from vlprompt.towers.config import TowerConfig
from vlprompt.types import BARE, Features

CLASSES = (100, 1000, 10450, 21841)
IMAGES, IMAGES_OF_TOWER = 32, 8
TOWER = TowerConfig(width=768, layers=12, heads=12, hidden=3072, activation="quick_gelu")
"""ViT-B/16's image tower."""


class Mark:
    """A moment: seconds on the clock, when the device has done its work, and processor seconds of this process."""

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.clock, self.processor = time.perf_counter(), time.process_time()

    def since(self, before: Mark) -> tuple[float, float]:
        """(seconds, processor seconds) from a moment to this one."""
        return self.clock - before.clock, self.processor - before.processor


def measure_text(clip: Clip, number: int, repeats: int, max_rows: int) -> dict[str, float]:
    """Steps on `number` classes: the median of their times, and of the text tower's share."""
    names = long_class_list(clip.tokenizer, number)
    method = resolve("rpp", {"towers": "text"})
    forward = Forward(clip, replace(method, learner=None), names, "a photo of a {}.", max_rows=max_rows)
    forward.needs = method.needs
    generator = torch.Generator().manual_seed(1)
    forward.frozen_text = Features(pooled=torch.randn(number, 512, generator=generator).to(clip.device))
    prompt = new_prompt(clip, method.prompt, number, 0)
    optimiser = optimiser_of(prompt.parameters(), method.schedule)
    frozen = torch.randn(IMAGES, 512, generator=generator).to(clip.device)
    labels = torch.randint(0, number, (IMAGES,), generator=generator).to(clip.device)
    assert said_of(method.steps.classes, number) is None
    steps: list[float] = []
    texts: list[tuple[float, float]] = []
    for _ in range(repeats):
        begin = Mark(clip.device)
        took, arrived = _watch(forward)
        view = forward(prompt, labels, frozen, None)
        found = gradients_of(method, weighted(method.terms, view), list(prompt.parameters()))
        back = Mark(clip.device).since(arrived[0])
        take(optimiser, list(prompt.parameters()), found)
        steps.append(Mark(clip.device).since(begin)[0])
        texts.append((took[0][0] + back[0], took[0][1] + back[1]))
    return {
        "step_s": statistics.median(steps),
        "text_s": statistics.median(one for one, _ in texts),
        "text_cpu_s": statistics.median(one for _, one in texts),
        "tokens": len(forward.tokens.own.ids),
    }


def _watch(forward: Forward) -> tuple[list[tuple[float, float]], list[Mark]]:
    """Filled by the next pass: what the text's forward pass takes, and when its gradient arrives in the backward pass."""
    took: list[tuple[float, float]] = []
    arrived: list[Mark] = []
    device, real = forward.clip.device, Forward.class_features

    def watched(*arguments: object, **options: object) -> Features:
        begin = Mark(device)
        text = real(forward, *arguments, **options)  # type: ignore[arg-type]
        took.append(Mark(device).since(begin))
        text.pooled.register_hook(lambda _: arrived.append(Mark(device)))
        return text

    forward.class_features = watched  # type: ignore[method-assign]
    return took, arrived


def measure_images(clip: Clip, repeats: int) -> dict[str, float]:
    """Seconds an image: the frozen tower's forward pass, and a prompted forward and backward pass."""
    method = resolve("rpp", {"towers": "image"})
    prompt = new_prompt(clip, method.prompt, 2, 0)
    pixels = torch.randn(IMAGES_OF_TOWER, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(clip.device)
    frozen, learned = [], []
    for _ in range(repeats):
        begin = Mark(clip.device)
        with torch.no_grad():
            clip.encode_images(pixels, BARE)
        middle = Mark(clip.device)
        pooled: Tensor = clip.encode_images(pixels, prompt()).pooled
        torch.autograd.grad(pooled.square().sum(), list(prompt.parameters()), allow_unused=True)
        frozen.append(middle.since(begin))
        learned.append(Mark(clip.device).since(middle))
    found = {"frozen": frozen, "learned": learned}
    return {
        f"{name}_{clock}": statistics.median(one[place] for one in each) / IMAGES_OF_TOWER
        for name, each in found.items()
        for place, clock in enumerate(("s", "cpu_s"))
    }


def measure_whole(clip: Clip, repeats: int) -> dict[str, float]:
    """A whole RPP step of both towers on a few images and 100 classes: what the parts should add up to."""
    method = resolve("rpp", {})
    forward = Forward(clip, method, long_class_list(clip.tokenizer, 100), "a photo of a {}.")
    prompt = new_prompt(clip, method.prompt, 100, 0)
    pixels = torch.randn(IMAGES_OF_TOWER, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(clip.device)
    labels = torch.arange(IMAGES_OF_TOWER, device=clip.device)
    took = []
    for _ in range(repeats):
        begin = Mark(clip.device)
        with torch.no_grad():
            frozen = clip.encode_images(pixels).pooled
        view = forward(prompt, labels, frozen, pixels)
        gradients_of(method, weighted(method.terms, view), list(prompt.parameters()))
        took.append(Mark(clip.device).since(begin))
    clocks = {clock: statistics.median(one[place] for one in took) for place, clock in enumerate(("s", "cpu_s"))}
    return {f"whole_{clock}": value for clock, value in clocks.items()}


def serve(arguments: argparse.Namespace) -> None:
    """Child process: one measurement, as JSON on standard output."""
    number = arguments.number
    size = {"image": TOWER, "image_size": 224} if number == 0 else {}
    clip = random_clip(arguments.dtype, **size).to(arguments.device)
    found = (
        measure_text(clip, number, arguments.repeats, arguments.rows)
        if number
        else measure_images(clip, arguments.repeats)
    )
    found |= measure_whole(clip, arguments.repeats) if not number else {}
    gpu = clip.device.type == "cuda"
    found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30 if gpu else process.peak_mib() / 1024
    print(json.dumps(found), flush=True)


def ask(arguments: argparse.Namespace, number: int) -> dict[str, float]:
    """One measurement in its own process. number 0: the image tower."""
    options = [
        "--repeats",
        str(repeats_of(arguments, number)),
        "--device",
        arguments.device,
        "--dtype",
        arguments.dtype,
    ]
    command = [
        sys.executable,
        "-m",
        "benchmarks.pretrain",
        "--number",
        str(number),
        "--rows",
        str(arguments.rows),
        *options,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def repeats_of(arguments: argparse.Namespace, number: int) -> int:
    """Repetitions: one at the top, where a step takes minutes on a CPU."""
    return arguments.repeats if number < 10_000 or arguments.device != "cpu" else 1


def figures(arguments: argparse.Namespace) -> list[Figure]:
    """All figures."""
    images = ask(arguments, 0)
    out = [
        Figure("image_frozen_s", images["frozen_s"], "s an image"),
        Figure("image_learned_s", images["learned_s"], "s an image"),
        Figure("image_frozen_cpu_s", images["frozen_cpu_s"], "s an image"),
        Figure("image_learned_cpu_s", images["learned_cpu_s"], "s an image"),
        Figure("whole_step_s", images["whole_s"], f"s, {IMAGES_OF_TOWER} images and 100 classes"),
        Figure("whole_step_cpu_s", images["whole_cpu_s"], f"s, {IMAGES_OF_TOWER} images and 100 classes"),
    ]
    per_token = {}
    for number in [int(one) for one in arguments.classes.split(",")]:
        found = ask(arguments, number)
        per_token[number] = found["text_cpu_s" if arguments.device == "cpu" else "text_s"] / found["tokens"]
        out += [
            Figure(f"step_s_{number}", found["step_s"], "s"),
            Figure(f"text_s_{number}", found["text_s"], "s"),
            Figure(f"text_cpu_s_{number}", found["text_cpu_s"], "s"),
            Figure(f"class_tokens_{number}", found["tokens"], "rows"),
            Figure(f"peak_gib_{number}", found["peak_gib"], "GiB"),
        ]
        print(f"{number} classes: {found}", file=sys.stderr, flush=True)
    top = max(per_token)
    if 1000 in per_token and top > 1000:
        out.append(Figure("text_growth", per_token[top] / per_token[1000], f"of linear, {top} against 1000 classes"))
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--classes", default=",".join(map(str, CLASSES)), help="numbers of classes")
    parser.add_argument("--repeats", type=int, default=3, help="steps below 10,000 classes (default 3)")
    parser.add_argument("--rows", type=int, default=CHUNK_ROWS, help="text rows that are run at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.number is not None:
        serve(arguments)
    else:
        publish(figures(arguments), arguments.json)


if __name__ == "__main__":
    main()
