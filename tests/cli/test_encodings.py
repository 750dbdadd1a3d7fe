"""The same answers and no error, whatever encoding the machine and the terminal prefer."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COLORS, Vlprompt, train_arguments
from vlprompt import cli
from vlprompt.cli import console

NAMES = dict(zip(COLORS, ("café au lait", "熊猫", "jalapeño"), strict=True))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encodings")


@pytest.fixture(scope="module")
def accented(photos: Path, places: Path) -> Path:
    """The photos under names beyond ASCII."""
    for old, new in NAMES.items():
        shutil.copytree(photos / old, places / "photos" / new)
    return places / "photos"


@pytest.fixture(scope="module")
def run(accented: Path, clip_dir: Path, places: Path) -> Path:
    arguments = [*train_arguments(clip_dir, accented), "--out", str(places / "run"), "--cache", str(places / "cache")]
    assert cli.run(arguments) == 0
    return places / "run"


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
def test_what_a_terminal_cannot_show_is_escaped(
    encoding: str, accented: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: object) -> str:
        stream = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding, write_through=True))
        console.survive_encodings()
        assert cli.run([str(one) for one in arguments]) == 0
        return stream.getvalue().decode(encoding)

    picture = accented / "熊猫" / "0.png"
    escaped = "熊猫" if encoding == "gbk" else r"\u718a\u732b"
    assert escaped in said("predict", run, picture, "--top", 3)
    listed = json.loads(said("predict", run, picture, "--json"))
    assert {one["class"] for one in listed[0]["top"]} == set(NAMES.values())
    assert escaped in said("data", "check", accented)


@pytest.mark.slow  # `test_systems.py` has what is quick: every file is opened with a named encoding
@pytest.mark.skipif(shutil.which("localedef") is None, reason="needs localedef to make a locale")
@pytest.mark.parametrize(("language", "encoding"), [("en_US", "CP1252"), ("zh_CN", "GBK")])
def test_a_locale_changes_no_answer(
    language: str, encoding: str, accented: Path, run: Path, tmp_path: Path, vlprompt: Vlprompt
) -> None:
    made = ["localedef", "-i", language, "-f", encoding, str(tmp_path / "other")]
    told = subprocess.run(made, capture_output=True, check=False)
    if not (tmp_path / "other").is_dir():
        pytest.skip(told.stderr.decode(errors="replace"))
    asked = [["predict", run, accented, "--json"], ["data", "check", accented, "--json"], ["report", run]]
    lines = [[str(one) for one in line] for line in asked]
    code = f"import sys\nfrom vlprompt import cli\nsys.exit(max(cli.run(line) for line in {lines!a}))"
    env = {"LC_ALL": "other", "LOCPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "0"}
    env |= {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "OMP_NUM_THREADS": "1"}  # as here: bits depend on it
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ | env, check=False)
    assert there.returncode == 0, there.stderr.decode(errors="replace")
    answers, end = json.JSONDecoder().raw_decode(there.stdout.decode())
    here = json.loads(vlprompt("predict", run, accented, "--json").out)
    assert sorted((one["class"], one["probability"]) for one in answers) == sorted(
        (one["class"], one["probability"]) for one in here
    )
    looked = json.loads(vlprompt("data", "check", accented, "--json").out)
    assert json.JSONDecoder().raw_decode(there.stdout.decode()[end:].lstrip())[0] == looked


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.txt", b"\xef\xbb\xbfbird\r\nbug\r\n"),
        ("bom.json", b'\xef\xbb\xbf["bird","bug"]'),
        ("plain.txt", b"bird\nbug\n"),
    ],
)
def test_a_mark_before_the_first_name_is_not_part_of_it(
    vlprompt: Vlprompt, trained: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    done = vlprompt(
        "export", "class-vectors", trained, "--names", tmp_path / name, "--out", tmp_path / "v.npy", "--device", "cpu"
    )
    assert done.code == 0, done.err
    assert (tmp_path / "v.names.txt").read_text(encoding="utf-8") == "bird\nbug\n"
