"""How much CLIP's text tower knows as a language model: the head that PLPP reads, measured before anything is learned.

The head is ``h W^T``: h, the state before a word; W, the token embedding. It was never trained to predict words. So it is asked
about plain captions, the same words in another order, and random tokens. A head that knows language finds the first least
surprising. Source: none, project's own.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vlprompt.losses.perplexity import ROWS
from vlprompt.losses.words import WordTable, lengths, word_table
from vlprompt.towers import Clip
from vlprompt.towers.captions import CAPTIONS
from vlprompt.types import BARE, Prompted

TEXTS = ("natural", "shuffled", "random")
KINDS = ("raw", "centred", "cosine")
SEED = 241215277
SURE = 2.0
"""Standard errors over captions from which a difference counts (project's choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScores:
    """One head on the three kinds of text. Log-perplexities are nats a token."""

    natural: float
    shuffled: float
    random: float
    rank: float
    """Mean rank of the true next word in natural captions: 1 is the best, half of all words is chance."""
    above: float
    """Mean share, 0 to 1, of the other words that the head finds likelier than the true one; 0.5 is chance."""
    order: float
    """Mean over captions of shuffled - natural, in standard errors: above 2 the head knows word order."""
    words: float
    """The same for random - natural."""

    @property
    def misled(self) -> bool:
        """Whether natural captions are not the least surprising of the three."""
        return self.natural >= min(self.shuffled, self.random)

    @property
    def verdict(self) -> str:
        """In words, for people."""
        if min(self.order, self.words) >= SURE:
            return "The head knows language: plain captions surprise it least."
        if self.misled:
            more = "the same words shuffled" if self.shuffled <= self.random else "random tokens"
            return (
                f"The head is not a language model: plain captions surprise it no less than {more}. What PLPP does with it does not "
                "come from language."
            )
        return "The head can hardly tell plain captions from other text: the differences are within chance."

    def as_dict(self) -> dict[str, float | str]:
        return dataclasses.asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What was measured of a model's head."""

    num_words: int
    captions: int
    heads: Mapping[str, HeadScores]
    """`raw`: h W^T; `centred`: (h - mean h) W^T; `cosine`: the logit scale times the cosine."""
    prompted: Mapping[str, HeadScores] | None = None
    """The same with a prompt's context in front of the captions and its deeper text tokens in the tower; None: no prompt."""

    @property
    def raw(self) -> HeadScores:
        return self.heads["raw"]

    def line(self) -> str:
        raw = self.raw
        return (
            f"Head: perplexity {math.exp(raw.natural):,.0f} on plain captions, {math.exp(raw.shuffled):,.0f} on the same words "
            f"shuffled, {math.exp(raw.random):,.0f} on random tokens; {100 * raw.above:.0f} % of {self.num_words:,} words are found "
            f"likelier than the true next one. {raw.verdict}"
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON: those of the raw head, then every head."""
        raw = self.raw.as_dict()
        return {
            **{name: raw[name] for name in (*TEXTS, "rank", "above", "verdict")},
            "num_words": self.num_words,
            "captions": self.captions,
            "heads": {name: one.as_dict() for name, one in self.heads.items()},
            "prompted": self.prompted and {name: one.as_dict() for name, one in self.prompted.items()},
        }


_measured: WeakKeyDictionary[Clip, Head] = WeakKeyDictionary()


def measure_head(clip: Clip, prompted: Prompted | None = None) -> Head:
    """The three heads on the built-in captions; with `prompted` once more with its text tokens.

    Works on 64 states at a time, so it takes no more memory than 64 rows of the vocabulary. The bare measure is remembered
    as long as the model lives. The context of an image-conditioned prompt is that of its first image.
    """
    if clip not in _measured:
        words = word_table(clip.vocabulary)
        _measured[clip] = Head(num_words=words.num_words, captions=len(CAPTIONS), heads=_scores(clip, words, BARE))
    bare = _measured[clip]
    if prompted is None or not prompted.text:
        return bare
    scores = _scores(clip, word_table(clip.vocabulary), prompted)
    return dataclasses.replace(bare, prompted=scores)


def _scores(clip: Clip, words: WordTable, prompted: Prompted) -> dict[str, HeadScores]:
    """Every kind of head on every kind of text."""
    texts = _texts(clip)
    row = torch.full((len(clip.vocabulary.weight_VD),), -1, device=clip.device)
    row[clip.vocabulary.word_ids] = torch.arange(words.num_words, device=clip.device)
    states = {name: [clip.word_states(ids, prompted) for ids in lists] for name, lists in texts.items()}
    mean_D = torch.cat(states["natural"]).mean(dim=0) if prompted.text else clip.mean_state
    asked, counts = {}, {}
    for name, lists in texts.items():
        known = [ids[: len(h)] for ids, h in zip(lists, states[name], strict=True)]
        target_R = row[torch.tensor([i for ids in known for i in ids], device=clip.device)]
        asked[name] = _ask(torch.cat(states[name]), target_R, words, mean_D, clip.logit_scale)
        counts[name] = [len(ids) for ids in known]
    return {kind: _score({name: asked[name][kind] for name in TEXTS}, counts, words.num_words) for kind in KINDS}


def _score(asked: Mapping[str, tuple[Tensor, Tensor]], counts: Mapping[str, list[int]], num_words: int) -> HeadScores:
    """counts: words of each caption, by kind of text."""
    each = {name: [float(p.mean()) for p in torch.split(asked[name][0], counts[name])] for name in TEXTS}
    rank = float(asked["natural"][1].mean())
    return HeadScores(
        **{name: float(losses.mean()) for name, (losses, _) in asked.items()},
        rank=rank,
        above=(rank - 1) / max(1, num_words - 1),
        order=_errors(each["shuffled"], each["natural"]),
        words=_errors(each["random"], each["natural"]),
    )


@torch.no_grad()
def _ask(
    states_RD: Tensor, targets_R: Tensor, words: WordTable, mean_D: Tensor, scale: float
) -> dict[str, tuple[Tensor, Tensor]]:
    """Kind of head -> -log of the target's probability, and its rank among all words (ties: the middle), (R,) each.

    One product with the vocabulary serves all three: the mean state's logits are subtracted, or the lengths divided by.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in KINDS}
    mean_A = words.dot(mean_D[None])
    for h_RD, target_R in zip(torch.split(states_RD, ROWS), torch.split(targets_R, ROWS), strict=True):
        raw_RA = words.dot(h_RD)
        for kind in KINDS:
            logits_RA = raw_RA
            if kind == "centred":
                logits_RA = raw_RA - mean_A
            elif kind == "cosine":
                logits_RA = scale * raw_RA / (lengths(h_RD)[:, None] * words.lengths_A)
            own_R1 = logits_RA.gather(-1, target_R[:, None])
            loss_R = torch.logsumexp(logits_RA, dim=-1) - own_R1[:, 0]
            higher_R, equal_R = (logits_RA > own_R1).sum(-1), (logits_RA == own_R1).sum(-1)
            found[kind].append((loss_R.double().cpu(), (1 + higher_R + (equal_R - 1) / 2).double().cpu()))
    return {kind: (torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])) for kind, parts in found.items()}


def _texts(clip: Clip) -> dict[str, list[list[int]]]:
    """Token ids: the captions, their words in another order, and as many random words of the vocabulary."""
    rng = random.Random(SEED)
    ids = clip.vocabulary.word_ids.tolist()
    natural = [clip.tokenizer.encode(caption) for caption in CAPTIONS]
    shuffled = []
    for caption in CAPTIONS:
        words = caption.split()
        rng.shuffle(words)
        shuffled.append(clip.tokenizer.encode(" ".join(words)))
    return {"natural": natural, "shuffled": shuffled, "random": [rng.choices(ids, k=len(one)) for one in natural]}


def _errors(more: Sequence[float], less: Sequence[float]) -> float:
    """The mean paired difference over its standard error."""
    differences = [a - b for a, b in zip(more, less, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return mean / error if error else math.copysign(0.0 if mean == 0 else math.inf, mean)
