"""RPP's unshared tokens: identities, which of them are dead, and that this is said."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from tests.prompts.made import both, build, loss, shapes, stir
from vlprompt.prompts.joint import IndependentSpec
from vlprompt.prompts.unshared import UnsharedSpec, dead_tensors
from vlprompt.towers import Clip

PARTS = ("q", "k", "v")


def quiet(clip: Clip, spec: UnsharedSpec) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(clip, spec)


def test_it_learns_three_tensors_a_layer_and_the_first_layers_own_rows(uneven: Clip) -> None:
    assert shapes(build(uneven, UnsharedSpec(n_image=5))) == {
        "ctx": (4, 48),
        "patch": (5, 64),
        **{f"text.{layer}.{part}": (4, 48) for layer in range(3) for part in PARTS},
        **{f"image.{layer}.{part}": (5, 64) for layer in range(4) for part in PARTS},
    }


def test_the_control_has_as_many_numbers_but_for_the_first_layers_own_rows(uneven: Clip) -> None:
    rpp, control = build(uneven, UnsharedSpec()), build(uneven, IndependentSpec(n_ctx=12, n_image=12))
    counts = [sum(tensor.numel() for tensor in module.parameters()) for module in (rpp, control)]
    assert counts[0] - counts[1] == 4 * 48 + 4 * 64


def test_text_starts_from_words_and_all_else_at_random(uneven: Clip) -> None:
    module = build(uneven, UnsharedSpec())
    words = uneven.embed_words("a photo of a")
    found = dict(module.named_parameters())
    for name, tensor in found.items():
        if name == "ctx" or name.startswith("text.0."):
            assert torch.equal(tensor, words)
        else:
            assert 0.01 < float(tensor.detach().std()) < 0.03, name
    drawn = [tensor for name, tensor in found.items() if name.startswith("image.") or name == "patch"]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_tied_tokens_that_replace_are_ordinary_deep_prompts(double: Clip, depth: int) -> None:
    ordinary = stir(build(double, IndependentSpec(depth=depth))).double()
    unshared = quiet(double, UnsharedSpec(depth=depth, residual="replace")).double()
    with torch.no_grad():
        for name, tensor in unshared.named_parameters():
            owner = name.rpartition(".")[0]
            tensor.copy_(dict(ordinary.named_parameters())["ctx" if owner == "text.0" else owner])
    for ours, theirs in zip(both(double, unshared()), both(double, ordinary())):
        assert float((ours - theirs).detach().abs().max()) < 1e-12 * float(theirs.detach().abs().max())


def test_untied_they_are_not(double: Clip) -> None:
    module = stir(build(double, UnsharedSpec())).double()
    before = both(double, module())
    for part in PARTS:
        changed = stir(build(double, UnsharedSpec())).double()
        with torch.no_grad():
            for layers in (changed.text, changed.image):
                layers["1"][part].neg_()
        for was, now in zip(before, both(double, changed())):
            assert float((was - now).detach().abs().max()) > 1e-5


@pytest.mark.parametrize("towers", ["text", "image"])
def test_one_tower_alone(uneven: Clip, towers: Any) -> None:
    spec = UnsharedSpec(towers=towers)
    module = build(uneven, spec)
    prompted = module()
    assert {name.partition(".")[0] for name in shapes(module)} == (
        {"ctx", "text"} if towers == "text" else {"patch", "image"}
    )
    assert (spec.layout is None) == (prompted.layout is None) == (towers == "image") == (not prompted.text)
    assert spec.reach.image_tower == bool(prompted.image) == (towers == "image")
    assert set(module.places()) == set(shapes(module))  # type: ignore[operator]


@pytest.mark.parametrize("residual", ["keep", "replace", "v"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_dead_tokens_are_exactly_those_without_gradient_and_are_warned_of(
    double: Clip, residual: Any, depth: int
) -> None:
    """Found by gradients; the rule of `dead_tensors` must say the same. Weight decay would hide it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = stir(build(double, UnsharedSpec(depth=depth, residual=residual))).double()
    found = torch.autograd.grad(loss(double, module()), list(module.parameters()), allow_unused=True)
    longest = max(float(one.norm()) for one in found if one is not None)
    without = {
        name
        for (name, _), one in zip(module.named_parameters(), found)
        if one is None or float(one.norm()) < 1e-12 * longest
    }
    rule = {*dead_tensors("text", depth, 4, residual), *dead_tensors("image", depth, 6, residual)}
    assert without == rule
    said = " ".join(str(one.message) for one in caught)
    assert all(name in said for name in rule)
    assert bool(caught) == bool(rule)


def test_with_the_default_residual_every_token_of_every_layer_is_alive_at_any_depth_below_the_towers() -> None:
    assert all(not dead_tensors("text", depth, 12, "keep") for depth in range(1, 12))
    assert dead_tensors("text", 12, 12, "keep") == ("ctx", *(f"text.{layer}.q" for layer in range(12)))
    assert dead_tensors("image", 9, 12, "replace") == tuple(f"image.{layer}.q" for layer in range(8))
