"""Perplexity of a learned context: how well a language model made of CLIP's own parts predicts its words.

Labels: cosines of each context vector p_i with the token embedding W. Head: h_i W^T, h a state of the text tower after
its last layer norm. Both need no training. The functions here are the formulas, on rows; `plpp` makes terms of them.

Shape letters: R rows (one per context vector), K words of a row's support, A all words.
Source: PLPP, arXiv 2412.15277, as far as public; the formulas are the project's reading of it (docs/plpp.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlprompt.losses.words import WordTable, word_table
from vlprompt.types import Context, Vocabulary

ROWS = 64
"""Rows worked on at once: what bounds the memory of class-specific contexts (ROWS x A numbers)."""


def soft_labels(cosine_RK: Tensor, tau: float) -> Tensor:
    """The teacher: ``t_ij = softmax_j(cos(p_i, W_j) / tau)`` over a row's support, (R, K)."""
    return torch.softmax(cosine_RK / tau, dim=-1)


def log_perplexity(labels_RK: Tensor, student_log_RK: Tensor) -> Tensor:
    """``-sum_j t_ij log q_ij`` for every row, (R,)."""
    return -(labels_RK * student_log_RK).sum(dim=-1)


def inverse_log_perplexity(cosine_RK: Tensor, logits_RK: Tensor, tau: float, *, detach: bool = True) -> Tensor:
    """The roles swapped: ``-sum_j sg(q_ij) log t_ij``, both sides a softmax over the same support, (R,).

    detach: whether the student's probabilities q are a constant (sg); without it the head is trained too.
    """
    student_RK = torch.softmax(logits_RK, dim=-1)
    teacher_log_RK = torch.log_softmax(cosine_RK / tau, dim=-1)
    return -((student_RK.detach() if detach else student_RK) * teacher_log_RK).sum(dim=-1)


def head_logits(states_RD: Tensor, words: WordTable, support_RK: Tensor | None, scale: float | None) -> Tensor:
    """The head: ``h W^T`` (scale None), or ``scale * cos(h, W)``; (R, K) on the support, (R, A) where it is None."""
    if scale is None:
        return words.dot(states_RD) if support_RK is None else words.dot_at(states_RD, support_RK)
    return scale * label_cosines(states_RD, words, support_RK)


def label_cosines(vectors_RD: Tensor, words: WordTable, support_RK: Tensor | None) -> Tensor:
    """``cos(p_i, W_j)`` (R, K) on the support, (R, A) where it is None."""
    return words.cosine(vectors_RD) if support_RK is None else words.cosine_at(vectors_RD, support_RK)


def top_words(score: Callable[[Tensor], Tensor], rows_RD: Tensor, k: int) -> Tensor:
    """The k best words of each row by `score` (rows -> (R, A)), best first, (R, k) int64; without a gradient."""
    with torch.no_grad():
        chunks = [score(part_RD).topk(k, dim=-1).indices for part_RD in torch.split(rows_RD, ROWS)]
    return torch.cat(chunks)


def mean_over_rows(function: Callable[..., Tensor], *rows: Tensor | None) -> Tensor:
    """The mean of ``function(*rows)`` (one number a row) over all rows, a scalar.

    Beyond ROWS rows: chunk by chunk, each run again in the backward pass, so memory does not grow with classes.
    """
    count = next(part.shape[0] for part in rows if part is not None)
    if count <= ROWS:
        return function(*rows).mean()
    total: Tensor | None = None
    for start in range(0, count, ROWS):
        chunk = [None if part is None else part[start : start + ROWS] for part in rows]
        part_sum = checkpoint(_summed, function, *chunk, use_reentrant=False, preserve_rng_state=False)
        total = part_sum if total is None else total + part_sum
    assert total is not None
    return total / count


def _summed(function: Callable[..., Tensor], *rows: Tensor | None) -> Tensor:
    return function(*rows).sum()


def flatten_context(context: Context, shift: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows of a context: its vectors (R, D), and the states that predict them (R, D).

    shift 1: word i is predicted by the state before it ([SOS] first), as perplexity is defined; shift 0: by its own.
    """
    vectors, states = context.vectors, context.states
    *leading, words, _ = vectors.shape
    assert list(states.shape[:-1]) == [*leading, words + 1], f"vectors {vectors.shape}, states {states.shape}"
    assert shift in (0, 1), shift
    predicting = states.narrow(-2, 1 - shift, words)
    return vectors.to(dtype).reshape(-1, vectors.shape[-1]), predicting.to(dtype).reshape(-1, states.shape[-1])


def perplexity(context: Context, vocabulary: Vocabulary) -> float:
    """The perplexity that is reported, whatever was trained: exp of the hard-label loss over the full vocabulary.

    The label of p_i is its nearest word by cosine; the probability of that word is a softmax of ``h W^T`` over all
    words but [SOS] and [EOT]. Between 1 (each word is certain) and beyond A (worse than guessing evenly). Leading axes
    (classes) are averaged over before exp (project's choice).
    """
    words = word_table(vocabulary)
    vectors_RD, states_RD = flatten_context(context, 1, words.rows_AD.dtype)
    with torch.no_grad():
        label_R1 = top_words(words.cosine, vectors_RD, 1)
        loss = mean_over_rows(
            lambda states, label: -torch.log_softmax(words.dot(states), dim=-1).gather(-1, label)[:, 0],
            states_RD,
            label_R1,
        )
    return float(loss.exp())
