"""Ctrl-C in a real process: 130, nothing lost, and `--resume` ends where an undisturbed run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.conftest import Vlprompt, train_arguments

EPOCHS = 80
PATIENCE = 60.0
"""Seconds until a test that waits gives up; nothing is asserted on them."""


def heed_interrupts() -> None:
    """A process that a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_stopped_run_is_resumed_to_the_same_bits(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    command = train_arguments(clip_dir, photos)
    command[command.index("epochs=2")] = f"epochs={EPOCHS}"
    process = subprocess.Popen(
        [sys.executable, "-m", "vlprompt", *command, "--out", "stopped"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=heed_interrupts,
    )
    checkpoint = Path("stopped/seed1/checkpoint.safetensors")
    until = time.monotonic() + PATIENCE
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "--resume" in said
    assert not Path("stopped/seed1/result.json").exists()

    done = vlprompt(*command, "--out", "stopped")
    assert done.code == 2
    assert "--resume" in done.err
    assert vlprompt(*command, "--out", "stopped", "--resume").code == 0
    assert vlprompt(*command, "--out", "whole").code == 0
    stopped, whole = (Path(run) / "seed1" / "prompt.safetensors" for run in ("stopped", "whole"))
    assert stopped.read_bytes() == whole.read_bytes()
    assert len(Path("stopped/seed1/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == EPOCHS
