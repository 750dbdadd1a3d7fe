"""The text tower at ViT-B/16 size: the plain way and ours in turn, one process each, forward and backward to the context.

    python -m benchmarks.text_tower [--json FILE] [--repeats 5] [--unmasked]

Plain: every class padded to 77 tokens, `nn.MultiheadAttention(need_weights=False)` with a causal mask, frozen weights without
gradients. Both sides hold the same random weights, the same 16 context tokens, 100 real class names and 32 image features, and
return the gradient of the cross-entropy with respect to the context. The processes take turns and see the same noise;
ratios are those of the medians. `--unmasked`: a tower as SigLIP's, 64 rows without a causal mask. Memory is the peak of a step minus
what is resident before it, weights loaded. `share_KIND` and `bf16_share_KIND` say what the profiler saw of one more step of ours, after
the timed ones: the time inside each kind of kernel over that of the step. `bf16_product_gain` is the rate of large matrix products in
bfloat16 over that in float32, which the speedup of a step is to be held against; `fp16_product_gain` the same of small ones in float16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, publish
from benchmarks.process import peak_mib, resident_mib, restart_peak
from benchmarks.text_sides import SIDES

PRODUCT = 2048
"""Side of the square matrices whose product gives the rate that a step is compared with."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "products": ("aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::_softmax", "aten::_scaled_dot_product", "aten::masked_fill"),
    "activation": ("aten::silu", "aten::mul"),
    "norms": ("aten::native_layer_norm",),
    "copies": ("aten::copy_", "aten::index", "aten::cat", "aten::add", "aten::fill_", "aten::constant_pad"),
}
"""Kind of work -> how the names of its kernels begin, the first that fits; what is left is calls and bookkeeping."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures."""

    side: str
    classes: int
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.side}-{self.classes}-{self.dtype}"


PLAIN, OURS, HALF, MANY = (
    Job("plain", 100, "float32"),
    Job("ours", 100, "float32"),
    Job("ours", 100, "bfloat16"),
    Job("ours", 1000, "float32"),
)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def serve(job: Job, gradient_file: Path) -> None:
    """Child process: one step that is measured for memory and work and leaves its gradient; then one timed step per input line."""
    step = SIDES[job.side](job.classes, job.dtype)
    before = resident_mib()
    restart_peak()
    gradient = step()
    peak = peak_mib()
    np.save(gradient_file, gradient.numpy())
    with FlopCounterMode(display=False) as counter:
        step()
    _say({"step_mib": peak - before, "peak_mib": peak, "flops": counter.get_total_flops()})
    large = torch.randn(PRODUCT, PRODUCT).to(getattr(torch, job.dtype))
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        _say({"step_s": time.perf_counter() - begin, "flops_per_s": rate(large, 4)})
    _say(shares(step) if job in (OURS, HALF) else {})


def rate(square: Tensor, times: int) -> float:
    """Operations a second of a matrix's product with itself."""
    begin = time.perf_counter()
    for _ in range(times):
        square @ square
    return times * 2 * len(square) ** 3 / (time.perf_counter() - begin)


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Kind of work -> its share of a step, by the profiler; `calls` is the rest."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    found = dict.fromkeys([*KINDS, "calls"], 0.0)
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "calls")
        found[kind] += event.self_cpu_time_total
    whole = sum(found.values())
    return {kind: spent / whole for kind, spent in found.items()}


def _say(values: dict[str, float]) -> None:
    print(json.dumps(values), flush=True)


@dataclass(slots=True)
class Measured:
    """What one process said."""

    once: dict[str, float]
    each: list[dict[str, float]]
    gradient: Any
    shares: dict[str, float] = field(default_factory=dict)

    def median(self, key: str) -> float:
        return statistics.median(values[key] for values in self.each)

    @property
    def peak_fraction(self) -> float:
        """Share of the matrix-product rate measured with each step."""
        return self.once["flops"] / self.median("step_s") / self.median("flops_per_s")


def measure(jobs: list[Job], repeats: int) -> dict[Job, Measured]:
    """Start a process per job, then time them in turn."""
    out: dict[Job, Measured] = {}
    with tempfile.TemporaryDirectory() as scratch:
        children: dict[Job, subprocess.Popen[str]] = {}
        for job in jobs:
            file = Path(scratch) / f"{job.name}.npy"
            children[job] = _spawn(job, file)
            out[job] = Measured(once=_hear(children[job]), each=[], gradient=np.load(file))
        for _ in range(repeats):
            for job, child in children.items():
                assert child.stdin is not None
                child.stdin.write("step\n")
                child.stdin.flush()
                out[job].each.append(_hear(child))
        for job, child in children.items():
            said, _ = child.communicate()
            out[job].shares = json.loads(said)
    return out


def _spawn(job: Job, file: Path) -> subprocess.Popen[str]:
    options = ["--side", job.side, "--classes", str(job.classes), "--dtype", job.dtype, "--gradient-file", str(file)]
    command = [sys.executable, "-m", "benchmarks.text_tower", *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _hear(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "a side of the benchmark failed; its error is above"
    values: dict[str, float] = json.loads(line)
    return values


def error(ours: Any, theirs: Any) -> float:
    """max |a - b| / max |b|."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def figures(repeats: int) -> list[Figure]:
    """All figures; those of bfloat16 only where the CPU has it."""
    jobs = [PLAIN, OURS, *([HALF] if has_fast_bfloat16() else [])]
    found = measure(jobs, repeats)
    plain, ours = found[PLAIN], found[OURS]
    many = measure([MANY], 0)[MANY]
    out = [
        Figure("plain_s_100", plain.median("step_s"), "s"),
        Figure("ours_s_100", ours.median("step_s"), "s"),
        Figure("time_ratio_100", plain.median("step_s") / ours.median("step_s"), "times"),
        Figure("gradient_error_100", error(ours.gradient, plain.gradient), "max|a-b|/max|b|"),
        Figure("plain_mib_100", plain.once["step_mib"], "MiB"),
        Figure("ours_mib_100", ours.once["step_mib"], "MiB"),
        Figure("memory_ratio_100", plain.once["step_mib"] / ours.once["step_mib"], "times"),
        Figure("peak_gib_1000", many.once["peak_mib"] / 1024, "GiB"),
        Figure("peak_fraction_100", ours.peak_fraction, "of the matrix-product rate"),
        *(Figure(f"share_{kind}", share, "of a step") for kind, share in ours.shares.items()),
        Figure("fp16_product_gain", fp16_gain(), "times"),
    ]
    if HALF not in found:
        print("bfloat16: not measured, this CPU has neither AMX nor AVX512-BF16.")
        return out
    half = found[HALF]
    return [
        *out,
        Figure("bf16_speedup_100", ours.median("step_s") / half.median("step_s"), "times"),
        Figure("bf16_gradient_error_100", error(half.gradient, ours.gradient), "max|a-b|/max|b|"),
        Figure("bf16_peak_fraction_100", half.peak_fraction, "of the matrix-product rate"),
        Figure("bf16_product_gain", half.median("flops_per_s") / ours.median("flops_per_s"), "times"),
        *(Figure(f"bf16_share_{kind}", share, "of a step") for kind, share in half.shares.items()),
    ]


def fp16_gain() -> float:
    """The rate of a small product in float16 over that in float32; where it is below 1, a step is not measured in float16."""
    rates = []
    for dtype in (torch.float16, torch.float32):
        small = torch.randn(256, 256).to(dtype)
        rate(small, 4)
        rates.append(rate(small, 32))
    return rates[0] / rates[1]


def unmasked_figures(repeats: int) -> list[Figure]:
    """A tower without a causal mask: nothing is shared between classes."""
    jobs = [Job("plain-unmasked", 25, "float32"), Job("ours-unmasked", 25, "float32")]
    found = measure(jobs, repeats)
    plain, ours = (found[job] for job in jobs)
    return [
        Figure("plain_unmasked_s_25", plain.median("step_s"), "s"),
        Figure("ours_unmasked_s_25", ours.median("step_s"), "s"),
        Figure("time_ratio_unmasked_25", plain.median("step_s") / ours.median("step_s"), "times"),
        Figure("memory_ratio_unmasked_25", plain.once["step_mib"] / ours.once["step_mib"], "times"),
        Figure("gradient_error_unmasked_25", error(ours.gradient, plain.gradient), "max|a-b|/max|b|"),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side (default 5)")
    parser.add_argument("--unmasked", action="store_true", help="a tower without a causal mask, as SigLIP's")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--classes", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--gradient-file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(Job(arguments.side, arguments.classes, arguments.dtype), arguments.gradient_file)
    else:
        publish((unmasked_figures if arguments.unmasked else figures)(arguments.repeats), arguments.json)


if __name__ == "__main__":
    main()
