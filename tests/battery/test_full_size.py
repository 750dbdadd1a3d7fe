"""Every row of the table on a random checkpoint of ViT-B/16's shape: it learns for an epoch, writes its record, and predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.images import write_squares
from vlprompt import cli, records
from vlprompt.methods.resolve import HOSTS

NAMES = ("cat", "red tree")
SETTINGS: dict[str, list[str]] = {
    "promptsrc": ["teacher=template"],
    "descriptions": [f"sentences={json.dumps({name: [f'a {name}'] for name in NAMES})}"],
}
"""PromptSRC's 60 sentences a class are left to smaller models; nobody has described these classes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full-size") / "photos"
    return write_squares(root, dict.fromkeys(NAMES), {"train": 2, "val": 1, "test": 1}, size=(240, 256))


@pytest.fixture(scope="module")
def vit_b16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all methods: 12 + 12 layers, widths 512 and 768, 224 pixels in patches of 16, 77 tokens."""
    return tiny.clip_dir(
        tmp_path_factory.mktemp("full-size") / "vit-b16",
        text_width=512,
        image_width=768,
        text_layers=12,
        image_layers=12,
        heads=8,
        embed_dim=512,
        image_size=224,
        patch_size=16,
        context_length=77,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [host.name for host in HOSTS])
def test_every_row_learns_and_predicts(
    vit_b16: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "run"
    words = SETTINGS.get(name, [])
    settings = [part for word in ["epochs=1", "batch=4", *words] for part in ("--set", word)]
    where = ["--data", str(folder), "--model", str(vit_b16), "--method", name, "--cache", str(folder.parent / "cache")]
    how = ["--shots", "2", "--views", "centre", "--device", "cpu", "--out", str(out)]
    assert cli.run(["train", *where, *how, *settings]) == 0
    record = records.read(out / "seed1")
    assert (record.method, record.num_test, record.num_classes) == (name, 2, 2)
    assert (record.parameters > 0) == (name not in ("zero-shot", "descriptions"))
    capsys.readouterr()
    assert cli.run(["predict", str(out), str(folder / "test" / "cat"), "--device", "cpu", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["class"] in NAMES
    assert 0 <= found["probability"] <= 1
