"""Literal versions of the losses: one number at a time, in float64, straight from the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())


def softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    highest = max(score.item() for score in scores)
    powers = [torch.exp(score - highest) for score in scores]
    total = powers[0] * 0
    for power in powers:
        total = total + power
    return [power / total for power in powers]


def best(scores: Sequence[Tensor], k: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda j: -scores[j].item())[:k]


@dataclass
class Plpp:
    """L_ppl and L_inv of one context. `k` None: all words."""

    vectors: Tensor
    """(M, D)"""
    states: Tensor
    """(1 + M, D)"""
    head_rows: Tensor
    """(A, D), the words that the head scores."""
    label_rows: Tensor
    """(A, D), what word j is compared as on the label side."""
    hard: bool = False
    tau: float = 0.01
    k: int | None = 10
    shift: int = 1
    student_all: bool = False
    constant_label: bool = True
    constant_student: bool = True
    inverse_of_student: bool = False
    scale: float | None = None
    uniform: bool = False

    def _scores(self, i: int) -> tuple[list[Tensor], list[Tensor]]:
        """Cosines with every word, and the head's logits for every word, of context vector i (from 0)."""
        state = self.states[i] if self.shift == 1 else self.states[i + 1]
        cosines = [cosine(self.vectors[i], row) for row in self.label_rows]
        logits = [dot(state, row) if self.scale is None else self.scale * cosine(state, row) for row in self.head_rows]
        return cosines, logits

    def _label(self, cosines: list[Tensor]) -> list[Tensor]:
        if self.uniform:
            return [torch.tensor(1 / len(cosines), dtype=torch.float64) for _ in cosines]
        return softmax([value / self.tau for value in cosines])

    def perplexity_loss(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        one_word = self.hard or self.k == 1
        words = len(self.head_rows)
        for i in range(len(self.vectors)):
            cosines, logits = self._scores(i)
            support = best(cosines, 1 if one_word else words if self.k is None else self.k)
            label = self._label([cosines[j] for j in support])
            if self.student_all or one_word:
                everything = softmax(logits)
                student = [everything[j] for j in support]
            else:
                student = softmax([logits[j] for j in support])
            for t, q in zip(label, student, strict=True):
                total = total - (t.detach() if self.constant_label else t) * torch.log(q)
        return total / len(self.vectors)

    def inverse_loss(self) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        words = len(self.head_rows)
        for i in range(len(self.vectors)):
            cosines, logits = self._scores(i)
            if self.hard or self.k == 1 or self.k is None:
                support = list(range(words))
            else:
                support = best(logits if self.inverse_of_student else cosines, self.k)
            label = self._label([cosines[j] for j in support])
            student = softmax([logits[j] for j in support])
            for t, q in zip(label, student, strict=True):
                total = total - (q.detach() if self.constant_student else q) * torch.log(t)
        return total / len(self.vectors)


def cross_entropy(image: Tensor, text: Tensor, labels: Sequence[int], scale: float) -> Tensor:
    """image (B, E), text (C, E) or (B, C, E)."""
    total = torch.zeros((), dtype=torch.float64)
    for b, label in enumerate(labels):
        classes = text if text.dim() == 2 else text[b]
        scores = softmax([scale * cosine(image[b], row) for row in classes])
        total = total - torch.log(scores[label])
    return total / len(labels)


def total(values: Sequence[Tensor]) -> Tensor:
    out = values[0] * 0
    for value in values:
        out = out + value
    return out


def text_anchor(text: Tensor, teacher: Tensor) -> Tensor:
    """KgCoOp: text (C, E) or (B, C, E), teacher (C, E)."""
    images = [text] if text.dim() == 2 else list(text)
    found = [cosine(classes[c], teacher[c]) for classes in images for c in range(len(teacher))]
    return 1 - total(found) / len(found)


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """ProGrad's teacher term: both (B, C)."""
    out = []
    for own, other in zip(logits, teacher, strict=True):
        soft = softmax([value / temperature for value in other])
        answer = softmax([value / temperature for value in own])
        out.append(-total([t * torch.log(q) for t, q in zip(soft, answer, strict=True)]) * temperature**2)
    return total(out) / len(out)


def projected(gradient: Tensor, general: Tensor, strength: float) -> Tensor:
    """ProGrad's rule on one tensor."""
    g, h = gradient.flatten(), general.flatten()
    if dot(g, h) >= 0:
        return gradient
    unit = h / dot(h, h).sqrt()
    return (g - strength * dot(g, unit) * unit).reshape(gradient.shape)


def pomp(logits: Tensor, labels: Sequence[int], drawn: Sequence[int], correction: str) -> Tensor:
    """Cross-entropy of each image's own class beside the drawn ones but its own; logits (B, N) of all classes."""
    out = []
    for row, label in zip(logits, labels, strict=True):
        negatives = [c for c in drawn if c != label]
        ratio = (len(row) - 1) / max(1, len(negatives))
        added = {"natural": math.log(ratio), "log10": math.log10(ratio), "none": 0.0}[correction]
        out.append(-torch.log(softmax([row[label], *(row[c] + added for c in negatives)])[0]))
    return total(out) / len(out)
