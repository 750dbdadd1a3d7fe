"""What a learned text context says in words: its nearest words beside chance, and its perplexity beside other contexts'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlprompt.artifact import Learned, loaded
from vlprompt.engine.train import new_prompt
from vlprompt.head import Head, measure_head
from vlprompt.losses.perplexity import perplexity
from vlprompt.losses.words import NearWords, nearest_words
from vlprompt.towers import Clip, load
from vlprompt.types import Context, Prompted, PromptSpec, Splice, TextLayout, places_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedTensor:
    """One learned tensor and where it enters."""

    name: str
    shape: tuple[int, ...]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A text context in words."""

    by_cosine: tuple[NearWords, ...]
    """Per context token; ranked as PLPP's labels are."""
    by_distance: tuple[NearWords, ...]
    """Ranked as CoOp's published script ranks."""
    perplexity: float
    perplexity_start: float
    """Of the same prompt before the first step."""
    perplexity_template: float | None
    """Of the words of the hand-written template; None where they cannot be read as a context."""
    template_words: str
    of_class: str | None
    """For class-specific contexts: the class whose context this is, the first."""
    head: Head
    """What the head that gives these perplexities knows of language, with this prompt and without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What can be said of a prompt."""

    learned: Learned
    tensors: tuple[LearnedTensor, ...]
    words: Words | None
    """None where nothing is learned in the text tower's first layer, or where that tower predicts no words."""


def read(directory: Path, *, top: int, model: str | None = None) -> Reading:
    """Load the prompt in a directory with its backbone (model: where that is now) and read it. UserError as `artifact.load`."""
    learned, clip = loaded(directory, load(model) if model else None)
    prompt = learned.prompt
    places = places_of(prompt)
    tensors = tuple(
        LearnedTensor(name=name, shape=tuple(value.shape), place=places[name])
        for name, value in prompt.named_parameters()
    )
    with torch.no_grad():
        return Reading(learned=learned, tensors=tensors, words=_words(clip, learned, prompt, top))


def _words(clip: Clip, learned: Learned, prompt: nn.Module, top: int) -> Words | None:
    spec = learned.method.prompt
    if spec.reach.sees or spec.layout is None or not clip.facts.predicts_words:
        return None
    context = clip.context(prompt())
    seed = int(learned.facts.get("seed") or 0)
    start = clip.context(new_prompt(clip, spec, len(learned.class_names), seed)())
    words = learned.template.split("{}")[0].strip()
    vectors = context.vectors if context.vectors.dim() == 2 else context.vectors[0]
    return Words(
        by_cosine=nearest_words(vectors, clip.vocabulary, top, by="cosine"),
        by_distance=nearest_words(vectors, clip.vocabulary, top, by="distance"),
        perplexity=perplexity(context, clip.vocabulary),
        perplexity_start=perplexity(start, clip.vocabulary),
        perplexity_template=perplexity(_context_of(clip, words), clip.vocabulary) if words else None,
        template_words=words,
        of_class=learned.class_names[0] if context.vectors.dim() == 3 else None,
        head=head_of(clip, spec, prompt),
    )


def _context_of(clip: Clip, words: str) -> Context:
    """Words as if they had been learned."""
    rows_MD = clip.embed_words(words)
    return clip.context(Prompted(text={0: Splice(q=rows_MD)}, layout=TextLayout(num_tokens=len(rows_MD))))


def head_of(clip: Clip, spec: PromptSpec, prompt: nn.Module) -> Head:
    """The model's head, and the head behind a prompt's text tokens where it has some that do not depend on an image."""
    if spec.reach.sees or spec.layout is None:
        return measure_head(clip)
    with torch.no_grad():
        return measure_head(clip, prompt())
