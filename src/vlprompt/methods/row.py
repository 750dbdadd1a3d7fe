"""What one row of the method table says: what a method is. Its settings are recipes (`vlprompt/recipes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.types import Average, ClassSampling, Ensemble, PromptSpec, Rule, Solver, Term


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
class Host:
    """A method that stands alone."""

    name: str
    summary: str
    learns: str
    source: str
    prompt: PromptSpec | None = None
    """What is learned in steps, with neutral options: a paper's numbers stand in `vlprompt/recipes`; None: nothing is."""
    options: Any = None
    """Options of what is asked: a dataclass instance, its values neutral; None: there are none."""
    asks: Callable[[Any, PromptSpec | None], Asked] = lambda _options, _prompt: Asked()
    """(the options, the prompt) -> what is asked; cross-entropy alone where a row does not say."""


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
