"""`vlprompt env`: what a bug report needs."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from vlprompt.cli import console, options

PACKAGES = (
    *("vlprompt", "torch", "numpy", "pillow", "safetensors", "huggingface-hub", "tokenizers", "scikit-learn"),
    *("matplotlib", "typer", "rich"),
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
"""The instruction sets that decide how fast float32 and bfloat16 are."""
DRIVERS = ("/dev/nvidia0", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
"""What Linux has where a GPU may be: NVIDIA's, that of WSL, AMD's."""


def env(as_json: options.AsJson = False) -> None:
    """Versions, processor, devices, caches and models: paste it into a bug report.

    Example: `vlprompt env`
    """
    from vlprompt import pocket
    from vlprompt.disk import default_root

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit, cache = os.environ.get("OMP_NUM_THREADS"), default_root()
    held = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    facts = {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "processors": f"{usable} of {os.cpu_count()}" + (f", OMP_NUM_THREADS={limit}" if limit else ""),
        "accelerators": _accelerators(),
        "feature cache": f"{cache} ({held / 2**20:.1f} MiB)",
        "embedded models": ", ".join(pocket.model_names()) or "none",
        "embedded data": ", ".join(pocket.names()),
    }
    if as_json:
        console.dump(facts)
        return
    width = max(map(len, facts))
    console.show(*(f"{name:<{width}}  {value}" for name, value in facts.items()))


def _accelerators() -> str:
    """As torch sees them. It is loaded only where there may be one: it takes seconds."""
    if sys.platform == "linux" and not any(Path(one).exists() for one in DRIVERS):
        return "none (no driver)"
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(gpus or (["mps"] if torch.backends.mps.is_available() else [])) or "none that torch sees"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Name and instruction sets, as far as the system tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(named.get("flags", named.get("Features", "")).split())
    shown = [flag for flag in CPU_FLAGS if flag in flags]
    return f"{named.get('model name', platform.machine())} ({', '.join(shown) or 'no vector extensions known'})"
