"""What a learned prompt says: its nearest words next to chance, its perplexity, how alike its classes are, where it looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlprompt.artifact import Learned, loaded
from vlprompt.data import Sample
from vlprompt.data.views import test_view
from vlprompt.describe import LearnedTensor
from vlprompt.engine.dense import heat, laid_over, picture_logits
from vlprompt.engine.evaluate import Classifier, probabilities, zero_shot
from vlprompt.engine.images import Images
from vlprompt.engine.several import require_one_label
from vlprompt.engine.train import new_prompt
from vlprompt.errors import UserError, unknown
from vlprompt.head import Head, measure_head
from vlprompt.losses.perplexity import perplexity
from vlprompt.losses.words import NearWords, nearest_words
from vlprompt.towers import Clip
from vlprompt.types import Context, Prompted, PromptSpec, Splice, TextLayout, places_of


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

    @property
    def meaningful(self) -> int:
        """Tokens that lie nearer to a word, by cosine, than a random vector does on average."""
        return sum(near.best_cosine > near.chance_cosine for near in self.by_cosine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """How alike the class features are, by cosine: of the hand-written words, and of the learned prompt."""

    before: float
    """The mean over all pairs of classes."""
    after: float
    pairs: tuple[tuple[str, str, float, float], ...]
    """(class, class, before, after): those that are most alike after learning, the first the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What can be said of a prompt."""

    learned: Learned
    tensors: tuple[LearnedTensor, ...]
    words: Words | None
    """None where nothing is learned in the text tower's first layer, or where that tower predicts no words."""
    alike: Alike | None
    """None with one class, or where the prompt has no fixed class features (it reads no text, or reads the image)."""

    @property
    def conclusion(self) -> list[str]:
        """What follows, in plain words."""
        learned, out = self.learned, []
        if not self.tensors:
            return ["Nothing was learned, so there is nothing to explain."]
        if self.words is not None:
            total, near = len(self.words.by_cosine), self.words.meaningful
            ratio = self.words.perplexity / self.words.perplexity_start
            change = "more" if ratio > 1 else "less"
            out.append(
                f"Words: {near} of {total} learned tokens lie nearer to a word than a random vector does; chance is about half. "
                + ("Read them with care." if near > 0.75 * total else "Do not read meaning into them.")
                + f" The context is {max(ratio, 1 / ratio):,.1f} times {change} surprising to the text tower than before learning."
            )
        if self.alike is not None:
            one, other, before, after = self.alike.pairs[0]
            far = "moved them further apart" if self.alike.after < self.alike.before else "moved them closer together"
            if abs(self.alike.after - self.alike.before) < SAME:
                far = "left the words where they were"
            out.append(
                f"Classes: learning {far} (mean cosine {self.alike.before:.2f} before, {self.alike.after:.2f} after). It can "
                f"tell {one!r} from {other!r} least ({before:.2f} before, {after:.2f} after): look at their pictures first."
            )
        own = learned.method.prompt.reach.own_classes
        out.append(
            "New classes: it knows its own classes alone, and cannot be asked about others."
            if own
            else "New classes: it can be asked about other names (predict --classes). Whether it is good there, eval on such pictures says."
        )
        return out


def read(directory: Path, *, top: int, model: str | None = None) -> Reading:
    """Load the prompt in a directory with its backbone (model: where that is now) and read it. UserError as `artifact.load`."""
    learned, clip = loaded(directory, model)
    prompt = learned.prompt
    places = places_of(prompt)
    tensors = tuple(
        LearnedTensor(name=name, shape=tuple(value.shape), place=places[name])
        for name, value in prompt.named_parameters()
    )
    with torch.no_grad():
        words, alike = _words(clip, learned, prompt, top), alike_of(clip, learned)
    return Reading(learned=learned, tensors=tensors, words=words, alike=alike)


SAME = 0.005
"""A change of the mean cosine that is none, in two digits."""
PAIRS = 5
"""Pairs of classes that are named."""


def alike_of(clip: Clip, learned: Learned) -> Alike | None:
    """How alike the classes are, before learning and after it."""
    spec, names = learned.method.prompt, learned.class_names
    if not spec.reach.reads_text or "image" in spec.reach.sees or len(names) < 2:
        return None
    after = Classifier(clip, learned.method, learned.prompt, names, learned.template).text
    before = zero_shot(clip, names, learned.template, learned.template).text
    assert before is not None
    assert after is not None
    upper = torch.triu_indices(len(names), len(names), 1)
    both = [(text.unit @ text.unit.T).float().cpu()[upper[0], upper[1]] for text in (before, after)]
    order = both[1].argsort(descending=True)[:PAIRS].tolist()
    rows, columns = upper.tolist()
    pairs = tuple((names[rows[n]], names[columns[n]], float(both[0][n]), float(both[1][n])) for n in order)
    return Alike(before=float(both[0].mean()), after=float(both[1].mean()), pairs=pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where a picture speaks for a class and for its rival, for one classifier."""

    title: str
    probability: tuple[float, float]
    """Of the class and of the rival."""
    pictures: tuple[Image.Image, Image.Image]
    """Red where the picture speaks for it, blue where it speaks against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """One picture, with hand-written words and with the learned prompt."""

    picture: Image.Image
    names: tuple[str, str]
    """The class, and its rival."""
    before: Look
    after: Look


def looks(directory: Path, image: Image.Image, *, name: str | None = None, model: str | None = None) -> Looks:
    """Where a prompt looks in a picture. name: the class; None: its answer. The rival is the likeliest other class.

    UserError: a class that it does not know, one class alone, a method that learns from each test image.
    """
    learned, clip = loaded(directory, model)
    require_one_label(learned, "the picture of where it looks")
    names = learned.class_names
    if len(names) < 2:
        raise UserError("this prompt knows one class, which has no rival.")
    if name is not None and name not in names:
        raise unknown("class", name, names)
    own = Classifier(clip, learned.method, learned.prompt, names, learned.template)
    words = zero_shot(clip, names, learned.template, learned.template)
    images = Images(clip, None, read=lambda *_: test_view(image, clip.preprocess)[None])
    sample = [Sample(id="picture", label=0, source=bytes)]
    found = [
        (one, picture_logits(one, image), probabilities(one.logits(sample, images), temperature)[0])
        for one, temperature in ((words, 1.0), (own, learned.temperature))
    ]
    order = np.argsort(-found[1][2], kind="stable").tolist()
    label = order[0] if name is None else names.index(name)
    rival = next(other for other in order if other != label)

    def look(title: str, logits: Tensor, probability: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Look:
        maps = heat(logits, (label, rival), image.size)
        return Look(
            title=title,
            probability=(float(probability[label]), float(probability[rival])),
            pictures=(laid_over(image, maps[0]), laid_over(image, maps[1])),
        )

    return Looks(
        picture=image,
        names=(names[label], names[rival]),
        before=look(f"hand-written words: {learned.template}", *found[0][1:]),
        after=look(f"learned: {learned.method.name}", *found[1][1:]),
    )


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
