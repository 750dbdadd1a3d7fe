"""`vlprompt verify`: its table, its last line, its exit code, its JSON."""

from __future__ import annotations

import json

import pytest

from vlprompt import cli, verify


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.run(["verify", *arguments])
    return code, capsys.readouterr().out


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = verify.cases_in()[2:3]
    monkeypatch.setattr(verify, "cases_in", lambda folder: chosen)


def test_the_table_names_every_case_with_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = verify.cases_in()
    chosen = (every[0], every[2], every[-1])
    monkeypatch.setattr(verify, "cases_in", lambda folder: chosen if folder == verify.OURS else ())
    code, out = run(capsys)
    assert code == 0, out
    assert out.splitlines()[-1] == "3 cases, 0 failed"
    assert "NO" not in out.split()
    for case in chosen:
        assert case.name in out
        assert case.entry["source"].split(":")[0] in out
    assert "18 tensors" in out


@pytest.mark.usefixtures("one_case")
def test_a_failure_is_named_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verify.Folder.case
    monkeypatch.setattr(verify.Folder, "case", lambda *given: {**right(*given), "loss": right(*given)["loss"] * 1.001})
    code, out = run(capsys)
    assert code == 1
    assert out.splitlines()[-1] == "1 cases, 1 failed"
    assert "off: loss" in " ".join(out.split())
    assert out.split().count("NO") == 1


@pytest.mark.usefixtures("one_case")
def test_json_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["device"], answer["dtype"], answer["failed"]) == ("cpu", "float32", 0)
    (case,) = answer["cases"]
    assert case["source"] == "KaiyangZhou/CoOp:trainers/coop.py"
    gradient = case["checks"][-1]
    assert gradient["what"] == "prompt_learner.ctx"
    assert 0 < gradient["error"] <= gradient["tolerance"] == 1e-4


@pytest.mark.usefixtures("one_case")
def test_reduced_precision_says_that_it_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--dtype", "bfloat16")
    assert code == 0
    assert "not judged" in out
    assert out.splitlines()[-1] == "1 cases, 0 failed"


@pytest.mark.parametrize("wrong", [("--dtype", "float23"), ("--device", "gpu")])
def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]) -> None:
    assert run(capsys, *wrong)[0] == 2
