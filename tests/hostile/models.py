"""Models in five layouts, of which one value of one small file is changed, or the file is torn; then the model is used."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from tests import siglip
from tests.hostile import values
from tests.towers import layouts
from vlprompt.data.views import test_view
from vlprompt.pocket import model_dir
from vlprompt.towers import load

PICTURE = Image.new("RGB", (40, 30), (200, 30, 60))
LONG = ("vocab", "merges")
"""Of a tokenizer: its thousands of places would hide all others."""


def _copy(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(model_dir(name), folder))


def _split(folder: Path) -> Path:
    layouts.split_tokenizer(_copy("pocket-s", folder))
    return folder


def _openclip(folder: Path) -> Path:
    return layouts.openclip_dir(folder, layouts.config(), layouts.weights(layouts.config()))


HUGGING_FACE = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json")
LAYOUTS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "Hugging Face": (functools.partial(_copy, "pocket-s"), HUGGING_FACE),
    "Hugging Face, older tokenizer": (_split, ("vocab.json", "merges.txt")),
    "open_clip": (_openclip, ("open_clip_config.json",)),
    "trunk": (functools.partial(_copy, "pocket-m"), ("config.json", "tokenizer.json")),
}
if find_spec("transformers"):
    LAYOUTS["SigLIP"] = (lambda folder: siglip.siglip_dir(folder, gemma=True)[0], HUGGING_FACE)


def ways(value: Any) -> list[tuple[str | int, ...]]:
    """The places of a document, of long tables only some."""
    found = list(values.places(value))
    short = [way for way in found if not any(key in LONG for key in way[:-1])]
    return short + [way for way in found if any(key in LONG for key in way[:-1])][:: max(1, len(found) // 20)]


def changed(whole: bytes, stream: random.Random, *, is_json: bool) -> bytes:
    """A file with one value changed, left out or doubled; or its bytes torn."""
    if not is_json or stream.random() < 0.3:
        return values.torn(whole, stream)
    good = json.loads(whole)
    way = stream.choice(ways(good))
    inner = functools.reduce(lambda one, key: one[key], way, good)
    if isinstance(inner, list) and inner and stream.random() < 0.5:
        return values.written(values.put(good, way, inner * stream.choice((2, 40, 20_000 // len(inner) + 1))))
    return values.written(values.put(good, way, stream.choice(values.ODD)))


def used(model: Path) -> None:
    """What every command does with a model: words, sentences and a picture through it."""
    clip = load(model)
    words = clip.tokenizer.encode("a dog, a cafetière and 狗")
    assert all(isinstance(clip.tokenizer.word(one), str) for one in words[:4])
    assert len(words) < 10_000, "a short text has become long"
    clip.encode_text(clip.sentence_tokens(["a dog", "a café"]))
    clip.encode_images(test_view(PICTURE, clip.preprocess)[None])


def tries(name: str, folder: Path) -> Callable[[random.Random], None]:
    """One try with a model of a layout: a file is changed, the model used, the file put back."""
    make, files = LAYOUTS[name]
    model = make(folder)
    wholes = {file: (model / file).read_bytes() for file in files}

    def one(stream: random.Random) -> None:
        file = stream.choice(files)
        (model / file).write_bytes(changed(wholes[file], stream, is_json=file.endswith(".json")))
        try:
            used(model)
        finally:
            (model / file).write_bytes(wholes[file])

    return one
