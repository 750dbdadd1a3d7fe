"""The training-free head: its numbers against a literal version, its identities, its verdicts, its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vlprompt import head as module
from vlprompt.engine.train import new_prompt
from vlprompt.explain import head_of
from vlprompt.head import KINDS, Head, HeadScores, measure_head
from vlprompt.losses.words import WordTable
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip
from vlprompt.towers.random_clip import VIT_B16, draw_clip, tower
from vlprompt.types import Prompted, Splice, TextLayout

SMALL = ("a photo of a dog", "the red house", "blue circle")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, clip: Clip) -> Iterator[None]:
    monkeypatch.setattr(module, "CAPTIONS", SMALL)
    module._measured.clear()
    yield
    module._measured.clear()


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def literal(clip: Clip, captions: list[list[int]], kind: str) -> tuple[float, float]:
    """Mean -log of the true word's probability and its mean rank, one number at a time."""
    words = clip.vocabulary.word_ids.tolist()
    rows = clip.vocabulary.weight_VD.double().tolist()
    losses, ranks = [], []
    for ids in captions:
        for place, state in enumerate(clip.word_states(ids).double()):
            h = (state - clip.mean_state.double() if kind == "centred" else state).tolist()
            if kind == "cosine":
                logits = [
                    float(clip.logit_scale) * dot(h, rows[j]) / math.hypot(*h) / math.hypot(*rows[j]) for j in words
                ]
            else:
                logits = [dot(h, rows[j]) for j in words]
            own = words.index(ids[place])
            losses.append(math.log(math.fsum(math.exp(one - logits[own]) for one in logits)))
            ranks.append(1 + sum(float(one) > float(logits[own]) for one in logits))
    return sum(losses) / len(losses), sum(ranks) / len(ranks)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", KINDS)
def test_every_head_is_the_literal_one(clip: Clip, kind: str) -> None:
    found = measure_head(clip).heads[kind]
    natural, rank = literal(clip, [clip.tokenizer.encode(caption) for caption in SMALL], kind)
    assert found.natural == pytest.approx(natural, rel=1e-4)
    assert found.rank == pytest.approx(rank, rel=1e-4)
    assert found.above == pytest.approx((rank - 1) / (clip.vocabulary.word_ids.numel() - 1), rel=1e-3)


def test_the_states_before_words_are_those_of_the_words_as_a_context(clip: Clip) -> None:
    ids = clip.tokenizer.encode("a photo of a dog")
    context = clip.context(
        Prompted(text={0: Splice(q=clip.embed_words("a photo of a dog"))}, layout=TextLayout(num_tokens=len(ids)))
    )
    torch.testing.assert_close(clip.word_states(ids), context.states[:-1])


def test_a_prompt_that_starts_from_words_reads_as_those_words(clip: Clip) -> None:
    spec = resolve("maple").prompt  # two learned words, two fixed ones, and deeper tokens
    assert spec is not None
    prompted = new_prompt(clip, spec, 3, 1)()
    shallow = replace(prompted, text={0: prompted.text[0]}, image={})
    ids, before = clip.tokenizer.encode("red house"), clip.tokenizer.encode("a photo of a")
    with torch.no_grad():
        alone = clip.word_states([*before, *ids])[-len(ids) :]
        torch.testing.assert_close(clip.word_states(ids, shallow), alone)
        assert not torch.allclose(clip.word_states(ids, prompted), alone)


@pytest.mark.usefixtures("few")
def test_a_prompt_is_shown_next_to_the_bare_model(clip: Clip) -> None:
    bare = measure_head(clip)
    assert bare.prompted is None
    for name in ("coop", "rpp"):
        spec = resolve(name, {"n_ctx": 4}).prompt
        assert spec is not None
        found = head_of(clip, spec, new_prompt(clip, spec, 3, 1))
        assert found.heads == bare.heads
        assert found.prompted is not None
        assert found.prompted["raw"] != bare.raw
    for name in ("cocoop", "vpt"):
        spec = resolve(name).prompt
        assert spec is not None
        assert head_of(clip, spec, new_prompt(clip, spec, 3, 1)).prompted is None


def scores(natural: float, shuffled: float, random: float, *, sure: bool = True) -> HeadScores:
    errors = 5.0 if sure else 1.0
    return HeadScores(
        natural=natural,
        shuffled=shuffled,
        random=random,
        rank=10,
        above=0.1,
        order=math.copysign(errors, shuffled - natural),
        words=math.copysign(errors, random - natural),
    )


@pytest.mark.parametrize(
    ("found", "said", "warned"),
    [
        (scores(3.0, 5.0, 8.0), "knows language", False),
        (scores(8.9, 8.8, 8.4), "no less than random tokens", True),
        (scores(8.4, 8.3, 8.5), "no less than the same words shuffled", True),
        (scores(8.3, 8.4, 8.5, sure=False), "within chance", False),
    ],
)
def test_the_verdict_says_whether_natural_text_is_the_least_surprising(
    found: HeadScores, said: str, warned: bool
) -> None:
    head = Head(num_words=4094, captions=40, heads={"raw": found})
    assert said in found.verdict
    assert said in head.line()
    assert head.raw.misled == warned


def test_memory_is_bounded_on_a_model_with_the_vocabulary_of_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B/16's vocabulary and context length; narrow and shallow, so that it takes a second."""
    clip = draw_clip(replace(VIT_B16, text=tower(64, 2), image=tower(64, 1)))
    rows: list[int] = []
    plain = WordTable.dot

    def counted(table: WordTable, states: Tensor) -> Tensor:
        rows.append(len(states))
        return plain(table, states)

    monkeypatch.setattr(WordTable, "dot", counted)
    found = measure_head(clip)
    assert max(rows) <= module.ROWS < sum(rows)
    assert found.num_words == 49406
    assert found.raw.natural == pytest.approx(math.log(49406), rel=0.05)  # random weights know nothing
