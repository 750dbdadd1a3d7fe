"""Devices, their clocks, threads and seeds: the one place that knows them at the level of a run."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from pathlib import Path

import torch

from vlprompt import __version__
from vlprompt.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")
SIDE = 256
"""Of the matrices whose product is timed: a fifth of a second in the worst case seen."""
NOTICED = 1.5
"""Times slower than float32 from which a type is called slow (project's choice)."""


def resolve_device(device: str) -> torch.device:
    """`auto` (CUDA, then MPS, then CPU), `cpu`, `cuda`, `cuda:N` or `mps` -> the device. UserError if it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise UserError(f"unknown device {device!r}. Allowed: auto, cpu, cuda, cuda:0, cuda:1, ..., mps.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device 'cuda' was asked for, but torch sees no CUDA device. Use --device auto or --device cpu."
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UserError(f"device {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' was asked for, but torch sees none. Use --device auto or --device cpu.")
    return torch.device(device)


def generator(*parts: object) -> torch.Generator:
    """A CPU generator whose state depends on the parts alone, for example ("order", seed, epoch); independent between parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so a clock says what the work took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_name(device: torch.device) -> str:
    """What a time was measured on, for people: ``NVIDIA A100-SXM4-80GB``, or the processor and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} ({platform.machine()})"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    threads = torch.get_num_threads()
    return f"{named or platform.processor() or platform.machine()}, {threads} thread{'s' * (threads != 1)}"


def slowdown(dtype: torch.dtype, device: torch.device) -> float:
    """How many times as long a matrix product takes in `dtype` as in float32, measured on this device."""
    return _product_seconds(dtype, device) / _product_seconds(torch.float32, device)


def _product_seconds(dtype: torch.dtype, device: torch.device) -> float:
    """The quickest of three products of two SIDE x SIDE matrices, after one that warms up."""
    matrix = torch.full((SIDE, SIDE), 1 / SIDE, dtype=dtype, device=device)
    took = []
    for _ in range(4):
        synchronize(device)
        began = time.perf_counter()
        matrix @ matrix
        synchronize(device)
        took.append(time.perf_counter() - began)
    return min(took[1:])


def slow_note(dtype: torch.dtype, device: torch.device) -> str | None:
    """A sentence where `dtype` costs time on this device instead of saving some; None where it does not."""
    if dtype == torch.float32 or (times := slowdown(dtype, device)) < NOTICED:
        return None
    name = str(dtype).removeprefix("torch.")
    return (
        f"{name} is slow on this machine: a matrix product takes {times:.1f} times as long as in float32 (measured just now, on "
        f"{device.type}). Use --dtype float32, unless memory is what you lack."
    )


def reset_peak(device: torch.device) -> None:
    """Start measuring `peak_mib` anew, where the device can (the process's resident set has no such switch)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float:
    """Peak memory in MiB: what the CUDA allocator held on this device, else the resident set of the process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has none
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def versions() -> dict[str, str]:
    """What a number was made with: written into every record."""
    return {
        "vlprompt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "cpus": str(os.cpu_count()),
    }
