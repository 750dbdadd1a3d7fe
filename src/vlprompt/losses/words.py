"""The frozen token embedding as PLPP uses it: a table of words to compare context vectors with.

Shape letters next to those of `types`: R rows (context vectors, all leading axes flattened), A words, K words of a row.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vlprompt.types import Vocabulary

Labels = Literal["cosine", "permuted", "random", "uniform"]


def lengths(vectors: Tensor) -> Tensor:
    """Euclidean lengths over the last axis, (...,); infinity for a zero vector.

    A zero vector has no direction: divided by this length its cosines are 0 and it gets no gradient. This is the project's
    choice; the usual small constant in the denominator would give it a gradient of that constant's inverse.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1)
    return torch.where(length > 0, length, torch.full_like(length, torch.inf))


def bounded(vectors: Tensor, length: Tensor) -> Tensor:
    """The same vectors (..., D); the gradient of those shorter than `length` is multiplied by ``(|v| / length)^2``.

    The gradient of a cosine grows as 1 / |v| without end. With this factor it is largest at `length`, falls to 0 with |v| below
    it, and is untouched above (project's choice).
    """
    held = vectors.detach()
    factor = (torch.linalg.vector_norm(held, dim=-1, keepdim=True) / length).square().clamp(max=1)
    out: Tensor = held + factor * (vectors - held)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTable:
    """A frozen matrix with one row per word of A (every id but [SOS] and [EOT]); words are meant by their row here."""

    rows_AD: Tensor
    lengths_A: Tensor
    """Euclidean lengths of the rows; 1 for a row of zeros, whose cosine is 0 then, with a finite gradient."""
    mean_length: Tensor
    """A scalar: the mean Euclidean length of the rows."""
    order_A: Tensor | None = None
    """None: word j is compared with row j; else with row ``order_A[j]``."""

    @property
    def num_words(self) -> int:
        return self.rows_AD.shape[0]

    def dot(self, states_RD: Tensor) -> Tensor:
        """(R, A): dot products with every word."""
        products_RA = states_RD @ self.rows_AD.T
        return products_RA if self.order_A is None else products_RA[:, self.order_A]

    def dot_at(self, states_RD: Tensor, words_RK: Tensor) -> Tensor:
        """(R, K): dot products with each row's own words; reads K rows of the table instead of A."""
        return torch.einsum("rd,rkd->rk", states_RD, self.rows_AD[self._rows(words_RK)])

    def cosine(self, vectors_RD: Tensor) -> Tensor:
        """(R, A): cosines with every word."""
        lengths_A = self.lengths_A if self.order_A is None else self.lengths_A[self.order_A]
        return self.dot(vectors_RD) / (lengths(vectors_RD)[:, None] * lengths_A)

    def cosine_at(self, vectors_RD: Tensor, words_RK: Tensor) -> Tensor:
        """(R, K): cosines with each row's own words."""
        lengths_RK = self.lengths_A[self._rows(words_RK)]
        return self.dot_at(vectors_RD, words_RK) / (lengths(vectors_RD)[:, None] * lengths_RK)

    def _rows(self, words_RK: Tensor) -> Tensor:
        return words_RK if self.order_A is None else self.order_A[words_RK]


_tables: MutableMapping[Tensor, dict[tuple[str, int, torch.device], WordTable]] = WeakTensorKeyDictionary()
"""Token embedding -> {(labels, seed, where it is): table}: the lengths of 49,408 frozen rows are not worth measuring every step."""


def word_table(vocabulary: Vocabulary, labels: Labels = "cosine", seed: int = 0) -> WordTable:
    """The table that vectors are compared with; remembered as long as the token embedding lives.

    ``cosine``: the token embedding itself, a view of it where [SOS] and [EOT] are its last rows and it is float32.
    The controls (project's choice): ``permuted`` word j stands for another word's row, by one permutation drawn from
    seed; ``random`` every row is replaced by a normal one drawn from seed. ``uniform`` compares as ``cosine`` does.
    """
    known = _tables.setdefault(vocabulary.weight_VD, {})
    name, own = ("cosine", 0) if labels in ("cosine", "uniform") else (labels, seed)
    key = (name, own, vocabulary.weight_VD.device)
    if key not in known:
        known[key] = _build_table(vocabulary, labels, seed)
    return known[key]


def _build_table(vocabulary: Vocabulary, labels: Labels, seed: int) -> WordTable:
    weight_VD = vocabulary.weight_VD.detach()
    num_words = vocabulary.word_ids.numel()
    assert num_words > 0, "a vocabulary without words"
    contiguous = int(vocabulary.word_ids[-1]) == num_words - 1
    rows_AD = weight_VD[:num_words] if contiguous else weight_VD[vocabulary.word_ids]
    rows_AD = rows_AD.to(torch.promote_types(rows_AD.dtype, torch.float32))
    generator = torch.Generator().manual_seed(seed)
    order_A = None
    if labels == "permuted":
        order_A = torch.randperm(num_words, generator=generator).to(rows_AD.device)
    elif labels == "random":
        rows_AD = torch.randn(rows_AD.shape, generator=generator, dtype=rows_AD.dtype).to(rows_AD.device)
    lengths_A = torch.linalg.vector_norm(rows_AD, dim=-1)
    known_A = torch.where(lengths_A > 0, lengths_A, torch.ones_like(lengths_A))
    return WordTable(rows_AD=rows_AD, lengths_A=known_A, mean_length=lengths_A.mean(), order_A=order_A)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearWords:
    """The words nearest to one context vector, nearest first."""

    words: tuple[str, ...]
    cosine: tuple[float, ...]
    """Cosine of each word."""
    distance: tuple[float, ...]
    """Euclidean distance to each word."""
    best_cosine: float
    """The largest cosine over all words (another word's, where distances rank otherwise)."""
    chance_cosine: float
    """The mean largest cosine of random directions."""
    chance_distance: float
    """The mean smallest distance of random vectors of this vector's length."""


DRAWS, SEED = 32, 241215277
"""Random directions that a context vector is compared with, and what they are drawn from."""


def nearest_words(
    vectors: Tensor,
    vocabulary: Vocabulary,
    k: int = 5,
    *,
    by: Literal["distance", "cosine"] = "distance",
) -> tuple[NearWords, ...]:
    """The k nearest words of each context vector, next to what random vectors of the same length would find.

    vectors: (..., M, D), flattened. by: ``distance`` (Euclidean) is what CoOp's published ``interpret_prompt.py`` ranks
    by; ``cosine`` is what PLPP's labels rank by. The baseline (project's choice) is the mean over `DRAWS` directions,
    uniform on the sphere: a vector no nearer to a word than these means no word.
    """
    table = word_table(vocabulary)
    k = min(k, table.num_words)
    with torch.no_grad():
        vectors_RD = vectors.detach().to(table.rows_AD.dtype).reshape(-1, vectors.shape[-1])
        generator = torch.Generator().manual_seed(SEED)
        random_SD = torch.randn((DRAWS, vectors_RD.shape[-1]), generator=generator, dtype=vectors_RD.dtype)
        random_SD = (random_SD / lengths(random_SD)[:, None]).to(vectors_RD.device)
        chance_cosine = float(table.cosine(random_SD).amax(dim=-1).mean())
        random_SA = table.dot(random_SD)
        squares_A = table.rows_AD.square().sum(dim=-1)

        def near(vector_D: Tensor) -> NearWords:
            distance_A = (table.rows_AD - vector_D).norm(dim=-1)
            cosine_A = table.cosine(vector_D[None])[0]
            best_K = (distance_A if by == "distance" else -cosine_A).topk(k, largest=False).indices
            length = vector_D.norm()
            chance_S = (length**2 - 2 * length * random_SA + squares_A).amin(dim=-1).clamp_min(0).sqrt()
            return NearWords(
                words=tuple(vocabulary.words(int(vocabulary.word_ids[row])) for row in best_K),
                cosine=tuple(cosine_A[best_K].tolist()),
                distance=tuple(distance_A[best_K].tolist()),
                best_cosine=float(cosine_A.max()),
                chance_cosine=chance_cosine,
                chance_distance=float(chance_S.mean()),
            )

        return tuple(near(vector_D) for vector_D in vectors_RD)
