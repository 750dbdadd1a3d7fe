"""The table of words, its controls, and the words nearest to a context vector."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from vlprompt.losses.words import nearest_words, word_table
from vlprompt.types import Vocabulary


def vocabulary(ids: list[int], rows: int = 30, width: int = 8, seed: int = 0) -> Vocabulary:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return Vocabulary(weight_VD=weight, word_ids=torch.tensor(ids), words=lambda i: f"w{i}")


def test_words_are_the_rows_without_the_special_tokens_and_are_not_copied_when_those_are_last() -> None:
    last = vocabulary(list(range(28)))
    assert word_table(last).rows_AD.data_ptr() == last.weight_VD.data_ptr()
    inside = vocabulary([0, 1, 4, 7])
    assert torch.equal(word_table(inside).rows_AD, inside.weight_VD[[0, 1, 4, 7]])


def test_a_table_is_built_once_and_goes_with_the_embedding() -> None:
    some = vocabulary(list(range(28)))
    assert word_table(some) is word_table(some)
    weight = weakref.ref(some.weight_VD)
    del some
    gc.collect()
    assert weight() is None


def test_permuted_labels_keep_the_cosines_and_change_their_words() -> None:
    some = vocabulary(list(range(28)))
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    plain, permuted = word_table(some).cosine(vectors), word_table(some, "permuted", 5).cosine(vectors)
    torch.testing.assert_close(plain.sort().values, permuted.sort().values)
    assert (plain != permuted).float().mean() > 0.8
    assert not torch.equal(permuted, word_table(some, "permuted", 6).cosine(vectors))


def test_random_labels_have_nothing_of_the_words() -> None:
    some = vocabulary(list(range(28)))
    word = some.weight_VD[4][None]
    assert word_table(some).cosine(word).max().item() == pytest.approx(1)
    assert word_table(some, "random", 5).cosine(word).max() < 0.95


def test_the_nearest_words_are_those_of_a_plain_search() -> None:
    ids = [0, 1, 2, 5, 6, 9, 11, 20]
    some = vocabulary(ids)
    vectors = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    for near, vector in zip(nearest_words(vectors, some, 3), vectors, strict=True):
        distance = {i: float((some.weight_VD[i] - vector).norm()) for i in ids}
        ranked = sorted(ids, key=distance.__getitem__)[:3]
        assert near.words == tuple(f"w{i}" for i in ranked)
        assert near.distance == pytest.approx([distance[i] for i in ranked], rel=1e-5)
        cosines = torch.nn.functional.cosine_similarity(some.weight_VD[ranked], vector[None])
        assert near.cosine == pytest.approx(cosines.tolist(), rel=1e-5)
    for near, vector in zip(nearest_words(vectors, some, 3, by="cosine"), vectors, strict=True):
        cosine = {i: float(torch.cosine_similarity(some.weight_VD[i], vector, dim=0)) for i in ids}
        assert near.words == tuple(f"w{i}" for i in sorted(ids, key=lambda i: -cosine[i])[:3])
        assert near.best_cosine == pytest.approx(max(cosine.values()), rel=1e-5)


def test_a_word_is_its_own_nearest_word_and_far_above_chance() -> None:
    some = vocabulary(list(range(500)), rows=502, width=64)
    (near,) = nearest_words(some.weight_VD[7][None], some, 2)
    assert near.words[0] == "w7"
    assert near.distance[0] == 0
    assert near.cosine[0] == pytest.approx(1)
    assert near.chance_cosine < 0.6
    assert near.chance_distance > 5


def test_random_vectors_are_at_chance() -> None:
    """The baseline is what vectors that mean nothing find: on average, neither nearer nor farther."""
    some = vocabulary(list(range(500)), rows=502, width=64)
    vectors = torch.randn(100, 64, generator=torch.Generator().manual_seed(3))
    found = nearest_words(vectors, some, 1)
    mean_cosine = sum(near.best_cosine for near in found) / 100
    assert mean_cosine == pytest.approx(found[0].chance_cosine, abs=0.02)
    mean_distance = sum(near.distance[0] for near in found) / 100
    assert mean_distance == pytest.approx(sum(near.chance_distance for near in found) / 100, rel=0.02)


def test_class_specific_contexts_are_read_row_by_row() -> None:
    some = vocabulary(list(range(28)))
    vectors = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(4))
    assert nearest_words(vectors, some, 2) == nearest_words(vectors.reshape(6, 8), some, 2)
