"""What every layout is read into: one value, whatever the files were."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vlprompt.towers.config import ClipConfig
from vlprompt.towers.tokenizer import Tokenizer
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
