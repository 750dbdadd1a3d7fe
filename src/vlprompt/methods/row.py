"""What one row of the method table says: what a method is. Its settings are recipes (`vlprompt/recipes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.types import AtTest, Ensemble, Fit, PromptSpec, Steps, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a method asks of its prompt: fields of `Method`."""

    learner: Steps | Fit | None
    """Overlays add their terms to it, settings its schedule."""
    teacher: Ensemble | None = None
    at_test: AtTest | None = None
    unlabelled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A method that stands alone."""

    name: str
    summary: str
    learns: str
    source: str
    prompt: PromptSpec
    """What is learned, with neutral options: a paper's numbers stand in `vlprompt/recipes`."""
    options: Any = None
    """Options of what is asked: a dataclass instance, its values neutral; None: there are none."""
    asks: Callable[[Any, Any], Asked] = lambda _options, _prompt: Asked(learner=Steps(terms=(CROSS_ENTROPY,)))
    """(the options, the prompt) -> what is asked; cross-entropy alone where a row does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What is added to a host: terms to its own, or sentences for its classes."""

    name: str
    summary: str
    learns: str
    source: str
    options: Any
    """A dataclass instance: its fields are options, its values the defaults."""
    cost: Callable[..., str]
    """(options, the host's prompt, width=, words=, classes=) -> what it adds to a step, in words."""
    decide: Callable[[Any], Any] = lambda options: options
    """options -> the same, with what depends on which of them were given decided."""
    build: Callable[[Any, PromptSpec], tuple[Term, ...]] = lambda _options, _prompt: ()
    """(options, the host's prompt) -> terms. UserError where the overlay cannot stand on that host."""
    teacher: Callable[[Any], Ensemble] | None = None
    """options -> sentences in the place of the template, where the host reads the frozen tower's class features."""
    notes: Callable[[Any, Any], tuple[str, ...]] = lambda _options, _prompt: ()
    """(options, the host's prompt) -> what it reads and labels there, in words."""
