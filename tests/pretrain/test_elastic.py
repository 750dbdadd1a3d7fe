"""Under torchrun: the command gives what one process gives, and what is killed, a rank or the launcher, loses and repeats nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pretrain.dies import DIES
from vlprompt import cli

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    *("--method", "plpp+rpp", "--set", "n_ctx=2", "--set", "epochs=3", "--set", "batch=8", "--set", "lr=0.01"),
    *(
        "--classes-per-step",
        "4",
        "--copies",
        "2",
        "--held-out",
        "6",
        "--save-every",
        "2",
        "--log-every",
        "1",
        "--device",
        "cpu",
    ),
]


def command(root: Path, out: Path) -> list[str]:
    return ["pretrain", "--data", str(root / "data"), "--model", str(root / "clip"), "--out", str(out), *OPTIONS]


def launch(
    module: str, arguments: list[str], *, restarts: int = 0, dies: str = "1:5"
) -> subprocess.CompletedProcess[str]:
    with started(module, arguments, restarts=restarts, dies=dies) as process:
        said, wrong = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, said, wrong)


def started(module: str, arguments: list[str], *, restarts: int = 0, dies: str = "1:5") -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLPROMPT_CACHE": str(Path(arguments[-1]).parent), DIES: dies},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(out: Path) -> list[int]:
    lines = (json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["step"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    assert cli.run(command(root, out)) == 0
    return out


def same(a: Path, b: Path) -> bool:
    first, second = (load_file(path / "last" / "prompt.safetensors") for path in (a, b))
    assert first.keys() == second.keys()
    scale = max(float(one.abs().max()) for one in first.values())
    return all(float((first[name] - second[name]).abs().max()) <= 1e-5 * scale for name in first)


def test_a_killed_rank_is_started_again_and_nothing_is_lost_or_repeated(
    root: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = launch("tests.pretrain.dies", command(root, out), restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("class names from") == 2, "the processes were started once more"
    assert steps(out) == steps(alone) == list(range(1, 13))
    summary, other = (json.loads((place / "pretraining.json").read_text(encoding="utf-8")) for place in (out, alone))
    assert summary["images"] == other["images"] == 3 * 29
    assert (summary["skipped"], summary["processes"]) == (1, 2)
    assert same(out, alone)


@pytest.mark.slow
def test_a_restart_with_a_cold_cache_gives_the_bits_of_no_restart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is then encoded in other company than before it, which must not change a bit of its features."""
    made = {}
    for name, module, restarts in (("whole", "vlprompt", 0), ("killed", "tests.pretrain.dies", 1)):
        monkeypatch.setenv("COLD", str(tmp_path / f"{name}-cache"))
        text = ["--method", "coop", "--set", "init=normal", "--views", "2", "--cache", str(tmp_path / f"{name}-cache")]
        arguments = [*command(root, tmp_path / name), *text]
        done = launch(module, arguments, restarts=restarts)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("class names from") == 1 + restarts
        made[name] = load_file(tmp_path / name / "last" / "prompt.safetensors")
    assert all(torch.equal(made["whole"][name], one) for name, one in made["killed"].items())
    assert (tmp_path / "killed-cache").is_dir(), "features were cached again"


@pytest.mark.slow
def test_a_rank_that_keeps_dying_ends_the_run_with_its_checkpoint(root: Path, alone: Path, tmp_path: Path) -> None:
    """Without restarts the run fails; the same command with --resume, alone, goes on to the same result."""
    out = tmp_path / "out"
    done = launch("tests.pretrain.dies", command(root, out))
    assert done.returncode != 0
    assert not (out / "pretraining.json").exists()
    refused = subprocess.run(
        [sys.executable, "-m", "vlprompt", *command(root, out)], capture_output=True, text=True, cwd=ROOT
    )
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    subprocess.run(
        [sys.executable, "-m", "vlprompt", *command(root, out), "--resume"], check=True, capture_output=True, cwd=ROOT
    )
    assert steps(out) == list(range(1, 13))
    assert same(out, alone)
    assert torch.isfinite(
        torch.cat([one.flatten() for one in load_file(out / "best" / "prompt.safetensors").values()])
    ).all()


@pytest.fixture(scope="module")
def together(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks that nothing happens to."""
    out = tmp_path_factory.mktemp("together") / "out"
    done = launch("vlprompt", command(root, out))
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_rank_killed_before_any_step_and_the_same_bits(
    root: Path, together: Path, tmp_path: Path, seed: int
) -> None:
    stream, out = random.Random(seed), tmp_path / "out"
    done = launch("tests.pretrain.dies", command(root, out), restarts=1, dies=f"{seed % 2}:{stream.randrange(12)}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("class names from") == 2, "the processes were started once more"
    assert steps(out) == steps(together) == list(range(1, 13))
    one, other = (place / "last" / "prompt.safetensors" for place in (out, together))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_the_launcher_killed_and_the_run_resumed_at_once(root: Path, alone: Path, tmp_path: Path) -> None:
    """Its ranks go on without it, or end: nobody else writes into the directory meanwhile, and what is missing is done."""
    out = tmp_path / "out"
    launcher, until = started("vlprompt", command(root, out)), time.monotonic() + 120
    while time.monotonic() < until and not ((out / "metrics.jsonl").is_file() and len(steps(out)) > 2):
        time.sleep(0.02)
    os.kill(launcher.pid, signal.SIGKILL)
    again = [sys.executable, "-m", "vlprompt", *command(root, out), "--resume"]
    done = subprocess.run(again, capture_output=True, text=True, cwd=ROOT)
    while done.returncode and time.monotonic() < until:
        assert "Traceback" not in done.stderr
        time.sleep(1)
        done = subprocess.run(again, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    launcher.communicate(timeout=60)  # until its ranks have gone too
    assert steps(out) == list(range(1, 13))
    assert same(out, alone)
