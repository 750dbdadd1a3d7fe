"""The published augmentation: every operation works, chances and ranges are the published ones, and a view is a function of its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from vlprompt.data import augmented_view
from vlprompt.data.views import OPERATIONS, two_operations, uniforms
from vlprompt.types import Preprocess

PREPROCESS = Preprocess(resize=24, crop=24, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def picture() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(10, 240, (40, 50, 3)).astype(np.uint8))


def test_the_list_is_the_published_one() -> None:
    assert len(OPERATIONS) == 15
    assert {low for low, _, _ in OPERATIONS.values()} == {0, 0.1, 4, -30, -0.3}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_size_and_mode(name: str) -> None:
    low, high, operation = OPERATIONS[name]
    changed = []
    for value in (low, (low + high) / 2 + 0.1 * (high - low), high):
        done = operation(picture(), value)
        assert (done.size, done.mode) == ((50, 40), "RGB")
        changed.append(np.asarray(done) != np.asarray(picture()))
    assert any(one.any() for one in changed) == (name != "identity")


def test_a_view_depends_on_image_and_number_alone() -> None:
    once = augmented_view(picture(), PREPROCESS, "a" * 64, 3)
    assert once.shape == (3, 24, 24)
    assert torch.equal(once, augmented_view(picture(), PREPROCESS, "a" * 64, 3))
    assert not torch.equal(once, augmented_view(picture(), PREPROCESS, "a" * 64, 4))
    assert not torch.equal(once, augmented_view(picture(), PREPROCESS, "b" * 64, 3))


def scripted(*values: float) -> Iterator[float]:
    return iter(values)


def test_two_operations_are_drawn_and_each_is_left_out_with_its_chance() -> None:
    image, names = picture(), list(OPERATIONS)
    invert, sheared = (names.index("invert") + 0.5) / 15, (names.index("shear-x") + 0.5) / 15
    kept = two_operations(image, scripted(invert, invert, 0.61, 0.99))
    assert np.array_equal(np.asarray(kept), np.asarray(image)), "both left out: their draws lie above 0.6"
    once = two_operations(image, scripted(invert, invert, 0.59, 0.0, 0.61))
    assert np.array_equal(np.asarray(once), 255 - np.asarray(image))
    left, right = (two_operations(image, scripted(sheared, invert, 0.0, 0.9, sign, 0.9)) for sign in (0.4, 0.6))
    assert not np.array_equal(np.asarray(left), np.asarray(right)), "the sign of a shear is drawn"


def test_operations_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()

    def counting(name: str) -> tuple[float, float, object]:
        low, high, _ = OPERATIONS[name]

        def note(image: Image.Image, value: float) -> Image.Image:
            seen[name] += 1
            assert min(low, -high) <= value <= high
            return image

        return low, high, note

    for name in list(OPERATIONS):
        monkeypatch.setitem(OPERATIONS, name, counting(name))
    draws, image = uniforms("test"), picture()
    for _ in range(6000):
        two_operations(image, draws)
    expected = 6000 * 2 * 0.6 / 15
    assert set(seen) == set(OPERATIONS)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in seen.values())
