"""Every script in examples/ runs as its docstring says, in an empty directory."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.engine.made import config, write_images
from vlprompt import PromptClassifier, cli
from vlprompt.data.check import check
from vlprompt.engine.run import train_run

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "own_folder.py": r"hand-written words \d+\.\d %, learned \d+\.\d %\n(.+\(0\.\d\d\)\n){3}",
    "own_loop.py": r"step 60: loss 0\.\d+, test \d+\.\d %",
    "compare_two_methods.py": r"emoji-symbols: plpp\+coop \d+\.\d, coop \d+\.\d; difference .* points, 95 % interval",
    "pretrain_and_transfer.py": r"from its own start: \d.*\nfrom the pretrained prompt: \d",
    "new_method.py": r"near-words: \d+ numbers learned, test \d+\.\d %",
}
"""What each prints; those that take arguments have tests of their own."""


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "serve.py", "onnx_only.py", "messy_folder.py"}


def test_they_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image features that the examples share, as they do for a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name[0] in "cp" else ()) for name in sorted(SAYS)]
)
def test_an_example_runs(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(SAYS[name], said), said


@pytest.mark.slow
def test_serve_answers_a_picture_and_refuses_what_is_none(clip_dir: Path, tmp_path: Path, free_tcp_port: int) -> None:
    pytest.importorskip("onnxruntime")
    write_images(tmp_path / "photos")
    train_run(config(clip_dir, tmp_path / "photos", tmp_path / "run"))
    file = tmp_path / "mine.onnx"
    assert cli.run(["export", "onnx", str(tmp_path / "run"), "--out", str(file)]) == 0
    server = subprocess.Popen([sys.executable, EXAMPLES / "serve.py", file, str(free_tcp_port)], cwd=tmp_path)
    try:
        picture = next((tmp_path / "photos").rglob("*.png"))
        answer = json.loads(asked(free_tcp_port, picture.read_bytes()))
        wanted = PromptClassifier.load(tmp_path / "run")
        assert list(answer) == wanted.classes_.tolist()
        np.testing.assert_allclose([*answer.values()], wanted.predict_proba(picture)[0], atol=1e-4)
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(free_tcp_port, b"no picture")
        with refused.value:
            assert refused.value.code == 400
    finally:
        server.kill()
        server.wait()


def asked(port: int, body: bytes) -> bytes:
    """What the server answers, once it listens; it gets two minutes for that."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/", data=body, timeout=60) as answer:
                return bytes(answer.read())
        except (ConnectionError, urllib.error.URLError) as problem:
            if isinstance(problem, urllib.error.HTTPError):
                raise
            time.sleep(0.2)
    raise AssertionError("the server never answered")


def test_the_messy_folder_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    root = tmp_path / "messy"
    runpy.run_path(str(EXAMPLES / "messy_folder.py"))["main"](root)
    report = check(root)
    assert report.ok
    names = [one.name for one in report.classes]
    assert names == sorted(
        [
            "Fauteuil déco",
            "Dishes FOOD (old)",
            "bathroom things",
            "cabinets and shelves",
            "clothes and bags",
            "doors and windows",
        ]
    )
    counts = {one.name: one.train + one.val + one.test for one in report.classes}
    assert (counts["clothes and bags"], counts["doors and windows"], counts["Fauteuil déco"]) == (6, 1, 40)
    reasons = Counter(skip.reason for skip in report.skipped)
    assert sum(reasons.values()) == 6, reasons
    conflicts = [copies.ids for copies in report.copies if copies.conflict]
    assert [{Path(one).parent.name for one in ids} for ids in conflicts] == [
        {"bathroom things", "cabinets and shelves"}
    ]
    assert any("unbalanced" in line for line in report.lines())
