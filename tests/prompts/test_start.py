"""The published code's names of learned tensors, and what a context is without any option."""

from __future__ import annotations

import pytest
import torch

from vlprompt.prompts import ContextSpec
from vlprompt.prompts.start import ours
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
