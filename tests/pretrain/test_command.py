"""The commands, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlprompt import cli


def pretrain(root: Path, out: Path, *more: str) -> int:
    options = ["--data", str(root / "data"), "--model", str(root / "clip"), "--out", str(out), "--device", "cpu"]
    small = ["--set", "n_ctx=2", "--set", "epochs=1", "--set", "batch=16", "--copies", "1", "--held-out", "6"]
    return cli.run(["pretrain", *options, *small, *more])


def test_pretrain_says_what_to_do_next(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(root, tmp_path / "out", "--method", "rpp", "--classes-per-step", "3") == 0
    out, err = capsys.readouterr()
    assert "held-out (val) top-1" in out
    assert f"vlprompt train --init {tmp_path / 'out' / 'best'}" in out.replace("\n", "")
    assert "cannot be told apart" in err
    assert "3 classes for an image in a step" in err


def test_json_is_the_summary(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--method", "pomp", "--all-classes", "--views", "2", "--json", "--cache", str(tmp_path / "cache"))
    assert pretrain(root, tmp_path / "out", *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "pretraining.json").read_text(encoding="utf-8"))
    assert (summary["method"], summary["classes"], summary["images"]) == ("pomp", 6, 29)


def test_shards_are_written_and_learned_from(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "shards", str(root / "data"), "--out", str(tmp_path / "shards"), "--per-shard", "8"]) == 0
    out, err = capsys.readouterr()
    assert "6 classes in 6 shards" in out
    assert "n00000004_2.png" in err, "what does not decode is left out"
    summary = (
        tmp_path / "out",
        "--method",
        "coop",
        "--set",
        "init=normal",
        "--data",
        str(tmp_path / "shards"),
        "--json",
    )
    assert pretrain(root, *summary) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 29


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "cocoop"), "depend on the image"),
        (("--method", "prograd"), "projects"),
        (("--all-classes", "--classes-per-step", "5"), "exclude each other"),
        (("--views", "publishd"), "Did you mean 'published'"),
        (("--correction", "ln"), "natural"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_errors_are_sentences(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert pretrain(root, tmp_path / "out", *arguments) in (2, 3)
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
