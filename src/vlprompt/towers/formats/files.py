"""What layouts share: the value that each is read into, and files (JSON, safetensors, tokenizers), each damaged one named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlprompt import reading
from vlprompt.errors import UserError, data_error
from vlprompt.towers.config import ClipConfig
from vlprompt.towers.tokenizer import Manner, Tokenizer, byte_pair_tokenizer
from vlprompt.types import Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's image normalisation, where a checkpoint states none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a checkpoint holds, in our terms; `weights` in OpenAI's names."""

    config: ClipConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    preprocess: Preprocess
    published: str | None = None
    """OpenAI's name of the model (``ViT-B/16``), where the file is, byte for byte, one that OpenAI published."""


def require(directory: Path, name: str, holds: str) -> Path:
    """The path of `name`; UserError if it is not there, with what such a directory `holds`."""
    path = directory / name
    if not path.is_file():
        raise data_error(f"{directory} has no {name}. {holds}; copy the missing file from where the model came from.")
    return path


def read_json(path: Path) -> dict[str, Any]:
    try:
        return reading.json_object(path)
    except UserError as error:
        raise data_error(f"{error} Fetch the file again.") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in the dtypes they were saved in."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise data_error(f"{path} is not a complete safetensors file: {error}. Fetch it again.") from error


WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "model.", "clip.")
"""What DataParallel, torch.compile, PEFT and people's own modules put before every name."""


def bare_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the wrappers that all their names begin with."""
    names = dict(tensors)
    while found := next((one for one in WRAPPERS if names and all(name.startswith(one) for name in names)), None):
        names = {name.removeprefix(found): tensor for name, tensor in names.items()}
    return names


def pad_of(directory: Path, tokenizer: Tokenizer) -> int:
    """The id that fills sentences up: the tokenizer's own pad token, else `<pad>` or `[PAD]`, else what ends a sentence, else 0."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        said = read_json(directory / name).get("pad_token") if (directory / name).is_file() else None
        said = said.get("content") if isinstance(said, dict) else said
        if isinstance(said, str) and tokenizer.id_of(said) is not None:
            return cast(int, tokenizer.id_of(said))
    known = (tokenizer.id_of(one) for one in ("<pad>", "[PAD]"))
    return next((one for one in known if one is not None), max(tokenizer.end_id, 0))


def read_tokenizer(directory: Path, manner: Manner = "clip") -> Tokenizer | None:
    """The directory's own tokenizer: tokenizer.json, else vocab.json with merges.txt; None where it has none of them."""
    if (directory / "tokenizer.json").is_file():
        return Tokenizer.from_file(directory / "tokenizer.json", manner)
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        return None
    try:
        lines = reading.text(merges).split("\n")
        lines = lines[1:] if lines[0].startswith("#version") else lines
        pairs = [(left, right) for left, right in (line.split() for line in lines if line.strip())]
        return byte_pair_tokenizer(read_json(vocab), pairs)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the library raises bare Exception, and its own panic, which is none
        raise data_error(
            f"cannot build the tokenizer of {vocab} and {merges}: {error}. Fetch both files again."
        ) from error
