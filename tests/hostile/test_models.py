"""A model's files with one value changed: a model, or a `UserError`, in bounded time and memory."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import values
from vlprompt.errors import UserError
from vlprompt.pocket import model_dir
from vlprompt.towers import load

FILES = ("config.json", "preprocessor_config.json")
HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "a billion layers": ("config.json", {"text_config": {"num_hidden_layers": 10**9}}),
    "no heads": ("config.json", {"text_config": {"num_attention_heads": 0}}),
    "heads that do not divide": ("config.json", {"vision_config": {"num_attention_heads": 7}}),
    "a wide tower": ("config.json", {"vision_config": {"hidden_size": 10**7}}),
    "an image of a million pixels a side": ("config.json", {"vision_config": {"image_size": 10**6}}),
    "no patch": ("config.json", {"vision_config": {"patch_size": 0}}),
    "two means": ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}),
    "no deviation": ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0.0]}),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir("pocket-s"), tmp_path / "model"))


def changed(path: Path, change: dict[str, Any]) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        found[key] = found[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(("file", "change"), HOSTILE.values(), ids=HOSTILE.keys())
def test_sizes_that_cannot_be_are_refused(model: Path, file: str, change: dict[str, Any]) -> None:
    changed(model / file, change)
    with pytest.raises(UserError, match="model"):
        load(model)


def replace(content: str, pattern: str = "a") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Sequence", "normalizers": [replace("a" * 100)] * 6},
        {"type": "Sequence", "normalizers": [replace("aa")] * 30},
        {"type": "Prepend", "prepend": "a" * 10**6},
        replace("x", ""),
        {"type": "Replace", "pattern": {"Regex": "(("}, "content": " "},
        {"type": "Sequence", "normalizers": "x"},
        {"type": []},
        [1],
    ],
)
def test_a_tokenizer_cannot_make_text_grow(model: Path, normalizer: object) -> None:
    changed(model / "tokenizer.json", {})
    found = json.loads((model / "tokenizer.json").read_text(encoding="utf-8")) | {"normalizer": normalizer}
    (model / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer"):
        load(model)


@pytest.mark.parametrize("file", FILES)
def test_one_altered_value_is_a_model_or_a_user_error(model: Path, file: str) -> None:
    good, stream = json.loads((model / file).read_text(encoding="utf-8")), random.Random(0)
    ways = list(values.places(good))
    for way in stream.sample(ways, min(20, len(ways))):
        (model / file).write_bytes(values.written(values.put(good, way, stream.choice(values.ODD))))
        try:
            load(model).tokenizer.encode("a dog")
        except UserError:
            continue


def test_torn_weights_are_a_user_error_or_other_weights(model: Path) -> None:
    path, stream = model / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    for _ in range(15):
        path.write_bytes(values.torn(whole, stream))
        try:
            load(model).tokenizer.encode("a dog")
        except UserError:
            continue
