"""The rows of some classes out of a tokenised list, and steps that see some of the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.engine.conftest import Memory
from tests.engine.made import images, lesson, method
from vlprompt.engine.forward import Forward
from vlprompt.engine.train import estimate_step, train
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip
from vlprompt.towers.tokens import longest, subset

NAMES = ("cat", "a red dog", "bird", "the green house tree", "truck x", "dog", "blue circle square", "pet")


@pytest.mark.parametrize(
    "spec", [ContextSpec(n_ctx=3), ContextSpec(n_ctx=3, position="middle"), ContextSpec(n_ctx=3, per_class=True)]
)
@pytest.mark.parametrize("chosen", [(6, 0, 3), (5,), tuple(range(8)), (7, 6, 5, 4, 3, 2, 1, 0)])
def test_a_subset_gives_the_features_of_its_classes(clip: Clip, spec: ContextSpec, chosen: Sequence[int]) -> None:
    tokens = clip.class_tokens(NAMES, spec.layout)
    prompted = spec.build(clip.facts, torch.Generator().manual_seed(0), len(NAMES))()
    part = subset(tokens, torch.tensor(chosen))
    assert part.names == tuple(NAMES[c] for c in chosen)
    whole, some = clip.encode_text(tokens, prompted), clip.encode_text(part, prompted)
    torch.testing.assert_close(some.pooled, whole.pooled[list(chosen)], rtol=1e-5, atol=1e-5)
    in_parts = clip.encode_text(part, prompted, max_rows=6)
    torch.testing.assert_close(in_parts.pooled, some.pooled, rtol=1e-5, atol=1e-5)


def test_the_longest_classes(clip: Clip) -> None:
    tokens = clip.class_tokens(NAMES, ContextSpec(n_ctx=3).layout)
    found = longest(tokens, 3)
    assert set(found.names) == {"a red dog", "the green house tree", "blue circle square"}
    assert longest(tokens, 8) is tokens
    assert longest(tokens, 99) is tokens


def test_a_view_of_some_classes_is_those_columns_of_the_whole_one(clip: Clip) -> None:
    spec = ContextSpec(n_ctx=3)
    prompt = spec.build(clip.facts, torch.Generator().manual_seed(0), len(NAMES))
    forward = Forward(clip, tiny.method(spec, "teacher_text", "teacher_logits"), NAMES, "a photo of a {}.")
    labels, frozen = torch.tensor([6, 0, 6]), torch.randn(3, clip.facts.embed_dim)
    whole = forward(prompt, labels, frozen, None)
    some = forward(prompt, labels, frozen, None, torch.tensor([2, 6]))
    columns = [0, 2, 6]
    assert some.sampled is not None
    assert some.sampled.num_classes == 8
    assert some.sampled.seen.tolist() == [[False, True, True], [True, True, True], [False, True, True]]
    assert some.labels.tolist() == [2, 0, 2]
    torch.testing.assert_close(some.logits, whole.logits[:, columns], rtol=1e-5, atol=1e-4)
    for view in (some, whole):
        assert view.teacher is not None
        assert view.teacher.text is not None
        assert view.teacher.logits is not None
    assert torch.equal(some.teacher.text.pooled, whole.teacher.text.pooled[columns])  # type: ignore[union-attr]
    torch.testing.assert_close(some.teacher.logits, whole.teacher.logits[:, columns])  # type: ignore[union-attr]
    assert whole.sampled is None


def test_with_as_many_classes_as_there_are_pomp_is_coop_to_the_bit(clip: Clip, folder: Path) -> None:
    """And says so where more were asked for."""
    learned = {}
    for name, options in (("coop", {}), ("pomp", {"classes": 3}), ("pomp", {"classes": "all"}), ("pomp", {})):
        memory = Memory()
        chosen = method(name, init="normal", **options)
        prompt = train(clip, chosen, lesson(folder), images(clip), observer=memory)
        learned[name, *options.values()] = prompt.get_parameter("ctx").detach()
        assert [note for note in memory.notes if "sampled classes" in note] == (
            ["1000 sampled classes are asked for and there are 3: every step sees all of them."]
            if name == "pomp" and not options
            else []
        )
    for ctx in learned.values():
        assert torch.equal(ctx, learned["coop",])


def test_with_fewer_it_is_not(clip: Clip, folder: Path) -> None:
    one = train(clip, method("coop"), lesson(folder), images(clip)).get_parameter("ctx")
    two = train(clip, method("pomp", classes=2), lesson(folder), images(clip)).get_parameter("ctx")
    assert not torch.equal(one, two)


def test_the_memory_of_a_step_is_that_of_the_classes_that_it_sees(clip: Clip, folder: Path) -> None:
    """Two images and one drawn class of three: as many rows as the three classes; of 60, those of three of the longest."""
    few, many = lesson(folder), dataclasses.replace(lesson(folder), class_names=(*(f"cat {i}" for i in range(60)),))
    sampled, all_classes = (method("pomp", classes=n, batch=2) for n in (2, "all"))
    assert estimate_step(clip, sampled, few).text == estimate_step(clip, all_classes, few).text
    seen, whole = estimate_step(clip, sampled, many), estimate_step(clip, all_classes, many)
    assert seen.rows == 3 * max(
        bucket.length for bucket in clip.class_tokens(many.class_names, sampled.prompt.layout).buckets
    )  # type: ignore[union-attr]
    assert whole.rows > 15 * seen.rows
