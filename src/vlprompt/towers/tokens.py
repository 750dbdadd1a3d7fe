"""Class names -> the rows that the text tower runs: one shared prefix, then each class's own rows, packed without padding.

The mask is causal, so rows before the first one that differs between classes are the same for all of them. A row plan is a list
of token ids in which learned token j of the context is written -1 - j. Letters: C classes, P prefix rows, T own rows of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from vlprompt.errors import data_error
from vlprompt.tensors import onto
from vlprompt.towers.config import TextForm
from vlprompt.towers.tokenizer import Tokenizer
from vlprompt.types import TextLayout

CAUSAL = TextForm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Neighbouring classes with equally many own rows: rows start .. start + num_classes * length of the packed T."""

    start: int
    num_classes: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.num_classes * self.length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Token ids of some rows, and which of them are learned."""

    ids: Tensor
    """(n,) int64; 0 where the row is learned."""
    learned: Tensor
    """(m,) int64: the rows, of these n, that are learned."""
    token: Tensor
    """(m,) int64: which context token stands there."""
    owner: Tensor
    """(m,) int64: the class (in the caller's order) whose row it is; 0 in a prefix."""
    first: int = 0
    """In a prefix: the first row that is learned, which [SOS] stands before, if the tokenizer has one."""

    def to(self, device: torch.device) -> Rows:
        moved: dict[str, Any] = {
            name: onto(getattr(self, name), device) for name in ("ids", "learned", "token", "owner")
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassTokens:
    """A class list, tokenised for one layout or template; on the CPU until the tower reads it (`ready`)."""

    names: tuple[str, ...]
    layout: TextLayout | None
    prefix: Rows
    """P rows, shared by all classes: [SOS] first where the tokenizer has one, then what all begin with."""
    own: Rows
    """T rows: the classes' own, sorted by length; each class ends with its [EOT], or with what fills it up."""
    position_T: Tensor
    """Absolute index of each own row in its class's sequence."""
    buckets: tuple[Bucket, ...]
    end_C: Tensor
    """Packed row of each class whose state becomes its embedding, in packed order."""
    restore_C: Tensor
    """packed[restore_C] is in the caller's order."""

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def num_rows(self) -> int:
        """Rows that the tower runs: P + T."""
        return len(self.prefix.ids) + len(self.own.ids)

    @property
    def lengths(self) -> list[int]:
        """Own rows of each class, in packed order."""
        return [bucket.length for bucket in self.buckets for _ in range(bucket.num_classes)]

    def to(self, device: torch.device) -> ClassTokens:
        moved: dict[str, Any] = {
            name: onto(getattr(self, name), device) for name in ("position_T", "end_C", "restore_C")
        }
        return replace(self, prefix=self.prefix.to(device), own=self.own.to(device), **moved)

    def parts(self, max_rows: int | None) -> tuple[ClassTokens, ...]:
        """The same classes in packed order, in lists of at most `max_rows` own rows (or one class, where that is longer)."""
        if max_rows is None or len(self.own.ids) <= max_rows:
            return (self,)
        cuts, num_rows = [0], 0
        for c, length in enumerate(self.lengths):
            if num_rows and num_rows + length > max_rows:
                cuts.append(c)
                num_rows = 0
            num_rows += length
        order_C = self.restore_C.argsort()
        return tuple(subset(self, order_C[first:last]) for first, last in pairwise([*cuts, self.num_classes]))


@lru_cache(maxsize=16)
def ready(tokens: ClassTokens, max_rows: int | None, device: torch.device) -> tuple[ClassTokens, ...]:
    """The parts of a class list on a device: a list that stays the same from step to step is cut and copied once."""
    return tuple(part.to(device) for part in tokens.parts(max_rows))


def class_plans(tokenizer: Tokenizer, names: Sequence[str], layout: TextLayout) -> list[list[int]]:
    """The row plan of each class. The published sentence (context placeholders, fixed words, name, full stop) is tokenised
    whole and then cut, because a name that ends in punctuation merges with the full stop."""
    m, half = layout.num_tokens, layout.num_tokens // 2
    context = [-1 - j for j in range(m)]
    plans = []
    for name in names:
        clean = name.replace("_", " ")
        ids = tokenizer.encode_after(m, f"{layout.words} {clean}.")
        if layout.position == "end":
            body = [*context, *ids]
        else:
            name_ids, rest = ids[: len(tokenizer.encode(clean))], ids[len(tokenizer.encode(clean)) :]
            before = half if layout.position == "middle" else 0
            body = [*context[:before], *name_ids, *context[before:], *rest]
        plans.append([*tokenizer.opening, *body, *tokenizer.closing])
    return plans


def sentence_plans(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """The row plan of whole sentences: [SOS], words, [EOT]."""
    return [[*tokenizer.opening, *tokenizer.encode(sentence), *tokenizer.closing] for sentence in sentences]


def check_length(names: Sequence[str], plans: Sequence[Sequence[int]], context_length: int) -> None:
    """Refuse sentences that are longer than the text tower."""
    over = [(name, len(plan)) for name, plan in zip(names, plans) if len(plan) > context_length]
    if over:
        shown = "; ".join(f"{name[:60]!r} ({length} tokens)" for name, length in over[:3])
        more = f" and {len(over) - 3} more" if len(over) > 3 else ""
        raise data_error(
            f"{len(over)} class name(s) are too long for the text tower, which reads {context_length} tokens with the prompt, "
            f"[SOS] and [EOT]: {shown}{more}. Shorten the name(s) or learn fewer context tokens (--set n_ctx=4)."
        )


def pack(
    names: Sequence[str],
    plans: Sequence[Sequence[int]],
    layout: TextLayout | None,
    form: TextForm = CAUSAL,
    context_length: int = 0,
) -> ClassTokens:
    """Cut the shared prefix off the plans and pack what is left, classes sorted by length.

    Without a causal mask there is no prefix, and all plans are filled up to the context length.
    """
    assert plans, "an empty class list"
    ends = torch.tensor([len(plan) for plan in plans])
    if not form.causal:
        assert form.pad is not None, "a tower without a causal mask needs a token that fills sentences up"
        plans = [[*plan, *[form.pad] * (context_length - len(plan))] for plan in plans]
    num_prefix = _common(plans, stop_at_learned=layout is not None and not layout.shared) if form.causal else 0
    order = sorted(range(len(plans)), key=lambda c: len(plans[c]))
    own = [list(plans[c][num_prefix:]) for c in order]
    lengths = torch.tensor([len(rows) for rows in own])
    restore = torch.empty(len(order), dtype=torch.int64)
    restore[torch.tensor(order)] = torch.arange(len(order))
    return ClassTokens(
        names=tuple(names),
        layout=layout,
        prefix=_rows([list(plans[0][:num_prefix])], [0]),
        own=_rows(own, order),
        position_T=torch.cat([num_prefix + torch.arange(int(n)) for n in lengths]),
        buckets=_buckets([len(rows) for rows in own]),
        end_C=lengths.cumsum(0) - (1 if form.pool == "last" else lengths - ends[torch.tensor(order)] + num_prefix + 1),
        restore_C=restore,
    )


def _common(plans: Sequence[Sequence[int]], *, stop_at_learned: bool) -> int:
    """How many first rows all plans share; never the last row of any."""
    low, high = min(map(list, plans)), max(map(list, plans))
    limit = min(len(plan) for plan in plans) - 1
    for i in range(limit):
        if low[i] != high[i] or (stop_at_learned and low[i] < 0):
            return i
    return limit


def _buckets(lengths: Sequence[int]) -> tuple[Bucket, ...]:
    """Runs of equal lengths."""
    out: list[Bucket] = []
    for length, group in groupby(lengths):
        out.append(Bucket(start=out[-1].stop if out else 0, num_classes=len(list(group)), length=length))
    return tuple(out)


def _rows(plans: Sequence[Sequence[int]], owners: Sequence[int]) -> Rows:
    flat = torch.tensor([row for plan in plans for row in plan], dtype=torch.int64)
    owner = torch.tensor([o for o, plan in zip(owners, plans) for _ in plan], dtype=torch.int64)
    learned = (flat < 0).nonzero().flatten()
    first = int(learned[0]) if len(learned) else 0
    return Rows(ids=flat.clamp(min=0), learned=learned, token=-1 - flat[learned], owner=owner[learned], first=first)


def subset(tokens: ClassTokens, classes_C: Tensor) -> ClassTokens:
    """The rows of some classes (indices into the list, in any order, each once); the shared prefix stays as it is.

    Class-specific contexts still belong to the whole list.
    """
    lengths = torch.tensor(tokens.lengths)
    places = tokens.restore_C[classes_C.to(tokens.restore_C.device)].sort()
    kept = lengths[places.values.cpu()].tolist()
    stops = lengths.cumsum(0)[places.values.cpu()].tolist()
    row = torch.cat([torch.arange(stop - length, stop) for stop, length in zip(stops, kept, strict=True)])
    row = row.to(tokens.position_T.device)
    new = torch.full_like(tokens.position_T, -1)
    new[row] = torch.arange(len(row), device=row.device)
    own = tokens.own
    inside = new[own.learned] >= 0
    rows = Rows(ids=own.ids[row], learned=new[own.learned[inside]], token=own.token[inside], owner=own.owner[inside])
    return replace(
        tokens,
        names=tuple(tokens.names[c] for c in classes_C.tolist()),
        own=rows,
        position_T=tokens.position_T[row],
        buckets=_buckets(kept),
        end_C=new[tokens.end_C[places.values]],
        restore_C=places.indices.argsort(),
    )


def longest(tokens: ClassTokens, number: int) -> ClassTokens:
    """The `number` longest classes: what a step with so many classes takes at most."""
    return subset(tokens, tokens.restore_C.argsort()[-number:]) if number < tokens.num_classes else tokens
