"""bfloat16 and float16 on the CPU: near float32 in value and gradient, whatever is learned, however small the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlprompt.towers import Clip, load
from vlprompt.types import Features, Prompted, Splice, TextLayout

NAMES = ("cat", "dog house", "St. Bernard", "red", "blue circle", "can't-miss truck", "great big tree")
VALUE = {"bfloat16": 3e-4, "float16": 1e-5}
"""One minus the cosine to float32's features (the largest seen: 1.1e-4 and 1.9e-6)."""
GRADIENT = {"bfloat16": 0.04, "float16": 0.005}
"""max |a - b| / max |b| of the learned tokens' gradient (the largest seen: 0.021 and 0.0022)."""


def randn(*shape: int, seed: int = 0) -> Tensor:
    return (0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def unshared(num: int, layer: int) -> Splice:
    q, k, v = (randn(num, 64, seed=9 * layer + i) for i in range(3))
    return Splice(q=q, k=k, v=v)


TEXT: dict[str, tuple[TextLayout, dict[int, Splice]]] = {
    "end": (TextLayout(num_tokens=4), {0: Splice(q=randn(4, 64))}),
    "middle": (TextLayout(num_tokens=4, position="middle"), {0: Splice(q=randn(4, 64))}),
    "class": (TextLayout(num_tokens=3, shared=False), {0: Splice(q=randn(len(NAMES), 3, 64), axis="class")}),
    "image": (TextLayout(num_tokens=3), {0: Splice(q=randn(2, 3, 64), axis="image")}),
    "deep": (TextLayout(num_tokens=2, words="of a"), {i: Splice(q=randn(2, 64, seed=i)) for i in range(3)}),
    "unshared": (TextLayout(num_tokens=2), {i: unshared(2, i) for i in range(3)}),
}
IMAGE = {
    "deep": {i: Splice(q=randn(2, 64, seed=i)) for i in range(3)},
    "unshared": {i: unshared(2, i) for i in range(3)},
}


@cache
def model(directory: Path, dtype: str) -> Clip:
    return load(directory, dtype=dtype)


def gradient(features: Features, splices: Mapping[int, Splice], size: float = 1.0) -> Tensor:
    """Of a fixed random projection of the normalised features, with respect to all learned tokens; zero where one has no effect."""
    weights = size * torch.randn(features.unit.shape, generator=torch.Generator().manual_seed(3))
    leaves = [t for s in splices.values() for t in (s.q, s.k, s.v) if t is not None]
    found = torch.autograd.grad((features.unit * weights).sum(), leaves, materialize_grads=True, retain_graph=True)
    return torch.cat([one.flatten() for one in found])


def compare(half: Features, full: Features, splices: Mapping[int, Splice], dtype: str) -> None:
    assert half.pooled.dtype == torch.float32
    assert float((1 - (half.unit * full.unit).sum(-1)).detach().max()) <= VALUE[dtype]
    for size in (1.0, 1e-7):  # the second is far below what float16 can hold
        got, want = gradient(half, splices, size), gradient(full, splices, size)
        assert got.dtype == torch.float32
        assert float((got - want).abs().max()) <= GRADIENT[dtype] * float(want.abs().max())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("max_rows", [None, 9])
@pytest.mark.parametrize("name", TEXT)
def test_text_prompts_are_near_float32(clip_dir: Path, name: str, max_rows: int | None, dtype: str) -> None:
    layout, splices = TEXT[name]
    prompted = Prompted(text=splices, layout=layout)
    half, full = (
        clip.encode_text(clip.class_tokens(NAMES, layout), prompted, max_rows=max_rows)
        for clip in (model(clip_dir, dtype), model(clip_dir, "float32"))
    )
    compare(half, full, splices, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", IMAGE)
def test_image_prompts_are_near_float32(clip_dir: Path, name: str, dtype: str) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    half, full = (
        model(clip_dir, each).encode_images(pixels, Prompted(image=IMAGE[name])) for each in (dtype, "float32")
    )
    compare(half, full, IMAGE[name], dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("way", ["host", "alone"])
def test_gradients_of_states_and_of_embeddings_join(clip_dir: Path, way: str, dtype: str) -> None:
    layout, splices = TEXT["deep"]
    prompted, found = Prompted(text=splices, layout=layout), []
    for clip in (model(clip_dir, dtype), model(clip_dir, "float32")):
        text = clip.encode_text(clip.class_tokens(NAMES, layout), prompted, states=way == "host")
        states = text.states if way == "host" else clip.context(prompted, deep=True).states
        assert states is not None
        loss = 1e-6 * states.square().mean() + 1e-3 * text.unit.sum()
        found.append(torch.cat(torch.autograd.grad(loss, [splice.q for splice in splices.values()])).flatten())
    got, want = found
    assert float((got - want).abs().max()) <= GRADIENT[dtype] * float(want.abs().max())


def test_no_gradient_and_an_infinite_one_stay_what_they_are(clip_dir: Path) -> None:
    layout, splices = TEXT["end"]
    clip = model(clip_dir, "float16")
    features = clip.encode_text(clip.class_tokens(NAMES, layout), Prompted(text=splices, layout=layout))
    assert not gradient(features, splices, 0.0).any()
    assert not torch.isfinite(gradient(features, splices, float("inf"))).all()
