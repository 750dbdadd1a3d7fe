"""What one row of the method table says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.types import Average, ClassSampling, Ensemble, PromptSpec, Rule, Schedule, Solver, Term

TUNED = "project's choice, on validation images of embedded sets, for the small models inside the package"
POCKET_WORDS = "a picture of"
"""Three tokens of the small models' vocabulary, and a template that they know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a method asks of its prompt."""

    terms: tuple[Term, ...] = (CROSS_ENTROPY,)
    rule: Rule | None = None
    average: Average | None = None
    teacher: Ensemble | None = None
    classes: ClassSampling | None = None
    solver: Solver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A prompt's options and its schedule, as one source gives them."""

    prompt: PromptSpec
    options: Any = None
    """Options of what is asked: a dataclass instance, its values the defaults; None: there are none."""
    schedule: Schedule
    """Its `epochs` are for any number of shots that is not in the next field."""
    epochs: Mapping[int, int] = field(default_factory=dict)
    """Shots -> epochs; another count takes the next larger one's."""
    source: str
    overlays: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Overlay -> options that it has on this prompt where its own defaults do not fit."""

    def schedule_for(self, shots: int | None) -> Schedule:
        """The schedule at so many images per class (None: all of them, as the largest count)."""
        known = [count for count in sorted(self.epochs) if shots is not None and count >= shots]
        return replace(self.schedule, epochs=self.epochs[known[0]]) if known else self.schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A method that stands alone."""

    name: str
    summary: str
    learns: str
    source: str
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """By name, `published` always among them; empty: nothing is learned by gradient."""
    options: Any = None
    """Options of a method without recipes: a dataclass instance; None: there are none."""
    asks: Callable[[Any, PromptSpec | None], Asked] = lambda _options, _prompt: Asked()
    """(the recipe's options, its prompt) -> what is asked; cross-entropy alone where a row does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Terms that are added to a host's."""

    name: str
    summary: str
    learns: str
    source: str
    options: Any
    """A dataclass instance: its fields are options, its values the defaults."""
    build: Callable[[Any, PromptSpec], tuple[Term, ...]]
    """(options, the host's prompt) -> terms. UserError where the overlay cannot stand on that host."""
    cost: Callable[..., str]
    """(options, the host's prompt, width=, words=, classes=) -> what it adds to a step, in words."""
