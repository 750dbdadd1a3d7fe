"""PLPP's formulas against the loops of the oracle, in value and gradient, over all options; and their identities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.oracle import losses as oracle
from vlprompt.losses import perplexity as module
from vlprompt.losses.perplexity import inverse_log_perplexity, log_perplexity, perplexity
from vlprompt.losses.plpp import Plpp, PlppOptions
from vlprompt.losses.words import WordTable, word_table
from vlprompt.types import Context, Vocabulary

SPECIAL = 2


def make_vocabulary(words: int, width: int, seed: int, *, specials_last: bool = True) -> Vocabulary:
    """Random rows; two of them are [SOS] and [EOT], at the end or elsewhere; and a mean state."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(words + SPECIAL, width, generator=generator, dtype=torch.float64)
    ids = torch.arange(words) if specials_last else torch.cat([torch.arange(1, words), torch.tensor([words + 1])])
    mean = torch.randn(width, generator=generator, dtype=torch.float64)
    return Vocabulary(weight_VD=weight, word_ids=ids, words=lambda i: f"word{i}", mean_state=lambda: mean)


def make_context(words: int, width: int, seed: int, leading: tuple[int, ...] = ()) -> Context:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*leading, words, width, generator=generator, dtype=torch.float64)
    states = torch.randn(*leading, words + 1, width, generator=generator, dtype=torch.float64)
    return Context(vectors=vectors.requires_grad_(), states=states.requires_grad_())


def as_oracle(options: PlppOptions, context: Context, vocabulary: Vocabulary) -> oracle.Plpp:
    rows = vocabulary.weight_VD[vocabulary.word_ids]
    generator = torch.Generator().manual_seed(options.labels_seed)
    label_rows = rows
    if options.labels == "permuted":
        label_rows = rows[torch.randperm(len(rows), generator=generator)]
    elif options.labels == "random":
        label_rows = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    states = context.states - vocabulary.mean_state() if options.centre and vocabulary.mean_state else context.states
    return oracle.Plpp(
        vectors=context.vectors,
        states=states,
        head_rows=rows,
        label_rows=label_rows,
        hard=options.label == "hard",
        tau=options.tau,
        k=options.k if 0 < options.k < len(rows) else None,
        shift=options.shift_of(context.vectors.shape[-2]),
        student_all=options.student == "all",
        constant_label=options.detach in ("both", "teacher"),
        constant_student=options.detach in ("both", "student"),
        inverse_of_student=options.inverse_support == "student",
        scale=options.scale or None,
        uniform=options.labels == "uniform",
    )


def gradients(loss: Tensor, context: Context) -> list[Tensor]:
    """Of the vectors and of the states; zeros where nothing reaches them."""
    tensors = [context.vectors, context.states]
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def assert_same(loss: Tensor, wanted: Tensor, context: Context, short: Tensor | None = None) -> None:
    """short (..., M): what the literal gradient of each vector is multiplied by, for vectors that are shorter than words."""
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9, abs=1e-10)
    ours, theirs = gradients(loss, context), gradients(wanted, context)
    if short is not None:
        theirs[0] = theirs[0] * short[..., None]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def shortness(context: Context, vocabulary: Vocabulary) -> Tensor:
    """The factor of a vector's gradient: its length over the words' mean length, squared; at most 1."""
    words = [math.sqrt(sum(float(x) ** 2 for x in row)) for row in vocabulary.weight_VD[vocabulary.word_ids]]
    mean = sum(words) / len(words)
    flat = context.vectors.detach().reshape(-1, context.vectors.shape[-1])
    found = [min(1.0, (math.sqrt(sum(float(x) ** 2 for x in row)) / mean) ** 2) for row in flat]
    return torch.tensor(found, dtype=torch.float64).reshape(context.vectors.shape[:-1])


@st.composite
def all_options(draw: st.DrawFn) -> PlppOptions:
    values: dict[str, Any] = {
        "label": draw(st.sampled_from(["soft", "soft", "hard"])),
        "tau": draw(st.sampled_from([0.01, 0.05, 0.1, 1.0])),
        "k": draw(st.integers(0, 8)),
        "shift": draw(st.sampled_from([0, 1, "auto"])),
        "centre": draw(st.booleans()),
        "length": draw(st.sampled_from(["bounded", "free"])),
        "student": draw(st.sampled_from(["same", "all"])),
        "detach": draw(st.sampled_from(["both", "teacher", "student", "none"])),
        "inverse_support": draw(st.sampled_from(["teacher", "student"])),
        "scale": draw(st.sampled_from([0.0, 3.0])),
        "labels": draw(st.sampled_from(["cosine", "permuted", "random", "uniform"])),
        "labels_seed": draw(st.integers(0, 3)),
    }
    if values["labels"] == "uniform":
        values |= {"label": "soft", "k": values["k"] if values["k"] != 1 else 2}
    return PlppOptions(**values)


@settings(max_examples=150, derandomize=True)
@given(
    options=all_options(),
    words=st.integers(2, 7),
    context_words=st.integers(1, 4),
    width=st.integers(2, 6),
    seed=st.integers(0, 1000),
    specials_last=st.booleans(),
)
def test_every_option_is_the_oracle_in_value_and_gradient(
    options: PlppOptions, words: int, context_words: int, width: int, seed: int, specials_last: bool
) -> None:
    vocabulary = make_vocabulary(words, width, seed, specials_last=specials_last)
    context = make_context(context_words, width, seed + 1)
    literal = as_oracle(options, context, vocabulary)
    losses = Plpp(options)
    short = shortness(context, vocabulary) if options.length == "bounded" else None
    assert_same(losses.log_perplexity(context, vocabulary), literal.perplexity_loss(), context, short)
    assert_same(losses.inverse(context, vocabulary), literal.inverse_loss(), context, short)


@settings(max_examples=60, derandomize=True)
@given(
    words=st.integers(3, 30),
    context_words=st.integers(1, 6),
    k=st.integers(2, 30),
    tau=st.floats(0.01, 2),
    seed=st.integers(0, 1000),
)
def test_perplexity_loss_less_the_labels_entropy_is_their_divergence(
    words: int, context_words: int, k: int, tau: float, seed: int
) -> None:
    vocabulary, context = make_vocabulary(words, 5, seed), make_context(context_words, 5, seed + 1)
    table = word_table(vocabulary)
    with torch.no_grad():
        cosine = table.cosine(context.vectors)
        support = cosine.topk(min(k, words)).indices
        label_log = torch.log_softmax(cosine.gather(-1, support) / tau, dim=-1)
        student_log = torch.log_softmax(table.dot(context.states[:-1]).gather(-1, support), dim=-1)
        entropy = -(label_log.exp() * label_log).sum(-1).mean()
        divergence = (label_log.exp() * (label_log - student_log)).sum(-1).mean()
        loss = Plpp(PlppOptions(k=k, tau=tau, shift=1)).log_perplexity(context, vocabulary)
    assert (loss - entropy).item() == pytest.approx(divergence.item(), rel=1e-9, abs=1e-9)
    assert divergence > -1e-12


@settings(max_examples=40, derandomize=True)
@given(words=st.integers(2, 20), context_words=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_cold_soft_label_is_the_hard_label(words: int, context_words: int, seed: int) -> None:
    vocabulary, context = make_vocabulary(words, 6, seed), make_context(context_words, 6, seed + 1)
    hard = Plpp(PlppOptions(label="hard")).log_perplexity(context, vocabulary)
    best = word_table(vocabulary).cosine(context.vectors.detach()).topk(2).values
    tau = float((best[:, 0] - best[:, 1]).min()) / 60  # the runner-up is e^60 times less likely
    cold = Plpp(PlppOptions(tau=tau, student="all", k=0)).log_perplexity(context, vocabulary)
    assert_same(cold, hard, context)


@settings(max_examples=40, derandomize=True)
@given(words=st.integers(2, 20), context_words=st.integers(1, 5), more=st.integers(0, 3), seed=st.integers(0, 1000))
def test_as_many_words_as_there_are_is_the_full_vocabulary(
    words: int, context_words: int, more: int, seed: int
) -> None:
    vocabulary, context = make_vocabulary(words, 6, seed), make_context(context_words, 6, seed + 1)
    for kind in ("log_perplexity", "inverse"):
        every = getattr(Plpp(PlppOptions(k=0, tau=0.1)), kind)(context, vocabulary)
        assert_same(getattr(Plpp(PlppOptions(k=words + more, tau=0.1)), kind)(context, vocabulary), every, context)


def test_one_word_is_the_hard_label() -> None:
    vocabulary, context = make_vocabulary(12, 6, 3), make_context(4, 6, 4)
    for kind in ("log_perplexity", "inverse"):
        hard = getattr(Plpp(PlppOptions(label="hard")), kind)(context, vocabulary)
        assert_same(getattr(Plpp(PlppOptions(k=1)), kind)(context, vocabulary), hard, context)
        assert_same(getattr(Plpp(PlppOptions(k=1, student="all")), kind)(context, vocabulary), hard, context)


def test_the_inverse_is_the_perplexity_with_roles_swapped() -> None:
    generator = torch.Generator().manual_seed(5)
    cosine = torch.rand(4, 9, generator=generator, dtype=torch.float64)
    logits = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    tau = 0.05
    swapped = log_perplexity(torch.softmax(logits, -1), torch.log_softmax(cosine / tau, -1))
    torch.testing.assert_close(inverse_log_perplexity(cosine, logits, tau), swapped, rtol=1e-12, atol=0)


def test_gradients_in_closed_form() -> None:
    """dL_ppl/dz = q - t for a row, and dL_inv/dcos = (t - q) / tau: the second grows as 1 / tau."""
    generator = torch.Generator().manual_seed(6)
    cosine = torch.rand(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    tau = 0.05
    label, student = torch.softmax(cosine / tau, -1), torch.softmax(logits, -1)
    loss = log_perplexity(label.detach(), torch.log_softmax(logits, -1)).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], (student - label).detach())
    inverse = inverse_log_perplexity(cosine, logits, tau).sum()
    found = torch.autograd.grad(inverse, [cosine, logits], allow_unused=True)
    torch.testing.assert_close(found[0], ((label - student) / tau).detach())
    assert found[1] is None


@pytest.mark.parametrize(("tau_scale", "factors"), [("none", (1, 1)), ("inverse", (1, 0.05)), ("both", (0.05, 0.05))])
def test_tau_scale_multiplies_the_terms_it_names(tau_scale: Any, factors: tuple[float, float]) -> None:
    vocabulary, context = make_vocabulary(12, 6, 7), make_context(3, 6, 8)
    plain, scaled = (Plpp(PlppOptions(tau=0.05, tau_scale=value)) for value in ("none", tau_scale))
    for kind, factor in zip(("log_perplexity", "inverse"), factors, strict=True):
        value = getattr(plain, kind)(context, vocabulary)
        assert getattr(scaled, kind)(context, vocabulary).item() == pytest.approx(factor * value.item(), rel=1e-12)


@pytest.mark.parametrize("options", [PlppOptions(k=4), PlppOptions(k=0), PlppOptions(label="hard")])
def test_class_specific_contexts_are_the_mean_over_classes_however_they_are_cut(
    options: PlppOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, context = make_vocabulary(15, 6, 9), make_context(3, 6, 10, leading=(5,))
    for kind in ("log_perplexity", "inverse"):
        each = [
            getattr(Plpp(options), kind)(Context(vectors=context.vectors[c], states=context.states[c]), vocabulary)
            for c in range(5)
        ]
        mean = torch.stack(each).mean()
        whole = getattr(Plpp(options), kind)(context, vocabulary)
        assert_same(whole, mean, context)
        monkeypatch.setattr(module, "ROWS", 4)
        assert_same(getattr(Plpp(options), kind)(context, vocabulary), mean, context)
        monkeypatch.undo()


def test_chunks_keep_no_full_rows_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """With class-specific contexts over all words, nothing of size rows x words survives the forward pass."""
    vocabulary, context = make_vocabulary(500, 4, 11), make_context(8, 4, 12, leading=(6,))
    monkeypatch.setattr(module, "ROWS", 8)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        Plpp(PlppOptions(k=0)).log_perplexity(context, vocabulary)
    assert max(kept) < 8 * 500


def test_only_the_labels_columns_of_the_head_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, context = make_vocabulary(40, 6, 13), make_context(4, 6, 14)
    full: list[bool] = []
    plain = WordTable.dot

    def counted(table: WordTable, states: Tensor) -> Tensor:
        full.append(torch.is_grad_enabled())
        return plain(table, states)

    monkeypatch.setattr(WordTable, "dot", counted)
    losses = Plpp(PlppOptions(k=5))
    losses.log_perplexity(context, vocabulary)
    losses.inverse(context, vocabulary)
    assert full == [False]  # one pass over the words for both terms, the teacher's, without a graph


def test_a_loss_is_a_function_of_its_context_alone() -> None:
    """One object asked about many contexts says what a fresh one says."""
    vocabulary, losses = make_vocabulary(40, 6, 15), Plpp(PlppOptions(k=3))
    for seed in (16, 17, 16):
        for kind in ("log_perplexity", "inverse"):
            fresh = getattr(Plpp(PlppOptions(k=3)), kind)(make_context(4, 6, seed), vocabulary)
            assert getattr(losses, kind)(make_context(4, 6, seed), vocabulary).item() == fresh.item()


def test_centring_takes_off_what_all_states_share() -> None:
    vocabulary, context = make_vocabulary(15, 6, 27), make_context(4, 6, 28)
    assert vocabulary.mean_state is not None
    moved = replace(context, states=context.states + vocabulary.mean_state())
    for kind in ("log_perplexity", "inverse"):
        centred = getattr(Plpp(PlppOptions(k=5, centre=True)), kind)(moved, vocabulary)
        plain = getattr(Plpp(PlppOptions(k=5)), kind)(context, vocabulary)
        assert centred.item() == pytest.approx(plain.item(), rel=1e-9)
    still = replace(context, states=vocabulary.mean_state().expand_as(context.states))
    even = Plpp(PlppOptions(label="hard", centre=True)).log_perplexity(still, vocabulary)
    assert even.item() == pytest.approx(math.log(15))


@pytest.mark.parametrize(("length", "powers"), [("free", (-1, -1)), ("bounded", (1, -1))])
def test_the_inverse_gradient_by_the_length_of_a_vector(length: Any, powers: tuple[int, int]) -> None:
    """Free it grows as 1 / length; bounded it grows with the length up to a word's, and falls beyond. Always across the vector."""
    vocabulary, context = make_vocabulary(15, 6, 29), make_context(1, 6, 30)
    mean = float(torch.linalg.vector_norm(vocabulary.weight_VD[vocabulary.word_ids], dim=-1).mean())
    direction = context.vectors.detach() / torch.linalg.vector_norm(context.vectors.detach())

    def gradient(size: float) -> Tensor:
        vectors = (direction * size * mean).requires_grad_()
        here = Context(vectors=vectors, states=context.states.detach())
        (found,) = torch.autograd.grad(Plpp(PlppOptions(k=5, length=length)).inverse(here, vocabulary), vectors)
        return found

    at_word = gradient(1.0)
    for size, power in ((0.1, powers[0]), (10.0, powers[1])):
        torch.testing.assert_close(gradient(size), at_word * size**power, rtol=1e-6, atol=1e-12)
    assert float((at_word * direction).sum()) == pytest.approx(0, abs=1e-12)


def test_a_zero_vector_has_cosine_zero_and_no_gradient() -> None:
    vocabulary = make_vocabulary(9, 4, 17)
    context = Context(
        vectors=torch.zeros(2, 4, dtype=torch.float64, requires_grad=True),
        states=make_context(2, 4, 18).states.detach().requires_grad_(),
    )
    losses = Plpp(PlppOptions(k=0, detach="none"))
    for loss in (losses.log_perplexity(context, vocabulary), losses.inverse(context, vocabulary)):
        of_vectors, of_states = gradients(loss, context)
        assert torch.isfinite(loss)
        assert torch.isfinite(of_states).all()
        assert not of_vectors.any()
    assert losses.inverse(context, vocabulary).item() == pytest.approx(math.log(9))  # t is even


@pytest.mark.parametrize("k", [0, 5])
def test_a_word_of_length_zero_has_cosine_zero_and_finite_gradients(k: int) -> None:
    vocabulary = make_vocabulary(9, 4, 17)
    vocabulary = replace(vocabulary, weight_VD=vocabulary.weight_VD.clone())
    vocabulary.weight_VD[2:7] = 0
    context = make_context(2, 4, 18)
    losses = Plpp(PlppOptions(k=k, detach="none"))
    for loss in (losses.log_perplexity(context, vocabulary), losses.inverse(context, vocabulary)):
        assert torch.isfinite(loss)
        assert all(torch.isfinite(found).all() for found in gradients(loss, context))
    assert not word_table(vocabulary).cosine(context.vectors.detach())[:, 2:7].any()


def test_half_precision_embeddings_are_computed_in_float32() -> None:
    vocabulary, context = make_vocabulary(12, 8, 19), make_context(3, 8, 20)
    single = Context(vectors=context.vectors.float(), states=context.states.float())
    rounded = replace(vocabulary, weight_VD=vocabulary.weight_VD.bfloat16())
    again = replace(vocabulary, weight_VD=rounded.weight_VD.float())
    options = PlppOptions(k=4)
    ours = Plpp(options).log_perplexity(single, rounded)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(Plpp(options).log_perplexity(single, again).item(), rel=1e-6)


def test_reported_perplexity_is_the_hard_label_over_all_words_whatever_is_trained() -> None:
    vocabulary, context = make_vocabulary(20, 5, 21, specials_last=False), make_context(4, 5, 22)
    literal = as_oracle(PlppOptions(label="hard", shift=1), context, vocabulary)
    assert perplexity(context, vocabulary) == pytest.approx(math.exp(literal.perplexity_loss().item()), rel=1e-9)


def test_perplexity_of_a_head_that_knows_nothing_is_the_number_of_words() -> None:
    vocabulary, context = make_vocabulary(20, 5, 23), make_context(4, 5, 24)
    ignorant = replace(context, states=torch.zeros_like(context.states))
    assert perplexity(ignorant, vocabulary) == pytest.approx(20)
