"""What a GPU does of prompt learning: steps by the number of classes, images through the tower, and images decoded at the same time.

    python -m benchmarks.gpu [--json FILE] [--device cuda] [--dtype bfloat16] [--compile] [--sizes b16,l14] [--classes 100,1000]
    python -m benchmarks.gpu --device cpu --dtype float32 --tiny      # shows that it runs, no more

Random weights in the size of ViT-B/16 and ViT-L/14. A step is CoOp's, 16 tokens and 32 cached image features, forward and backward, its
text rows in parts of 4,096. `step_share` is its matrix products over the rate of one large product on the same device and type, and
the time of the step; a row costs 24 x width^2 operations a layer forward and as many backward, and as many once more where rows run
in parts. `--compile` runs the blocks through torch.compile; the first steps, which compile, are not counted. Images a second are those
of the frozen tower, and those that processes of the CPU decode from JPEG files of 500 x 375 into one published crop.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import process
from benchmarks.figures import Figure, publish
from benchmarks.text_sides import class_names
from vlprompt.data import Sample, train_view
from vlprompt.data.images import picture
from vlprompt.engine.train import new_prompt
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.towers.config import ClipConfig
from vlprompt.towers.random_clip import VIT_B16, draw_clip, tower
from vlprompt.types import BARE, Preprocess

L14 = replace(VIT_B16, embed_dim=768, text=tower(768, 12), image=tower(1024, 24), patch_size=14)
TINY = replace(VIT_B16, embed_dim=64, text=tower(64, 2), image=tower(64, 2), image_size=32)
SIZES = {"b16": VIT_B16, "l14": L14, "tiny": TINY}
ROWS, IMAGES, CONTEXT, WARM = 4096, 32, 16, 2


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of a call, when the device has done its work."""
    times = []
    for number in range(WARM + repeats):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        if number >= WARM:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def wait(device: torch.device) -> None:
    """Until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> float:
    """GiB: of the device, else of the process."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else process.peak_mib() / 1024


def product_rate(clip: Clip, side: int, repeats: int) -> float:
    """Operations a second of one square product."""
    one = torch.randn(side, side, device=clip.device, dtype=clip.dtype)
    return 2 * side**3 / seconds(lambda: one @ one, clip.device, repeats)


def of_classes(clip: Clip, number: int, rate: float, repeats: int) -> dict[str, float]:
    """A step on so many classes."""
    spec = resolve("coop", {"n_ctx": CONTEXT}).prompt
    prompt = new_prompt(clip, spec, number, 0)
    tokens = clip.class_tokens(class_names(number), spec.layout, "a photo of a {}.")
    images_BE = F.normalize(torch.randn(IMAGES, clip.config.embed_dim, device=clip.device), dim=-1)
    labels_B = torch.arange(IMAGES, device=clip.device) % number
    parameters = list(prompt.parameters())
    rows = len(tokens.own.ids)

    def step() -> None:
        text_CE = clip.encode_text(tokens, prompt(), max_rows=ROWS).pooled.float()
        loss = F.cross_entropy(clip.logit_scale * images_BE @ F.normalize(text_CE, dim=-1).T, labels_B)
        torch.autograd.grad(loss, parameters)

    if clip.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = seconds(step, clip.device, repeats)
    text = clip.config.text
    passes = 3 if rows > ROWS else 2
    work = passes * 24 * text.width**2 * text.layers * (rows + CONTEXT + 1)
    return {"step_s": took, "step_share": work / took / rate, "peak_gib": peak(clip.device)}


def encoded(clip: Clip, batch: int, repeats: int) -> float:
    """Images a second through the frozen tower."""
    side = clip.config.image_size
    pixels = torch.randn(batch, 3, side, side, device=clip.device)
    with torch.no_grad():
        return batch / seconds(lambda: clip.encode_images(pixels, BARE), clip.device, repeats)


def picture_file() -> bytes:
    """A JPEG of 500 x 375 with some structure."""
    rng = np.random.RandomState(0)
    small = Image.fromarray(rng.randint(0, 256, (24, 32, 3)).astype(np.uint8)).resize((500, 375))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=90)
    return out.getvalue()


def decode(preprocess: Preprocess, number: int) -> int:
    """What a worker process does: so many images from a file's bytes to pixels."""
    data = picture_file()
    for one in range(number):
        sample = Sample(id=str(one), label=0, source=lambda: data)
        train_view(picture(sample), preprocess, sample.content_hash, one)
    return number


def decoded(clip: Clip, workers: int, number: int) -> float:
    """Images a second that so many processes decode."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(decode, [clip.preprocess] * workers, [1] * workers))  # they have started
        began = time.perf_counter()
        total = sum(pool.map(decode, [clip.preprocess] * workers, [number] * workers))
        return total / (time.perf_counter() - began)


def figures_of(name: str, shape: ClipConfig, arguments: argparse.Namespace) -> list[Figure]:
    """All figures of a size."""
    clip = draw_clip(shape, device=arguments.device, dtype=arguments.dtype)
    if arguments.compile:
        for block in (*clip.text_tower.transformer.resblocks, *clip.visual.transformer.resblocks):
            block.finish = torch.compile(block.finish)
    rate = product_rate(clip, 256 if arguments.tiny else 8192, arguments.repeats)
    out = [Figure(f"product_tflops_{name}", rate / 1e12, "10^12 operations a second")]
    units = {"step_s": "s", "step_share": "of the product's rate", "peak_gib": "GiB"}
    for number in map(int, arguments.classes.split(",")):
        found = of_classes(clip, number, rate, arguments.repeats)
        out += [Figure(f"{key}_{name}_{number}", value, units[key]) for key, value in found.items()]
    batch = 2 if arguments.tiny else 256
    need = encoded(clip, batch, arguments.repeats)
    have = decoded(clip, arguments.workers, 2 if arguments.tiny else 500)
    return [
        *out,
        Figure(f"encoded_{name}", need, "images a second"),
        Figure(f"decoded_{name}", have, f"images a second, {arguments.workers} processes"),
        Figure(f"decoded_over_encoded_{name}", have / need, "times"),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sizes", default="b16,l14", help=f"allowed: {', '.join(SIZES)}")
    parser.add_argument("--classes", default="100,1000,10000,21841")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps (default 10)")
    parser.add_argument("--workers", type=int, default=8, help="processes that decode (default 8)")
    parser.add_argument("--compile", action="store_true", help="the blocks' projection, LayerNorm and MLP, compiled")
    parser.add_argument("--tiny", action="store_true", help="a small model, few classes and one repeat")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here. --device cpu --dtype float32 --tiny shows that the benchmark runs.")
    if arguments.tiny:
        arguments.sizes, arguments.classes, arguments.repeats, arguments.workers = "tiny", "3,40", 1, 1
    wrong = [size for size in arguments.sizes.split(",") if size not in SIZES]
    if wrong:
        parser.error(f"--sizes {wrong[0]!r} is unknown. Allowed: {', '.join(SIZES)}.")
    found = [one for size in arguments.sizes.split(",") for one in figures_of(size, SIZES[size], arguments)]
    publish(found, arguments.json)


if __name__ == "__main__":
    main()
