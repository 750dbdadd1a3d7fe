"""How long learning takes is measured before it begins: near what it then takes, and without changing what is learned."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine.made import images, lesson, method
from vlprompt.engine.duration import Duration, measure
from vlprompt.engine.job import start_line
from vlprompt.engine.observer import Observer
from vlprompt.engine.train import in_words, train
from vlprompt.towers import Clip
from vlprompt.types import Term, View


@pytest.mark.parametrize("name", ["coop", "plpp+coop", "cocoop", "maple", "promptsrc"])
def test_the_estimate_counts_what_learning_does(clip: Clip, folder: Path, name: str) -> None:
    plan, work, store = method(name, epochs=20), lesson(folder), images(clip)
    seen = Steps()
    estimated = measure(clip, plan, work, store, max_rows=None)
    train(clip, plan, work, store, observer=seen)
    assert estimated.steps == seen.learned
    assert estimated.step > 0
    assert estimated.seconds == pytest.approx(estimated.steps * estimated.step + estimated.images * estimated.image)
    # What was counted as missing has been encoded by then.
    assert measure(clip, plan, work, store, max_rows=None).images == 0


class Steps(Observer):
    """Counts the steps of the stage in which is learned."""

    def __init__(self) -> None:
        self.name, self.learned = "", 0

    def stage(self, name: str, total: int) -> None:
        self.name = name

    def advance(self, steps: int, values: Mapping[str, float]) -> None:
        self.learned += steps if "learning" in self.name else 0


def test_a_step_is_timed_and_not_looked_up(clip: Clip, folder: Path) -> None:
    def slow(view: View) -> Tensor:
        time.sleep(0.05)
        return view.logits.sum()

    plan, work = method(epochs=7), lesson(folder)
    slowed = replace(plan, learner=replace(plan.steps, terms=(Term(name="ce", score=slow),)))
    found = measure(clip, slowed, work, images(clip), max_rows=None)
    assert found.step >= 0.05
    assert found.steps == 7 * 2
    assert found.seconds == pytest.approx(found.step * 14 + found.image * found.images)


def test_images_count_that_the_cache_lacks_and_epochs_that_are_left(clip: Clip, folder: Path) -> None:
    plan, work, store = method(epochs=5), lesson(folder, views=3), images(clip)
    number = len({sample.picture_hash for sample in work.samples})
    assert measure(clip, plan, work, store, max_rows=None).images == 3 * number
    last = measure(clip, plan, work, store, max_rows=None, done=4)
    assert (last.images, last.steps) == (number, 2)
    store.prepare(work.samples, [0, 1, 2])
    cached = measure(clip, plan, work, store, max_rows=None)
    assert (cached.images, cached.image) == (0, 0.0)


def test_a_method_that_reads_no_features_of_the_bare_tower_has_none_to_encode(clip: Clip, folder: Path) -> None:
    assert measure(clip, method("maple"), lesson(folder), images(clip), max_rows=None).images == 0


@pytest.mark.parametrize("name", ["plpp+coop", "promptsrc"])
def test_measuring_changes_nothing_that_is_learned(clip: Clip, folder: Path, name: str) -> None:
    plan, work = method(name, epochs=2), lesson(folder)
    before = train(clip, plan, work, images(clip))
    store, state = images(clip), torch.get_rng_state()
    measure(clip, plan, work, store, max_rows=None)
    assert torch.equal(torch.get_rng_state(), state)
    after = train(clip, plan, work, store)
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_line_before_learning_says_memory_and_time(clip: Clip, folder: Path) -> None:
    line = start_line(clip, method(epochs=500), lesson(folder), images(clip))
    assert re.search(
        r"about [\d.]+ GiB of memory; about [\d.]+ (s|min) \([\d.e-]+ s a step, timed on \d; 36 pictures to encode",
        line,
    )
    done = start_line(clip, method(epochs=5), lesson(folder), images(clip), done=5)
    assert "GiB of memory; less than a second (" in done
    assert "to encode" not in done


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (1.2, "about 1 s"),
        (89, "about 89 s"),
        (91, "about 1.5 min"),
        (700, "about 12 min"),
        (12600, "about 3.5 h"),
        (200000, "about 2.3 days"),
    ],
)
def test_durations_are_said_in_few_figures(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_the_whole_is_steps_and_images() -> None:
    assert Duration(step=2.0, timed=1, steps=10, image=0.5, images=8).seconds == 24.0
