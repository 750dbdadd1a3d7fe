"""`vlprompt ablate`: the sweep of a person's own data, said in a table, done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ablate.test_run import make_folder
from tests.cli.conftest import Vlprompt
from vlprompt.pretrain import study


def test_some_rows_of_the_sweep_are_measured_once(vlprompt: Vlprompt, clip_dir: Path, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data")
    command = (
        *("ablate", "plpp", "--data", data, "--model", clip_dir, "--shots", 2, "--seeds", "1", "--out", "out"),
        *("--only", "host; labels=random", "--set", "epochs=1", "--set", "n_ctx=2", "--set", "batch=4"),
        *("--set", "plpp.k=5", "--set", "plpp.balance=off", "--device", "cpu", "--cache", tmp_path / "features"),
    )
    done = vlprompt(*command)
    assert done.code == 0, done.err
    assert "| host |" in done.out
    assert "| labels=random |" in done.out
    assert "| plpp |" not in done.out, "it was not asked for"
    assert "Cells and table: out" in done.err
    written = Path("out/ablation.jsonl").read_bytes()
    again = vlprompt(*command)
    assert (again.code, again.out) == (0, done.out)
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
def test_what_cannot_be_swept_is_said(vlprompt: Vlprompt, given: tuple[str, ...], said: str) -> None:
    done = vlprompt("ablate", "plpp", *given, "--device", "cpu")
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not Path("runs").exists()


def test_the_study_of_pretraining_gets_what_was_asked_and_its_table_is_shown(
    vlprompt: Vlprompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def studied(given: study.Study, observer: object) -> None:
        asked.append(given)
        given.out.mkdir(parents=True)
        (given.out / study.TABLE).write_text("| method | top-1 |\n", encoding="utf-8")

    monkeypatch.setattr(study, "run_study", studied)
    done = vlprompt("ablate", "pretraining", "--targets", "emoji-food, emoji-symbols", "--seeds", "1-2", "--out", "out")
    assert done.code == 0, done.err
    assert "| method | top-1 |" in done.out
    assert "vlprompt compare out/transfer/rpp out/transfer/pomp" in done.out + done.err
    (given,) = asked
    assert (given.targets, tuple(given.seeds), given.out) == (("emoji-food", "emoji-symbols"), (1, 2), Path("out"))
