"""CoCoOp's context: one shift per image, drawn as published; and contexts that start from zeros and words."""

from __future__ import annotations

import pytest
import torch

from vlprompt.errors import UserError
from vlprompt.prompts import ConditionedSpec, ContextSpec
from vlprompt.prompts.layers import linear, uniform
from vlprompt.towers import Clip

NAMES = ("cat", "a red dog", "bird")


def test_every_images_context_is_the_shared_one_and_its_own_shift(clip: Clip) -> None:
    """Written out: two matrix products and a ReLU for each image by itself."""
    prompt = ConditionedSpec().build(clip.facts, torch.Generator().manual_seed(0), 3)
    image_BE = torch.nn.functional.normalize(torch.randn(4, clip.facts.embed_dim), dim=-1)
    splice = prompt(image_BE).text[0]
    assert splice.axis == "image"
    values = dict(prompt.named_parameters())
    for x_E, ctx_MD in zip(image_BE, splice.q, strict=True):
        hidden = (values["meta_net.linear1.weight"] @ x_E + values["meta_net.linear1.bias"]).clamp(min=0)
        shift_D = values["meta_net.linear2.weight"] @ hidden + values["meta_net.linear2.bias"]
        torch.testing.assert_close(ctx_MD, values["ctx"] + shift_D, rtol=1e-5, atol=1e-6)
    assert set(prompt.places()) == set(values)


def test_the_network_is_a_sixteenth_wide_and_starts_within_its_bounds(clip: Clip) -> None:
    prompt = ConditionedSpec().build(clip.facts, torch.Generator().manual_seed(0), 3)
    first, second = prompt.meta_net.linear1, prompt.meta_net.linear2
    hidden = clip.facts.embed_dim // 16
    assert first.weight.shape == (hidden, clip.facts.embed_dim)
    assert second.weight.shape == (clip.facts.text_width, hidden)
    for layer in (first, second):
        bound = layer.in_features**-0.5
        assert 0.8 * bound < layer.weight.abs().max().item() <= bound
        assert 0 < layer.bias.abs().max().item() <= bound


def test_images_do_not_see_each_other_and_chunks_change_nothing(clip: Clip) -> None:
    spec = ConditionedSpec()
    prompt = spec.build(clip.facts, torch.Generator().manual_seed(0), 3).double()
    tokens = clip.class_tokens(NAMES, spec.layout)
    image_BE = torch.nn.functional.normalize(torch.randn(4, clip.facts.embed_dim), dim=-1).double()
    together = clip.encode_text(tokens, prompt(image_BE)).pooled
    assert together.shape == (4, 3, clip.facts.embed_dim)
    for b in range(4):
        alone = clip.encode_text(tokens, prompt(image_BE[b : b + 1])).pooled[0]
        torch.testing.assert_close(together[b], alone, rtol=1e-4, atol=1e-5)
    chunked = clip.encode_text(tokens, prompt(image_BE), max_rows=8).pooled
    torch.testing.assert_close(chunked, together, rtol=1e-4, atol=1e-5)


def test_zeros_and_words_at_the_end(clip: Clip) -> None:
    prompt = ContextSpec(n_ctx=6, init="zeros + a photo of a").build(clip.facts, torch.Generator().manual_seed(0), 3)
    words = clip.embed_words("a photo of a")
    assert torch.equal(prompt.ctx[:2], torch.zeros(2, clip.facts.text_width))
    assert torch.equal(prompt.ctx[2:], words)
    specific = ContextSpec(n_ctx=6, init="zeros + a photo of a", per_class=True)
    assert torch.equal(specific.build(clip.facts, torch.Generator().manual_seed(0), 3).ctx[1, 2:], words)
    whole = ContextSpec(n_ctx=4, init="zeros + a photo of a")
    assert torch.equal(whole.build(clip.facts, torch.Generator().manual_seed(0), 3).ctx, words)


def test_more_words_than_tokens_are_refused(clip: Clip) -> None:
    with pytest.raises(UserError, match="n_ctx=4, other words"):
        ContextSpec(n_ctx=3, init="zeros + a photo of a").build(clip.facts, torch.Generator().manual_seed(0), 3)


def test_a_linear_layer_starts_uniformly_within_one_over_the_root_of_its_inputs() -> None:
    made = linear(100, 400, torch.Generator().manual_seed(0))
    alone = uniform(400, 100, torch.Generator().manual_seed(0))
    assert alone.shape == made.weight.shape
    for tensor in (made.weight.detach(), made.bias.detach(), alone):
        assert -0.1001 < float(tensor.min()) < -0.09
        assert 0.09 < float(tensor.max()) < 0.1001
