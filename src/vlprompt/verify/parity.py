"""Numbers that the published implementations gave on seeded random weights; README.md says what they are.

Cases are rebuilt from seeds with numpy's frozen `RandomState` stream, in OpenAI's state-dict layout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HERE = files("vlprompt").joinpath("parity")


def index() -> dict[str, Any]:
    """The list of cases: sources, configurations, seeds of weights and learned tensors."""
    return dict(json.loads(_HERE.joinpath("index.json").read_text()))


def manifest(name: str) -> list[tuple[str, list[int]]]:
    """Tensor names and shapes of a weight set, in the order in which they are drawn."""
    return [(key, shape) for key, shape in json.loads(_HERE.joinpath(name).read_text())]


def case(name: str) -> dict[str, NDArray[Any]]:
    """What the published implementation gave: token ids, logits, losses, gradients."""
    with np.load(BytesIO(_HERE.joinpath(f"{name}.npz").read_bytes())) as arrays:
        return dict(arrays)


def weights(rows: Sequence[tuple[str, list[int]]], seed: int) -> dict[str, NDArray[Any]]:
    """Random CLIP weights in OpenAI's names, float32 (int64 for batch-norm counters), drawn in the order of `rows`."""
    rng = np.random.RandomState(seed)
    return {name: _tensor(name, shape, rng) for name, shape in rows}


def _tensor(name: str, shape: list[int], rng: np.random.RandomState) -> NDArray[Any]:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    x: NDArray[Any] = rng.standard_normal(shape or (1,)).astype(np.float32).reshape(shape)
    is_norm = any(part in name for part in ("ln_", ".bn", "downsample.1"))
    embeddings = (
        "positional_embedding",
        "visual.positional_embedding",
        "visual.class_embedding",
        "visual.attnpool.positional_embedding",
    )
    if name == "logit_scale":
        x = np.full(shape, 4.6052, np.float32)
    elif name.endswith("running_var"):
        x = 1 + 0.2 * np.abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif is_norm and name.endswith("weight"):
        x = 1 + 0.05 * x
    elif name.endswith("bias") or "token_embedding" in name or name in embeddings:
        x = 0.05 * x
    elif len(shape) >= 2:
        fan_in = shape[0] if name in ("text_projection", "visual.proj") else int(np.prod(shape[1:]))
        x = x * fan_in**-0.5
    return np.ascontiguousarray(x, dtype=np.float32)


def learned(names_and_shapes: Sequence[tuple[str, list[int]]], seed: int) -> dict[str, NDArray[Any]]:
    """Values of the learned tensors: 0.02 * normal, drawn in the given order."""
    rng = np.random.RandomState(seed)
    return {name: (0.02 * rng.standard_normal(shape)).astype(np.float32) for name, shape in names_and_shapes}


def images(batch: int, size: int, seed: int) -> NDArray[Any]:
    """Preprocessed images, (batch, 3, size, size) float32."""
    return np.random.RandomState(seed).standard_normal((batch, 3, size, size)).astype(np.float32)
