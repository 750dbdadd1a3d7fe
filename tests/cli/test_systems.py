"""Commands where the system lacks what only POSIX or Linux has, and where Python's default encoding would be noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Vlprompt, train_arguments
from vlprompt import cli

POSIX_ALONE = (
    *(
        "fork",
        "uname",
        "getuid",
        "geteuid",
        "getgid",
        "sched_getaffinity",
        "sysconf",
        "statvfs",
        "getloadavg",
        "fchmod",
    ),
    *("O_DIRECTORY", "mkfifo", "killpg", "getpgid", "setsid", "posix_fallocate"),
)


def test_what_posix_alone_has_is_not_needed(
    vlprompt: Vlprompt, clip_dir: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in POSIX_ALONE:
        monkeypatch.delattr(os, name, raising=False)
    for module in ("resource", "pwd", "grp", "termios"):
        monkeypatch.setitem(sys.modules, module, None)
    opened = Path.open

    def without_proc(path: Path, *arguments: object, **named: object) -> object:
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(path)
        return opened(path, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", without_proc)
    for arguments in (
        [*train_arguments(clip_dir, photos), "--out", "run"],
        ["predict", "run", photos / "red" / "0.png"],
        ["report", "run"],
        ["env"],
    ):
        done = vlprompt(*arguments)
        assert done.code == 0, done.err


def test_every_file_is_opened_with_a_named_encoding(trained: Path, photos: Path, tmp_path: Path) -> None:
    """Python can warn of a text file without one, on any system: what would differ under cp1252 or GBK."""
    lines = [
        ["predict", trained, photos, "--json"],
        ["data", "check", photos],
        ["report", Path(shutil.copytree(trained, tmp_path / "run"))],
    ]
    asked = [[str(one) for one in line] for line in lines]
    code = "\n".join(
        [
            "import sys, warnings",
            "warnings.filterwarnings('error', category=EncodingWarning, module=r'vlprompt')",
            "from vlprompt import cli",
            f"sys.exit(max(cli.run(line) for line in {asked!a}))",
        ]
    )
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-X", "warn_default_encoding", "-c", code], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
