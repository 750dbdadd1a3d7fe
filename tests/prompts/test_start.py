"""The published code's names of learned tensors, and what a context is without any option."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.prompts.made import build
from vlprompt.errors import UserError
from vlprompt.prompts import ContextSpec
from vlprompt.prompts.joint import IndependentSpec
from vlprompt.prompts.start import ours
from vlprompt.prompts.unshared import UnsharedSpec
from vlprompt.towers import Clip


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("ctx", "ctx"),
        ("proj.weight", "proj.0.weight"),
        ("compound_prompts_text.0", "text.1"),
        ("compound_prompts_text.7", "text.8"),
        ("compound_prompt_projections.0.bias", "proj.1.bias"),
        ("text_encoder.VPT", "text.0"),
        ("image_encoder.transformer.resblocks.3.VPT_shallow", "image.3"),
        ("meta_net.linear1.weight", "meta_net.linear1.weight"),
    ],
)
def test_published_names_are_ours(published: str, name: str) -> None:
    """MaPLe's tokens and projections of layer i + 1 stand at i; VPT_shallow's of a deeper layer at that layer."""
    assert ours(published) == name


def test_a_context_without_options_has_the_16_tokens_of_the_paper(clip: Clip) -> None:
    prompt = ContextSpec().build(clip.facts, torch.Generator().manual_seed(0), 3)
    assert prompt.ctx.shape == (16, clip.facts.text_width)
    assert prompt().layout.num_tokens == 16


def test_zeros_stand_before_words_only_where_they_are_asked_for(clip: Clip) -> None:
    """A plus in other words is a word like others, and has no zeros before it."""
    plus = clip.embed_words("dog + a dog")
    same = ContextSpec(n_ctx=len(plus), init="dog + a dog").build(clip.facts, torch.Generator().manual_seed(0), 3)
    assert torch.equal(same.ctx, plus)
    with pytest.raises(UserError, match=f"n_ctx={len(plus)}"):
        ContextSpec(n_ctx=len(plus) + 1, init="dog + a dog").build(clip.facts, torch.Generator().manual_seed(0), 3)


def test_the_first_layers_tokens_stand_beside_the_input_and_later_ones_replace(uneven: Clip) -> None:
    places = build(uneven, IndependentSpec(n_ctx=2, depth=2)).places()
    said = sorted(places.values())
    assert said == [
        "image tower, layer 0, after the patches",
        "image tower, layer 1, in place of the layer before's tokens",
        "text tower, layer 0, before the class name",
        "text tower, layer 1, in place of the layer before's tokens",
    ]


@pytest.mark.parametrize(
    ("options", "deep"),
    [
        ({"residual": "replace"}, True),
        ({"residual": "v", "towers": "text", "depth": 2}, True),
        ({"residual": "replace", "depth": 1}, False),
        ({"residual": "keep"}, False),
        ({"residual": "replace", "towers": "image"}, False),
    ],
)
def test_what_unshared_tokens_reach(options: dict[str, Any], deep: bool) -> None:
    """Text tokens of later layers, which PLPP's head has to know of."""
    assert UnsharedSpec(**options).reach.deep_text is deep
