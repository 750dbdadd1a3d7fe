"""Any architecture, class list and prompt: the fast towers give the literal ones' values and gradients, in float64, to 1e-10."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import tiny
from tests.oracle import towers as oracle
from vlprompt.towers import Clip
from vlprompt.types import Prompted, Splice, TextLayout

EXACT = 1e-10
"""max |a - b| / max |b|, of values and of gradients."""
NO_GRADIENT = 1e-13
"""Where the plain way's gradient is zero or rounding (a query that nothing reads, a direction that softmax ignores)."""
bounded = settings(derandomize=True, database=None)

architectures = st.tuples(
    st.sampled_from([(6, 1), (8, 2), (12, 3), (20, 2)]), st.integers(1, 4), st.sampled_from(["quick_gelu", "gelu"])
)
class_names = st.lists(
    st.one_of(
        st.text("abcdeg .'-0_", min_size=1, max_size=7).filter(lambda s: s.strip(" _") != ""),
        st.lists(st.sampled_from(["cat", "dog", "bird.", "St.", "blue"]), min_size=1, max_size=4).map(" ".join),
    ),
    min_size=1,
    max_size=5,
)


@cache
def model(width: int, heads: int, layers: int, activation: str) -> Clip:
    """A random CLIP in float64; both towers of the same size, sequences of at most 34 tokens."""
    sizes = {"text_width": width, "image_width": width, "text_layers": layers, "image_layers": layers, "embed_dim": 5}
    with tempfile.TemporaryDirectory() as folder:
        small = {"context_length": 34, "image_size": 8, "patch_size": 4}
        return tiny.clip(Path(folder), heads=heads, activation=activation, **sizes, **small).double()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One drawn example: a model, a class list, a prompt, and how many rows are run at once."""

    clip: Clip
    names: list[str]
    layout: TextLayout
    splices: Mapping[int, Splice]
    max_rows: int | None


@st.composite
def text_cases(draw: st.DrawFn, *, with_states: bool = False) -> Case:
    """Contexts that classes share, of their own or per image, at three positions; at "end" also deeper and unshared tokens.

    with_states: only those whose states can be asked for.
    """
    (width, heads), layers, activation = draw(architectures)
    clip, names = model(width, heads, layers, activation), draw(class_names)
    num = draw(st.integers(1, 5))
    axis = draw(st.sampled_from(["shared", "image"] if with_states else ["shared", "class", "image"]))
    position = draw(st.sampled_from(["end"] if with_states else ["end", "end", "middle", "front"]))
    words = draw(st.sampled_from(["", "of a"])) if position == "end" else ""
    seed = draw(st.integers(0, 99))
    shape = (*{"shared": (), "class": (len(names),), "image": (2,)}[axis], num, width)
    splices = {0: splice(shape, seed, axis=axis)}
    if position == "end" and axis != "class":
        splices[0] = draw(one_splice(shape, seed, axis=axis, first=True))
        for layer in range(1, draw(st.integers(1, layers))):
            deep = draw(st.sampled_from([(shape, axis), ((num, width), "shared")]))
            splices[layer] = draw(one_splice(deep[0], seed + 10 * layer, axis=deep[1], first=False))
    return Case(
        clip=clip,
        names=names,
        layout=TextLayout(num_tokens=num, position=position, words=words, shared=axis != "class"),  # type: ignore[arg-type]
        splices=splices,
        max_rows=draw(st.one_of(st.none(), st.integers(1, 30))),
    )


@st.composite
def one_splice(draw: st.DrawFn, shape: tuple[int, ...], seed: int, *, axis: str, first: bool) -> Splice:
    """An ordinary prompt, or one whose queries, keys and values are apart."""
    residual = draw(st.sampled_from([None, None, "replace", "keep", "v"]))
    return splice(shape, seed, axis=axis, residual=residual, first=first)


def splice(shape: tuple[int, ...], seed: int, *, axis: str, residual: str | None = None, first: bool = True) -> Splice:
    generator = torch.Generator().manual_seed(seed)
    q, k, v, token = (
        (0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_() for _ in range(4)
    )
    if residual is None:
        return Splice(q=q, axis=axis)  # type: ignore[arg-type]
    kept = token if first and residual == "keep" else None
    return Splice(q=q, k=k, v=v, token=kept, axis=axis, residual=residual)  # type: ignore[arg-type]


def leaves(splices: Mapping[int, Splice]) -> list[Tensor]:
    return [t for s in splices.values() for t in (s.q, s.k, s.v, s.token) if t is not None]


def compare(ours: Tensor, theirs: Tensor, splices: Mapping[int, Splice]) -> None:
    """Values, and the gradients of one random projection of them."""
    close(ours, theirs)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    got, want = (
        torch.autograd.grad((out * weights).sum(), leaves(splices), allow_unused=True) for out in (ours, theirs)
    )
    for a, b in zip(got, want, strict=True):
        close(*(torch.zeros(1) if t is None else t for t in (a, b)))


def close(ours: Tensor, theirs: Tensor) -> None:
    error, size = float((ours - theirs).detach().abs().max()), float(theirs.detach().abs().max())
    assert error <= max(EXACT * size, NO_GRADIENT), f"{error} beside values of {size}"


@settings(bounded, max_examples=60)
@given(text_cases())
def test_any_text_prompt_equals_the_plain_way(case: Case) -> None:
    clip, names, layout, splices = case.clip, case.names, case.layout, dict(case.splices)
    tokens = clip.class_tokens(names, layout)
    features = clip.encode_text(tokens, Prompted(text=splices, layout=layout), max_rows=case.max_rows)
    compare(features.pooled, oracle.text(clip, names, layout, splices), splices)


@settings(bounded, max_examples=20)
@given(text_cases(with_states=True))
def test_the_states_of_any_shared_context_equal_the_plain_way(case: Case) -> None:
    clip, names, layout, splices = case.clip, case.names, case.layout, dict(case.splices)
    tokens, prompted = clip.class_tokens(names, layout), Prompted(text=splices, layout=layout)
    states = clip.encode_text(tokens, prompted, states=True, max_rows=case.max_rows).states
    assert states is not None
    batch = next((len(s.q) for s in splices.values() if s.axis == "image"), None)
    rows = [
        oracle.text_states(clip, names[0], layout, {i: oracle.one(s, 0, b) for i, s in splices.items()})[0]
        for b in range(batch or 1)
    ]
    theirs = torch.stack(rows)[:, : 1 + layout.num_tokens]
    compare(states, theirs if batch else theirs[0], splices)


@st.composite
def image_cases(draw: st.DrawFn) -> tuple[Clip, dict[int, Splice]]:
    """Shared or per-image tokens, deep and unshared, in any image tower."""
    (width, heads), layers, activation = draw(architectures)
    num, seed = draw(st.integers(1, 4)), draw(st.integers(0, 99))
    splices = {}
    for layer in range(draw(st.integers(1, layers))):
        axis = draw(st.sampled_from(["shared", "image"]))
        shape = (num, width) if axis == "shared" else (2, num, width)
        splices[layer] = draw(one_splice(shape, seed + 10 * layer, axis=axis, first=layer == 0))
    return model(width, heads, layers, activation), splices


@settings(bounded, max_examples=30)
@given(image_cases())
def test_any_image_prompt_equals_the_plain_way(case: tuple[Clip, dict[int, Splice]]) -> None:
    clip, splices = case
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ours = clip.encode_images(pixels, Prompted(image=splices)).pooled
    theirs = torch.stack(
        [
            oracle.image_row(clip, image, {i: oracle.one(s, 0, b) for i, s in splices.items()})
            for b, image in enumerate(pixels)
        ]
    )
    compare(ours, theirs, splices)
