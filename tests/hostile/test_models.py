"""A model's files with one value changed: a model, or a `UserError`, in bounded time and memory."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import models, values
from vlprompt.errors import DATA, UserError
from vlprompt.pocket import model_dir
from vlprompt.towers import load

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


def test_no_panic_of_the_library_is_shown(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    found["model"]["continuing_subword_prefix"] = "a" * 40
    (model / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UserError, match=r"continuing_subword_prefix is .*\. CLIP's tokenizers have none"):
        load(model)
    assert "panicked" not in capfd.readouterr().err


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


def split() -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}


def space(sign: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": sign, "prepend_scheme": "always", "split": True}


ANY = {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "b"}
PIECE = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "single": [PIECE] * 20_000, "pair": [PIECE], "special_tokens": {}}
GROWING: dict[str, tuple[str, dict[str, Any]]] = {
    "a space before every letter, time after time": (
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [one for n in range(40) for one in (split(), space(chr(0x2581 + n)))]},
    ),
    "few of them": ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [space("_"), split(), space("-")]}),
    "bytes as letters, time after time": (
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False}] * 16},
    ),
    "a letter between all letters": ("normalizer", {"type": "Sequence", "normalizers": [ANY] * 16}),
    "a table of words for letters": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "A" * (1 << 22)}),
    "tables of tables": (
        "normalizer",
        {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "A"}] * 2},
    ),
    "a text a thousand times": ("post_processor", TEMPLATE),
    "steps after steps": (
        "post_processor",
        {"type": "Sequence", "processors": [TEMPLATE | {"single": [PIECE] * 2}] * 30},
    ),
    "two letters for one in what is shown": ("decoder", {"type": "Sequence", "decoders": [replace("aa")] * 16}),
    "a letter between all that is shown": ("decoder", {"type": "Sequence", "decoders": [ANY] * 5}),
}


@pytest.mark.parametrize(("part", "steps"), GROWING.values(), ids=GROWING.keys())
def test_no_step_of_a_tokenizer_can_make_text_grow(model: Path, part: str, steps: dict[str, Any]) -> None:
    """A file of a few hundred bytes made eight letters take all memory; each kind of such a step is refused before it is built."""
    found = json.loads((model / "tokenizer.json").read_text(encoding="utf-8")) | {part: steps}
    (model / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UserError, match=f"its {part} has") as problem:
        load(model)
    assert problem.value.exit_code == DATA


@pytest.mark.parametrize("vocabulary", [{"a": -1}, {"a": 2**40}, {"a": "0"}, {"a": 0.5}, [], {"a": [1]}, {"": 0}])
def test_an_older_vocabulary_that_cannot_be_is_refused(tmp_path: Path, vocabulary: object) -> None:
    model = models.LAYOUTS["Hugging Face, older tokenizer"][0](tmp_path / "model")
    (model / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab|tokenizer"):
        load(model)


@pytest.mark.parametrize(
    "change",
    [
        {"stem": "x"},
        {"stem": [16, 16]},
        {"head": 0},
        {"head": 10**9},
        {"blocks": 10**9},
        {"channels": "40"},
        {"kernel": 0},
        {"expansion": -1},
        {"stride": 0},
    ],
)
def test_a_trunk_that_cannot_be_built_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    model = models.LAYOUTS["trunk"][0](tmp_path / "model")
    raw = json.loads((model / "config.json").read_text(encoding="utf-8"))
    ((name, value),) = change.items()
    (raw["trunk"] if name in raw["trunk"] else raw["trunk"]["stages"][1])[name] = value
    (model / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=r"model|configuration") as problem:
        load(model)
    assert problem.value.exit_code == DATA


@pytest.mark.parametrize("name", models.LAYOUTS)
def test_one_altered_file_is_a_model_or_a_user_error(tmp_path: Path, name: str) -> None:
    one, ended = models.tries(name, tmp_path / "model"), {"value": 0, "refused": 0}
    for number in range(16):
        try:
            one(random.Random(number))
            ended["value"] += 1
        except UserError:
            ended["refused"] += 1
    assert ended["refused"] > 0


def test_torn_weights_are_a_user_error_or_other_weights(model: Path) -> None:
    path, stream = model / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    for _ in range(15):
        path.write_bytes(values.torn(whole, stream))
        try:
            load(model).tokenizer.encode("a dog")
        except UserError:
            continue
