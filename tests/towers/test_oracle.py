"""The fast towers against the literal ones, value and gradient, in float64."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.oracle import towers as oracle
from vlprompt.errors import UserError
from vlprompt.towers import Clip
from vlprompt.types import LowRank, Prompted, Splice, TextLayout

NAMES = ["cat", "dog house", "St. Bernard", "red", "blue circle", "can't-miss truck", "great big tree"]


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny.clip(tmp_path_factory.mktemp("double")).double()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def unshared(num: int, width: int, seed: int, residual: str, token: bool = False) -> Splice:
    parts = [randn(num, width, seed=seed + i) for i in range(4)]
    return Splice(q=parts[0], k=parts[1], v=parts[2], token=parts[3] if token else None, residual=residual)  # type: ignore[arg-type]


def leaves(splices: dict[int, Splice]) -> list[torch.Tensor]:
    return [t for s in splices.values() for t in (s.q, s.k, s.v, s.token) if t is not None]


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-10) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().abs().max()) <= tolerance * max(float(theirs.detach().abs().max()), 1e-30)


def compare_text(clip: Clip, layout: TextLayout, splices: dict[int, Splice], names: list[str]) -> None:
    """Values and the gradients of a random projection of them."""
    ours = clip.encode_text(clip.class_tokens(names, layout), Prompted(text=splices, layout=layout)).pooled
    theirs = oracle.text(clip, names, layout, splices)
    close(ours, theirs)
    weights = randn(*ours.shape, seed=77).detach()
    got = torch.autograd.grad((ours * weights).sum(), leaves(splices), allow_unused=True)
    want = torch.autograd.grad((theirs * weights).sum(), leaves(splices), allow_unused=True)
    for a, b in zip(got, want):
        a, b = (torch.zeros(1) if t is None else t for t in (a, b))
        assert float((a - b).abs().max()) <= 1e-9 * max(float(b.abs().max()), 1e-6)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("num_tokens", [1, 4, 5])
def test_a_context_at_each_position_equals_the_plain_way(double: Clip, position: str, num_tokens: int) -> None:
    layout = TextLayout(num_tokens=num_tokens, position=position)  # type: ignore[arg-type]
    compare_text(double, layout, {0: Splice(q=randn(num_tokens, 64))}, NAMES)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_class_specific_contexts_equal_the_plain_way(double: Clip, position: str) -> None:
    layout = TextLayout(num_tokens=3, position=position, shared=False)  # type: ignore[arg-type]
    compare_text(double, layout, {0: Splice(q=randn(len(NAMES), 3, 64), axis="class")}, NAMES)


def test_image_conditioned_contexts_equal_the_plain_way(double: Clip) -> None:
    layout = TextLayout(num_tokens=2)
    compare_text(double, layout, {0: Splice(q=randn(3, 2, 64), axis="image")}, NAMES[:4])


def test_fixed_words_and_deeper_tokens_equal_the_plain_way(double: Clip) -> None:
    layout = TextLayout(num_tokens=2, words="of a")
    splices = {0: Splice(q=randn(2, 64)), 1: Splice(q=randn(2, 64, seed=1)), 2: Splice(q=randn(2, 64, seed=2))}
    compare_text(double, layout, splices, NAMES)


@pytest.mark.parametrize("residual", ["replace", "keep", "v"])
def test_unshared_text_tokens_equal_the_plain_way(double: Clip, residual: str) -> None:
    layout = TextLayout(num_tokens=2)
    splices = {0: unshared(2, 64, 10, residual, token=residual == "keep"), 1: unshared(2, 64, 20, residual)}
    compare_text(double, layout, splices, NAMES)


@pytest.mark.parametrize("residual", ["replace", "keep", "v", "shared"])
def test_image_tokens_equal_the_plain_way(double: Clip, residual: str) -> None:
    if residual == "shared":
        splices = {0: Splice(q=randn(2, 64)), 1: Splice(q=randn(2, 64, seed=1))}
    else:
        splices = {0: unshared(2, 64, 10, residual, token=residual == "keep"), 1: unshared(2, 64, 20, residual)}
    pixels = randn(2, 3, 32, 32, seed=5).detach()
    ours = double.encode_images(pixels, Prompted(image=splices)).pooled
    theirs = torch.stack([oracle.image_row(double, image, splices) for image in pixels])
    close(ours, theirs)
    got = torch.autograd.grad(ours.sum(), leaves(splices), allow_unused=True)
    want = torch.autograd.grad(theirs.sum(), leaves(splices), allow_unused=True)
    for a, b in zip(got, want):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert float((a - b).abs().max()) <= 1e-9 * max(float(b.abs().max()), 1e-6)


@settings(max_examples=12)
@given(
    num_tokens=st.integers(1, 6),
    names=st.lists(
        st.text("abcdeg .'-0", min_size=1, max_size=8).filter(lambda s: s.strip(" ")), min_size=1, max_size=5
    ),
    position=st.sampled_from(["end", "middle", "front"]),
)
def test_any_names_and_lengths_equal_the_plain_way(
    double: Clip, num_tokens: int, names: list[str], position: str
) -> None:
    layout = TextLayout(num_tokens=num_tokens, position=position)  # type: ignore[arg-type]
    compare_text(double, layout, {0: Splice(q=randn(num_tokens, 64))}, names)


def test_tied_unshared_tokens_with_replace_equal_ordinary_deep_tokens(clip: Clip) -> None:
    layout = TextLayout(num_tokens=2)
    rows = [randn(2, 64, seed=i).detach().float() for i in range(2)]
    plain = {i: Splice(q=r) for i, r in enumerate(rows)}
    tied = {i: Splice(q=r, k=r, v=r) for i, r in enumerate(rows)}
    tokens = clip.class_tokens(NAMES, layout)
    a, b = (clip.encode_text(tokens, Prompted(text=s, layout=layout)).pooled for s in (plain, tied))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    a, b = (clip.encode_images(pixels, Prompted(image=s)).pooled for s in (plain, tied))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_deeper_tokens_with_a_context_that_classes_do_not_share_are_refused(clip: Clip) -> None:
    layout = TextLayout(num_tokens=2, position="middle")
    splices = {0: Splice(q=torch.zeros(2, 64)), 1: Splice(q=torch.zeros(2, 64))}
    with pytest.raises(UserError, match="middle"):
        clip.encode_text(clip.class_tokens(NAMES, layout), Prompted(text=splices, layout=layout))


def test_states_of_the_shared_prefix_equal_a_pass_of_the_context_alone(clip: Clip) -> None:
    layout = TextLayout(num_tokens=4)
    splices = {0: Splice(q=randn(4, 64).detach().float())}
    prompted = Prompted(text=splices, layout=layout)
    host = clip.encode_text(clip.class_tokens(NAMES, layout), prompted, states=True).states
    assert host is not None
    torch.testing.assert_close(host, clip.context(prompted).states, rtol=1e-5, atol=1e-5)


def test_model_on_disk_is_what_the_fixture_says(tmp_path: Path) -> None:
    assert tiny.clip(tmp_path / "a", seed=1).weight_hash != tiny.clip(tmp_path / "b", seed=2).weight_hash


@pytest.mark.parametrize("max_rows", [1, 7, 20])
@pytest.mark.parametrize("kind", ["shared", "class", "image", "middle"])
def test_bounded_memory_gives_the_same_values_and_gradients(double: Clip, max_rows: int, kind: str) -> None:
    layout = TextLayout(num_tokens=3, position="middle" if kind == "middle" else "end", shared=kind != "class")
    axis = kind if kind in ("class", "image") else "shared"
    splice = Splice(q=randn(*{"class": (len(NAMES),), "image": (2,)}.get(kind, ()), 3, 64), axis=axis)  # type: ignore[arg-type]
    prompted = Prompted(text={0: splice}, layout=layout)
    tokens = double.class_tokens(NAMES, layout)
    assert len(tokens.parts(max_rows)) > 1
    assert sum(part.num_classes for part in tokens.parts(max_rows)) == len(NAMES)
    whole, bounded = (double.encode_text(tokens, prompted, max_rows=rows).pooled for rows in (None, max_rows))
    close(bounded, whole)
    weights = randn(*whole.shape, seed=3).detach()
    (want,), (got,) = (torch.autograd.grad((out * weights).sum(), splice.q) for out in (whole, bounded))
    close(got, want)


def test_deep_tokens_of_each_class_equal_the_plain_way(double: Clip) -> None:
    """A class at a time, its own tokens are ordinary deeper ones; in parts too."""
    layout = TextLayout(num_tokens=3, shared=False)
    ctx, deep = randn(3, 64), randn(len(NAMES), 3, 64, seed=1)
    prompted = Prompted(text={0: Splice(q=ctx), 2: Splice(q=deep, axis="class")}, layout=layout)
    tokens = double.class_tokens(NAMES, layout)
    ours, parts = (double.encode_text(tokens, prompted, max_rows=rows).pooled for rows in (None, 12))
    theirs = torch.cat(
        [oracle.text(double, [name], layout, {0: Splice(q=ctx), 2: Splice(q=deep[c])}) for c, name in enumerate(NAMES)]
    )
    close(ours, theirs)
    close(parts, theirs)
    weights = randn(*ours.shape, seed=77).detach()
    want = torch.autograd.grad((theirs * weights).sum(), [ctx, deep])
    for got in (ours, parts):
        for a, b in zip(torch.autograd.grad((got * weights).sum(), [ctx, deep], retain_graph=True), want, strict=True):
            close(a, b, 1e-9)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_changed_weights_equal_a_model_with_those_weights(double: Clip, tower: str) -> None:
    """Every matrix of two layers: the same value and gradient as W + scale * up down put into a copy of the model."""
    changes, copied = {}, copy.deepcopy(double)
    blocks = (copied.text_tower if tower == "text" else copied.visual).transformer.resblocks
    for seed, (layer, part) in enumerate(itertools.product((0, 2), ("q", "k", "v", "o", "fc", "proj"))):
        block = blocks[layer]
        at = {"o": block.attn.out_proj, "fc": block.mlp.c_fc, "proj": block.mlp.c_proj}.get(part)
        weight = block.attn.in_proj_weight if at is None else at.weight
        width = weight.shape[1]
        out = width if at is None else weight.shape[0]
        one = LowRank(down=randn(2, width, seed=seed), up=randn(out, 2, seed=50 + seed), scale=0.5)
        changes[(tower, layer, part)] = one
        change = one.scale * one.up @ one.down
        holder, name = (block.attn, "in_proj_weight") if at is None else (at, "weight")
        if at is None:
            place = ("q", "k", "v").index(part) * width
            change = torch.cat([change.new_zeros(place, width), change, change.new_zeros(2 * width - place, width)])
        merged = getattr(holder, name) + change
        delattr(holder, name)
        setattr(holder, name, merged)
    prompted = Prompted(weights=changes)  # type: ignore[arg-type]
    if tower == "text":
        tokens = double.class_tokens(NAMES)
        ours = double.encode_text(tokens, prompted, max_rows=9).pooled
        theirs = copied.encode_text(copied.class_tokens(NAMES)).pooled
    else:
        pixels = randn(2, 3, 32, 32, seed=9).detach()
        ours, theirs = double.encode_images(pixels, prompted).pooled, copied.encode_images(pixels).pooled
    close(ours, theirs)
    learned = [x for one in changes.values() for x in (one.down, one.up)]
    weights = randn(*ours.shape, seed=77).detach()
    for a, b in zip(*(torch.autograd.grad((x * weights).sum(), learned) for x in (ours, theirs)), strict=True):
        close(a, b, 1e-9)
