"""Folders of published numbers: what the published implementations gave on seeded random weights (parity/README.md).

Cases are rebuilt from seeds with numpy's frozen `RandomState` stream, in OpenAI's state-dict layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprompt import reading
from vlprompt.errors import data_error

INDEX, TRAJECTORIES = "index.json", "trajectories"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with an index, the manifests that it names, and an .npz file for each case."""

    place: Path

    def index(self) -> dict[str, Any]:
        """The list of cases: sources, configurations, seeds of weights, images and learned tensors."""
        found = reading.json_object(self.place / INDEX)
        cases = found.get("cases")
        if not isinstance(cases, list) or not all(
            isinstance(one, dict) and isinstance(one.get("name"), str) for one in cases
        ):
            raise data_error(f"{self.place / INDEX} must have a list 'cases', each with a 'name'.")
        return found

    def manifest(self, name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Tensor names and shapes of a weight set, in the order in which they are drawn."""
        return tuple((str(key), tuple(int(n) for n in shape)) for key, shape in reading.json_file(self.place / name))

    def case(self, name: str) -> dict[str, NDArray[Any]]:
        """What the published implementation gave: token ids, logits, losses, gradients, or the numbers of a whole run."""
        data = reading.data(self.place / f"{name}.npz")
        try:
            with np.load(BytesIO(data)) as arrays:
                return dict(arrays)
        except Exception as problem:  # readers of damaged files raise whatever they stumble over
            where = self.place / f"{name}.npz"
            raise data_error(f"{where} is not an .npz file of numbers, or it is damaged ({problem}).") from problem


OURS = Folder(Path(str(files("vlprompt"))) / "parity")
"""The folder in the package."""


def drawn_weights(rows: Sequence[tuple[str, Sequence[int]]], seed: int) -> dict[str, NDArray[Any]]:
    """Random CLIP weights in OpenAI's names, float32 (int64 for batch-norm counters), drawn in the order of `rows`."""
    rng = np.random.RandomState(seed)
    return {name: _tensor(name, shape, rng) for name, shape in rows}


def _tensor(name: str, shape: Sequence[int], rng: np.random.RandomState) -> NDArray[Any]:
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


def drawn_tensors(tensors: Sequence[tuple[str, Sequence[int]]], seed: int | None) -> dict[str, NDArray[Any]]:
    """Values of the learned tensors: 0.02 * normal, drawn in the given order."""
    rng = np.random.RandomState(seed)
    return {name: (0.02 * rng.standard_normal(shape)).astype(np.float32) for name, shape in tensors}


def drawn_images(batch: int, size: int, seed: int) -> NDArray[Any]:
    """Preprocessed images, (batch, 3, size, size) float32."""
    return np.random.RandomState(seed).standard_normal((batch, 3, size, size)).astype(np.float32)
