"""Ctrl-C in a real process: 130, nothing lost, and `--resume` ends where an undisturbed run ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt, train_arguments
from vlprompt.cli import failures

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
    assert f"vlprompt {shlex.join(command)} --out stopped --resume" in said
    assert not Path("stopped/seed1/result.json").exists()

    done = vlprompt(*command, "--out", "stopped")
    assert done.code == 2
    assert "--resume" in done.err
    assert vlprompt(*command, "--out", "stopped", "--resume").code == 0
    assert vlprompt(*command, "--out", "whole").code == 0
    stopped, whole = (Path(run) / "seed1" / "prompt.safetensors" for run in ("stopped", "whole"))
    assert stopped.read_bytes() == whole.read_bytes()
    assert len(Path("stopped/seed1/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == EPOCHS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train my_photos --shots 4",
            "What was done is kept. Go on with:\n  vlprompt train my_photos --shots 4 --resume",
        ),
        ("train 'my photos' --resume", "Go on with:\n  vlprompt train 'my photos' --resume"),
        ("bench all --quick", "What was done is kept. Go on with:\n  vlprompt bench all --quick"),
        ("--debug predict runs/mine a.png", "To start again:\n  vlprompt --debug predict runs/mine a.png"),
    ],
)
def test_the_command_that_goes_on_is_said(line: str, said: str) -> None:
    before = failures.COMMAND.set(tuple(shlex.split(line)))
    text, code = failures.describe(KeyboardInterrupt())
    failures.COMMAND.reset(before)
    assert (text.startswith("Stopped. "), text.endswith(said), code) == (True, True, 130)


def test_an_interrupt_that_a_library_turned_into_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failures, "_STOPPED", [])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        failures._interrupt()
    assert failures.report(ImportError("half of it")) == 130
    assert capsys.readouterr().err.startswith("Stopped.")


def test_it_ends_in_one_line_while_it_is_loaded() -> None:
    code = (
        "import sys\nclass Stop:\n def find_spec(self, name, *_):\n  if name == 'vlprompt.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\nfrom vlprompt.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "Stopped.\n"
    assert done.returncode in (130, -signal.SIGINT)
