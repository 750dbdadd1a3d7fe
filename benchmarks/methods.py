"""Training steps of the methods at ViT-B/16 size: the plain way and ours in turn, one process each.

    python -m benchmarks.methods [--json FILE] [--repeats 3] [--methods coop,maple] [--pairs 15]

Random weights, 100 real class names; 32 images a step for methods that prompt the text alone, 4 for the others and for CoCoOp. Plain:
every class padded to 77 tokens, `nn.MultiheadAttention(need_weights=False)` with a causal mask, frozen weights without gradients, every
image through the image tower at every step (CoCoOp: a backward pass per image). Ours: the library's own step, frozen image features from
the cache. Both start from decoded pixels and end with the gradient of every learned tensor, which must agree.

For each method ID (`-` written `_`):
  time_ratio_ID                    plain over ours, medians; three steps of ours are timed with each plain one
  memory_ratio_ID                  plain over ours: peak of a step minus what is resident before it
  gradient_error_ID                max |a - b| / max |b|, the worst learned tensor
  image_ratio_ID                   our step over the image tower's own forward and backward with the same prompt, where that is prompted
  product_ratio_ID                 the same for the operations of matrix products, counted: what a step cannot go below
  bf16_speedup_ID                  our float32 over our bfloat16, where this CPU has it
and plpp_overhead_coop: a step of plpp+coop over one of coop, the median of alternating pairs in one process.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, publish
from benchmarks.methods_sides import SIDES, image_step, made, our_step, products, random_clip
from benchmarks.text_tower import error, has_fast_bfloat16
from vlprompt.errors import UserError
from vlprompt.methods.resolve import HOSTS, takes_steps
from vlprompt.towers.random_clip import VIT_B16

CLASSES = 100
REACH = {"coop": 25, "kgcoop": 25, "cocoop": 8, "maple": 4, "ivlp": 4, "promptsrc": 4, "rpp": 4}
"""The methods that are measured where none are named, and the time ratio that is aimed at."""
NOT_TOKENS = ("clip-adapter", "tip-adapter-f", "clip-lora", "tcp", "promptkd")
"""The plain side knows tokens alone: no changed weights, no function after a tower, no tokens made of class features."""
LEARNING = tuple(host.name for host in HOSTS if takes_steps(host) and host.name not in NOT_TOKENS)
OURS = 3
"""Timed steps of ours for one of the plain side, which takes many times longer."""
OVERHEAD = "plpp_overhead_coop"


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures."""

    method: str
    side: str
    dtype: str

    @property
    def options(self) -> list[str]:
        return ["--side", self.side, "--dtype", self.dtype, "--methods", self.method]


@dataclass(slots=True)
class Measured:
    """What one process said."""

    step_mib: float
    products: float
    """Over the image tower's own; 0 where that is not prompted."""
    gradients: dict[str, np.ndarray]
    steps: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(self.steps)


def serve(job: Job, gradient_file: Path) -> None:
    """Child process: one step that is measured for memory and leaves its gradients; then one timed step per input line."""
    clip = random_clip(VIT_B16, job.dtype)
    task = made(job.method, clip, CLASSES)
    step = SIDES[job.side](task, clip)
    ctypes.CDLL(None).malloc_trim(0)  # what the preparation has freed is not a step's to use
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # start the peak anew
    found = step()
    peak = _status("VmHWM")
    np.savez(gradient_file, **{name: one.numpy() for name, one in found.items()})
    steps = {"step": step, "image": image_step(task, clip)}
    ratio = products(step) / products(steps["image"]) if _prompts_image(job) else 0.0
    print(json.dumps({"step_mib": peak - before, "image": _prompts_image(job), "products": ratio}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        steps[line.strip()]()
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)


def _prompts_image(job: Job) -> bool:
    host = next(host for host in HOSTS if host.name == job.method)
    return job.side == "ours" and host.prompt.reach.image_tower


def _status(field_name: str) -> float:
    """A field of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {field_name} in /proc/self/status")


class Child:
    """A process that measures one job."""

    def __init__(self, job: Job, file: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.methods", *job.options, "--gradient-file", str(file)]
        self.job = job
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        once = self._hear()
        self.image = bool(once["image"])
        with np.load(file) as arrays:
            self.found = Measured(step_mib=once["step_mib"], products=once["products"], gradients=dict(arrays))

    def _hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.job} failed; its error is above"
        values: dict[str, float] = json.loads(line)
        return values

    def _time(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._hear()["seconds"]

    def turn(self) -> None:
        """One timed step of the plain side, or several of ours, each with one of the image tower alone where the method prompts it."""
        for _ in range(1 if self.job.side == "plain" else OURS):
            self.found.steps.append(self._time("step"))
            if self.image:
                self.found.images.append(self._time("image"))

    def end(self) -> Measured:
        self.process.communicate()
        return self.found


def measure(jobs: Sequence[Job], repeats: int) -> list[Measured]:
    """Start a process per job, then time them in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        children = [Child(job, Path(scratch) / f"{number}.npz") for number, job in enumerate(jobs)]
        for _ in range(repeats):
            for child in children:
                child.turn()
        return [child.end() for child in children]


def figures_of(method: str, repeats: int) -> list[Figure]:
    """All figures of a method; that of bfloat16 only where the CPU has it."""
    jobs = [Job(method, "plain", "float32"), Job(method, "ours", "float32")]
    jobs += [Job(method, "ours", "bfloat16")] if has_fast_bfloat16() else []
    plain, ours, *half = measure(jobs, repeats)
    key = method.replace("-", "_")
    worst = max(error(ours.gradients[name], one) for name, one in plain.gradients.items() if np.abs(one).max() > 0)
    out = [
        Figure(f"plain_s_{key}", plain.seconds, "s"),
        Figure(f"ours_s_{key}", ours.seconds, "s"),
        Figure(f"time_ratio_{key}", plain.seconds / ours.seconds, "times"),
        Figure(f"plain_mib_{key}", plain.step_mib, "MiB"),
        Figure(f"ours_mib_{key}", ours.step_mib, "MiB"),
        Figure(f"memory_ratio_{key}", plain.step_mib / ours.step_mib, "times"),
        Figure(f"gradient_error_{key}", worst, "max|a-b|/max|b|"),
    ]
    if ours.images:
        alone = statistics.median(ours.images)
        out += [
            Figure(f"image_ratio_{key}", ours.seconds / alone, "of the image tower's own"),
            Figure(f"product_ratio_{key}", ours.products, "of the image tower's own, counted"),
        ]
    return out + [Figure(f"bf16_speedup_{key}", ours.seconds / one.seconds, "times") for one in half]


def overhead(pairs: int) -> Figure:
    """A step with PLPP over one without, in turn, each pair in the other order than the one before."""
    clip = random_clip(VIT_B16)
    steps = [our_step(made(name, clip, CLASSES), clip) for name in ("coop", "plpp+coop")]
    for step in steps:
        step()
    ratios = []
    for pair in range(pairs):
        seconds = [0.0, 0.0]
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            begin = time.perf_counter()
            steps[which]()
            seconds[which] = time.perf_counter() - begin
        ratios.append(seconds[1] / seconds[0])
    return Figure(OVERHEAD, statistics.median(ratios), "times")


def figures(methods: Sequence[str], repeats: int, pairs: int) -> list[Figure]:
    """Method by method, said as they come; PLPP's overhead last."""
    if not has_fast_bfloat16():
        print("bfloat16: not measured, this CPU has neither AMX nor AVX512-BF16.", flush=True)
    out: list[Figure] = []
    for method in methods:
        found = figures_of(method, repeats)
        ratio = next(one.value for one in found if one.name.startswith("time_ratio"))
        if ratio < REACH.get(method, 0):
            print(f"{method}: {ratio:.1f} times, short of {REACH[method]}", flush=True)
        publish(found, None)
        out += found
    return [*out, overhead(pairs)] if pairs else out


def parse_methods(text: str) -> list[str]:
    """`coop,maple` -> names of methods that learn in steps."""
    names = text.split(",")
    wrong = [name for name in names if name not in LEARNING]
    if wrong:
        raise UserError(f"--methods {wrong[0]!r} does not learn in steps. Allowed: {', '.join(LEARNING)}.")
    return names


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of the plain side (default 3)")
    parser.add_argument("--pairs", type=int, default=15, help="pairs for plpp_overhead_coop (default 15; 0: without)")
    parser.add_argument("--methods", default=",".join(REACH), help=f"default {','.join(REACH)}")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--gradient-file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        names = parse_methods(arguments.methods)
    except UserError as problem:
        parser.error(str(problem))
    if arguments.side:
        serve(Job(names[0], arguments.side, arguments.dtype), arguments.gradient_file)
        return
    found = figures(names, arguments.repeats, arguments.pairs)
    print()
    publish(found, arguments.json)


if __name__ == "__main__":
    main()
