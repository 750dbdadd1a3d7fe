"""Nothing but a download opens a connection."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.report import made
from vlprompt import cli
from vlprompt.data import open_dataset, open_image
from vlprompt.errors import UserError
from vlprompt.report.write import write_report
from vlprompt.towers import load


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*place: object, **_: object) -> None:
        raise AssertionError(f"a connection was opened: {place}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("arguments", [["--version"], ["methods"], ["recipes"], ["models"], ["data", "list"], ["env"]])
def test_commands_ask_nobody(arguments: list[str]) -> None:
    assert cli.run(arguments) == 0


def test_data_models_and_reports_ask_nobody(tmp_path: Path) -> None:
    dataset = open_dataset("emoji-symbols")
    open_image(dataset.train[0].read())
    load("pocket-s").tokenizer.encode("a dog")
    made.benchmark(
        tmp_path, methods=("coop",), sets=("birds",), shots=(1,), classes=4, images=20, protocols=("few-shot",)
    )
    write_report(tmp_path)


def test_offline_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError):
        load("openai/no-such-model")
