"""What an error becomes: a line on stderr and an exit code, and a traceback only where it is asked for."""

from __future__ import annotations

import errno
import io
import warnings

import pytest
import typer
from rich.console import Console

from tests.cli.conftest import Vlprompt
from vlprompt import cli, errors
from vlprompt.cli import console, failures, options, progress
from vlprompt.cli.train import default_out
from vlprompt.methods.options import parse_settings


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.UserError("seen, allowed, to do", exit_code=errors.NUMERICAL), 4, "seen, allowed, to do"),
        (errors.UserError("a [bracket] stays"), 2, "a [bracket] stays"),
        (KeyboardInterrupt(), 130, "Stopped. "),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 3, "runs/a: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 3, "runs: no permission"),
        (OSError(errno.EIO, "Input/output error", "runs"), 3, "runs: Input/output error"),
        (MemoryError(), 1, "batch=8"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "batch=8"),
        (RuntimeError("a bug of ours"), 1, "--debug"),
        (AttributeError("no such thing"), 1, "AttributeError: no such thing"),
    ],
)
def test_errors_become_messages(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @failures.guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as end:
        command()
    assert end.value.exit_code == code
    streams = capsys.readouterr()
    assert words in streams.err
    assert streams.out == ""
    assert "Traceback" not in streams.err


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str], place: int) -> None:
    arguments = ["train", "--method", "nonsense"]
    arguments.insert(place, "--debug")
    assert cli.run(arguments) == errors.USAGE
    assert "Traceback" in capsys.readouterr().err
    assert cli.run(["train", "--method", "nonsense"]) == errors.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_interrupt_of_a_command_is_130(vlprompt: Vlprompt, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlprompt.engine.run.train_run", interrupted)
    done = vlprompt("train")
    assert done.code == errors.INTERRUPTED
    assert "--resume" in done.err


def test_warnings_of_ours_become_notes(capsys: pytest.CaptureFixture[str]) -> None:
    @failures.guarded
    def command() -> None:
        warnings.warn("this term has no gradient", UserWarning, stacklevel=2)
        warnings.warn("for developers", DeprecationWarning, stacklevel=2)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        command()
    shown = capsys.readouterr().err
    assert shown.strip() == "Note: this term has no gradient"


@pytest.mark.parametrize(
    ("text", "seeds"), [("1", (1,)), ("1,2,3", (1, 2, 3)), ("1-3", (1, 2, 3)), ("0, 5-6", (0, 5, 6)), ("3,", (3,))]
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert options.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,", "3-1", "-1", "1-2-3", "1.5", "1,1-2"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(errors.UserError, match="--seeds"):
        options.parse_seeds(text)


def test_settings_keep_everything_after_the_first_equals_sign() -> None:
    assert parse_settings(["init=a = b", "plpp.k=5"]) == {"init": "a = b", "plpp.k": "5"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("emoji-subgroups", "coop-emoji-subgroups"),
        ("a/b/photos/", "coop-photos"),
        ("list.csv", "coop-list"),
        ("v1.5", "coop-v1.5"),
    ],
)
def test_the_default_directory_of_a_run(data: str, name: str) -> None:
    assert default_out("coop", data).as_posix() == f"runs/{name}"


def test_plain_lines_say_the_end_of_a_stage_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.observing() as observer:
        observer.stage("learning", 20)
        for _ in range(20):
            observer.advance(1, {"loss": 1.23456})
        observer.note("[bracketed] note")
    assert capsys.readouterr().err.splitlines() == ["learning: 20/20  loss 1.235", "Note: [bracketed] note"]


@pytest.mark.parametrize("width", [20, 60])
def test_long_messages_are_broken_between_words_in_a_terminal(width: int) -> None:
    path, command = "/a/path/that/is/longer/than/twenty/columns/picture.jpg", "`vlprompt train --data shots`"
    text = f"{path} cannot be read, and this sentence goes on for a while.\nThe next line says: {command}."
    told = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.say(told, text, "Error: ")
    assert isinstance(told.file, io.StringIO)
    lines = told.file.getvalue().splitlines()
    assert lines[0].startswith(f"Error: {path}")
    assert " ".join(lines).split() == f"Error: {text}".split()
    assert any(command in line for line in lines)
    assert all(len(line) <= width or path in line or command in line for line in lines)
    piped = Console(file=io.StringIO(), width=width)
    console.say(piped, text, "Error: ")
    assert isinstance(piped.file, io.StringIO)
    assert piped.file.getvalue() == f"Error: {text}\n"
