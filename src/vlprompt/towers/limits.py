"""What a model's files may ask for: compared with the weights that are there, before anything is built."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlprompt import reading
from vlprompt.errors import data_error
from vlprompt.towers.config import ClipConfig, ResNetConfig, TowerConfig
from vlprompt.types import Preprocess

MOST = 10_000_000
MAX_SIDE = 8192
MAX_SCALE = 20.0
"""Of `logit_scale`, whose exponential multiplies the cosines; CLIP clips it at 4.6."""
NORMALIZERS = frozenset(
    ("Precompiled", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "BertNormalizer")
)
MAX_STEPS = 16
"""Of each part of a tokenizer."""


def require_buildable(config: ClipConfig, preprocess: Preprocess, weights: Mapping[str, Tensor], where: str) -> None:
    """UserError: sizes that are not counts, more layers than the file has tensors, heads that do not divide a width, or pixels that
    cannot be normalised."""
    wrong = []
    for name in ("embed_dim", "vocab_size", "context_length", "image_size", "patch_size"):
        most = MAX_SIDE if name in ("image_size", "patch_size") else MOST
        wrong += _off(name, getattr(config, name), most)
    for part, tower in (("text", config.text), ("image", config.image)):
        if isinstance(tower, ResNetConfig):
            wrong += [one for count in tower.blocks for one in _off(f"{part} blocks", count, len(weights))]
            wrong += _off(f"{part} stem", tower.stem, MOST) + _off(f"{part} heads", tower.heads, MOST)
        elif isinstance(tower, TowerConfig):
            for name in ("width", "heads", "hidden"):
                wrong += _off(f"{part} {name}", getattr(tower, name), MOST)
            wrong += _off(f"{part} layers", tower.layers, len(weights))
            if not wrong and tower.width % tower.heads:
                wrong.append(f"{part} width {tower.width} is not a multiple of its {tower.heads} heads")
            if not wrong and part == "image" and config.image_form.rotary and tower.width // tower.heads % 4:
                wrong.append(
                    f"image heads of {tower.width // tower.heads} numbers, which rotary positions do not divide by 4"
                )
            if not 0 < tower.eps < 1:
                wrong.append(f"{part} epsilon is {tower.eps}")
    if config.trunk is not None:
        wrong += _off("trunk stem", config.trunk.stem, MOST) + _off("trunk head", config.trunk.head, MOST)
        for stage in config.trunk.stages:
            wrong += _off("trunk blocks", stage.blocks, len(weights)) + _off("trunk stride", stage.stride, MAX_SIDE)
            for name in ("expansion", "channels", "kernel"):
                wrong += _off(f"trunk {name}", getattr(stage, name), MOST)
    if not wrong and config.patch_size > config.image_size:
        wrong.append(f"patches of {config.patch_size} pixels in images of {config.image_size}")
    wrong += _off("resize", preprocess.resize, MAX_SIDE) + _off("crop", preprocess.crop, MAX_SIDE)
    for name, values, low in (("mean", preprocess.mean, -math.inf), ("std", preprocess.std, 0.0)):
        if len(values) != 3 or not all(reading.fits(one, float) and low < one < 1e6 for one in values):
            wrong.append(f"{name} is {reading.shown(str(values))}, not three numbers")
    if wrong:
        raise data_error(
            f"{where}: its configuration cannot be built: {'; '.join(wrong[:6])}. Fetch the model's files again."
        )


def _off(name: str, value: object, most: int) -> list[str]:
    good = type(value) is int and 1 <= value <= most
    return [] if good else [f"{name} is {reading.shown(value)}, allowed are 1 to {most:,}"]


def scale_of(weights: Mapping[str, Tensor], where: str) -> float:
    """The exponential of `logit_scale`. UserError: none, several, or one that no float holds."""
    tensor = weights.get("logit_scale")
    value = float(tensor) if tensor is not None and tensor.numel() == 1 else math.nan
    if not -MAX_SCALE <= value <= MAX_SCALE:
        names = f"; there are {', '.join(sorted(weights)[:4])}, ..."
        said = f"is missing{names}" if tensor is None else f"is {value if tensor.numel() == 1 else tuple(tensor.shape)}"
        raise data_error(f"{where}: the tensor logit_scale {said}. Fetch the checkpoint again.")
    return math.exp(value)


def bias_of(weights: Mapping[str, Tensor], where: str) -> float:
    """`logit_bias`, 0 where there is none. UserError: several, or one that is not a number."""
    tensor = weights.get("logit_bias", torch.zeros(()))
    value = float(tensor) if tensor.numel() == 1 else math.nan
    if not -1e4 <= value <= 1e4:
        raise data_error(f"{where}: the tensor logit_bias is {value}. Fetch the checkpoint again.")
    return value


def checked_tokenizer(path: Path) -> str:
    """The text of a `tokenizer.json` whose steps cannot make a text longer than a few times its length. UserError: others."""
    content = reading.text(path, most=1 << 26)
    value = reading.json_value(content, str(path))
    if not isinstance(value, dict):
        raise data_error(f"cannot read the tokenizer {path}: it holds no JSON object. Fetch the file again.")
    model = value.get("model")
    if isinstance(model, dict) and model.get("type") == "BPE" and model.get("continuing_subword_prefix"):
        prefix = reading.shown(json.dumps(model["continuing_subword_prefix"]))
        raise data_error(  # the library panics where a merge is shorter
            f"cannot read the tokenizer {path}: continuing_subword_prefix is {prefix}. CLIP's tokenizers have none. Use CLIP's own "
            "tokenizer.json."
        )
    for part, (inside, allowed) in STEPS.items():
        steps = _steps(value.get(part), inside)
        growing = Counter(map(_growing, steps))
        odd = [reading.shown(json.dumps(one)) for one in steps if not _harmless(one, part)]
        odd += [f"{growing[name]} of {name}" for name, most in GROWING.items() if growing[name] > most]
        odd += [f"{len(steps)} steps"] if len(steps) > MAX_STEPS else []
        if odd:
            raise data_error(
                f"cannot read the tokenizer {path}: its {part} has {odd[0]}. Allowed are at most {MAX_STEPS} steps; {allowed}. Use "
                "CLIP's own tokenizer.json."
            )
    return content


GROWING = {"Precompiled": 1, "Metaspace": 1, "ByteLevel": 1, "Replace by Regex": 4}
"""Steps that may make a text longer, and how many of each a part may have. A pattern may match between any two letters, so a replacement
may double a text; bytes beyond ASCII are written as two letters; and a space is put before each piece."""
MAX_PIECES, MAX_TABLE = 16, 1 << 21
"""Of a template; and letters of a precompiled table, each of whose entries may be as long."""
STEPS = {
    "normalizer": (
        "normalizers",
        f"{', '.join(sorted(NORMALIZERS))}, and a Replace by at most one letter; one Precompiled, four patterns",
    ),
    "pre_tokenizer": ("pretokenizers", "one ByteLevel and one Metaspace"),
    "post_processor": ("processors", f"templates of at most {MAX_PIECES} pieces"),
    "decoder": ("decoders", "a Replace by at most one letter; four patterns"),
}
"""Part of a tokenizer -> where a sequence of its steps stands, and what is allowed in it."""


def _steps(value: Any, inside: str) -> list[Any]:
    if isinstance(value, dict) and value.get("type") == "Sequence":
        inner = value.get(inside)
        return [step for one in inner for step in _steps(one, inside)] if isinstance(inner, list) else [value]
    return [] if value is None else [value]


def _growing(step: Any) -> str:
    """The step's name among `GROWING`; "": it cannot make a text longer."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Replace":
        return "Replace by Regex" if "Regex" in (step.get("pattern") or {}) and step.get("content") else ""
    return kind if isinstance(kind, str) and kind in GROWING else ""


def _harmless(step: Any, part: str) -> bool:
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Prepend":
        return isinstance(step.get("prepend"), str) and len(step["prepend"]) <= 1
    if kind == "Replace":
        content, pattern = step.get("content"), step.get("pattern")
        text = next(iter(pattern.values()), "") if isinstance(pattern, dict) else ""
        return isinstance(content, str) and len(content) <= 1 and isinstance(text, str) and 0 < len(text) <= 64
    if kind == "Precompiled":
        table = step.get("precompiled_charsmap")
        return table is None or (isinstance(table, str) and len(table) <= MAX_TABLE)
    if kind == "TemplateProcessing":
        return all(isinstance(step.get(one), list) and len(step[one]) <= MAX_PIECES for one in ("single", "pair"))
    return isinstance(kind, str) and (part != "normalizer" or kind in NORMALIZERS)
