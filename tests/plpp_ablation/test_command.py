"""The ablation and the study as commands: own data, a table, done once."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.plpp_ablation import __main__ as plpp_ablation
from benchmarks.pretraining_study import __main__ as pretraining_study
from benchmarks.pretraining_study import study
from typer.testing import CliRunner, Result

from tests.plpp_ablation.test_run import make_folder


@pytest.fixture(autouse=True)
def empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def ablate(*arguments: object) -> Result:
    return CliRunner().invoke(plpp_ablation.app, [str(one) for one in arguments])


def test_some_rows_of_the_sweep_are_measured_once(clip_dir: Path, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data")
    command = (
        *("--data", data, "--model", clip_dir, "--shots", 2, "--seeds", "1", "--out", "out"),
        *("--only", "host; labels=random", "--set", "epochs=1", "--set", "n_ctx=2", "--set", "batch=4"),
        *("--set", "plpp.k=5", "--set", "plpp.balance=off", "--device", "cpu", "--cache", tmp_path / "features"),
    )
    done = ablate(*command)
    assert done.exit_code == 0, done.output
    assert "| host |" in done.stdout
    assert "| labels=random |" in done.stdout
    assert "| plpp |" not in done.stdout, "it was not asked for"
    assert "Cells and table: out" in done.stderr
    written = Path("out/ablation.jsonl").read_bytes()
    again = ablate(*command)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert Path("out/ablation.jsonl").read_bytes() == written


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--data", "emoji-food,,emoji-symbols"), "has an empty name"),
        (("--data", "emoji-food", "--only", "labels=randm"), "labels=random"),
        (("--data", "emoji-food", "--set", "plpp.kk=3"), "plpp.k"),
        (("--data", "emoji-food", "--seeds", "none"), "seeds"),
    ],
)
def test_what_cannot_be_swept_is_said(given: tuple[str, ...], said: str) -> None:
    done = ablate(*given, "--device", "cpu")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert not Path("runs").exists()


def test_the_study_of_pretraining_gets_what_was_asked_and_its_table_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def studied(given: study.Study, observer: object) -> None:
        asked.append(given)
        given.out.mkdir(parents=True)
        (given.out / study.TABLE).write_text("| method | top-1 |\n", encoding="utf-8")

    monkeypatch.setattr(pretraining_study, "run_study", studied)
    given_words = ["--targets", "emoji-food, emoji-symbols", "--seeds", "1-2", "--out", "out"]
    done = CliRunner().invoke(pretraining_study.app, given_words)
    assert done.exit_code == 0, done.output
    assert "| method | top-1 |" in done.stdout
    assert "vlprompt compare out/transfer/rpp out/transfer/pomp" in done.stdout + done.stderr
    (given,) = asked
    assert (given.targets, tuple(given.seeds), given.out) == (("emoji-food", "emoji-symbols"), (1, 2), Path("out"))
