"""Every row of the table on a random checkpoint of ViT-B/16's shape: it learns for an epoch, writes its record, and predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vlprompt import cli, records
from vlprompt.methods.resolve import HOSTS

SETTINGS: dict[str, list[str]] = {"promptsrc": ["teacher=template"], "linear-probe": [], "zero-shot": []}
"""PromptSRC's 60 sentences a class are left to smaller models; methods without steps have no epochs."""
NAMES = ("cat", "red tree")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("full-size") / "photos", np.random.RandomState(0)
    for part, number in (("train", 2), ("val", 1), ("test", 1)):
        for name in NAMES:
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(rng.randint(0, 255, (240, 256, 3)).astype(np.uint8)).save(place / f"{i}.png")
    return root


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
    assert (record.parameters > 0) == (name != "zero-shot")
    capsys.readouterr()
    assert cli.run(["predict", str(out), str(folder / "test" / "cat"), "--device", "cpu", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["class"] in NAMES
    assert 0 <= found["probability"] <= 1
