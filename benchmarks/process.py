"""What Linux says of this process's memory."""

from __future__ import annotations

from pathlib import Path


def resident_mib() -> float:
    """What is resident now."""
    return _status("VmRSS")


def peak_mib() -> float:
    """The most that was resident since the start, or since `restart_peak`."""
    return _status("VmHWM")


def restart_peak() -> None:
    """Start the peak anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {field} in /proc/self/status")
