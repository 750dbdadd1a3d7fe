"""PLPP as an overlay on a host method: its options, and the two terms that they make.

Source: PLPP, arXiv 2412.15277, as far as public. Every default that the public text does not give is the project's
choice; docs/plpp.md says which, and has the ablation that they come from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from torch import Tensor

from vlprompt.errors import UserError, require
from vlprompt.losses.perplexity import (
    flatten_context,
    head_logits,
    inverse_log_perplexity,
    label_cosines,
    log_perplexity,
    mean_over_rows,
    soft_labels,
    top_words,
)
from vlprompt.losses.words import Labels, WordTable, bounded, word_table
from vlprompt.types import Context, Need, Prompted, PromptSpec, Term, View, Vocabulary

WEIGHT, BALANCE = 0.1, 0.1
"""lambda where neither it nor a balance is given but the balance is off, and R where nothing is given: docs/plpp.md has the ablation."""
FEW = 2
"""Context tokens up to which shift "auto" is 0: with shift 1 half of the perplexity term or more would be constant."""
NOTED = 0.5
"""Share of a term that trains nothing from which a warning says so (project's choice); `vlprompt methods` always says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlppOptions:
    """What may be chosen about PLPP. Each string under a field is its help in the command line."""

    weight: float | None = field(default=None, metadata={"alias": "lambda", "words": {"auto": None}})
    """lambda, the weight of the perplexity term, and of the inverse term where it has none; 0 for both is the host exactly. "auto":
    what the balance finds, or 0.1 with the balance off."""
    weight_inverse: float | None = field(default=None, metadata={"alias": "lambda_inverse", "words": {"same": None}})
    """The weight of the inverse term; "same": lambda, one weight for both."""
    balance: float | None = field(default=None, metadata={"words": {"auto": None, "off": 0.0}})
    """R: the first epoch finds weights with which each term's gradient on the labelled tensors is R times cross-entropy's. They
    are fixed afterwards, and the record has them. "off": the weights above. "auto": 0.1, or off where one of those is given."""
    label: Literal["soft", "hard"] = "soft"
    """What a context vector should predict: a distribution over its nearest words, or the nearest word alone."""
    tau: float = 0.1
    """Temperature of the soft label, softmax(cosine / tau)."""
    tau_random: float | None = field(default=None, metadata={"words": {"same": None}})
    """Temperature for a context that starts from random vectors (init=normal), whose cosines are small; "same": tau."""
    k: int = field(default=10, metadata={"words": {"all": 0}})
    """How many nearest words the label has: its top k, or "all" words. 1 is the hard label."""
    shift: Literal["auto", 1, 0] = "auto"
    """1: the state before a word predicts it, as in perplexity; 0: the word's own state. auto: 0 with one or two context tokens."""
    rows: Literal["read", "token"] = "read"
    """What is labelled where queries, keys and values have separate tokens (RPP): all first-layer tokens that the classifier
    "read"s, or the un-replaced "token" alone. Other hosts have one tensor there."""
    head: Literal["auto", "host", "alone"] = "auto"
    """Whose states predict: the host's own, or those of a separate pass of the context alone with deep prompts off.
    auto: the separate pass where the host's deeper prompts overwrite the context or its states depend on the class."""
    student: Literal["same", "all"] = "same"
    """What the prediction is normalised over: the label's k words, or all words (always with a hard label or k = 1)."""
    mutual: Literal["both", "ppl", "inverse"] = "both"
    """Which terms: perplexity and inverse perplexity (mutual), perplexity alone (one-way), or the inverse alone."""
    detach: Literal["both", "teacher", "student", "none"] = "both"
    """Which target is a constant: the label in the perplexity (teacher), the prediction in the inverse (student)."""
    inverse_support: Literal["teacher", "student"] = "teacher"
    """Whose top k words the inverse is over (over all words with a hard label or k = 1)."""
    tau_scale: Literal["none", "inverse", "both"] = "none"
    """Which terms are multiplied by tau; the inverse's gradient grows as 1 / tau."""
    centre: bool = False
    """Whether the mean state of plain captions is taken off the states before the head reads them."""
    length: Literal["bounded", "free"] = "bounded"
    """A label's gradient grows as 1 / length of the vector. bounded: below the mean length of a word it falls to 0 instead."""
    scale: float = field(default=0.0, metadata={"words": {"raw": 0.0}})
    """Head logits: "raw" is the dot product h W^T; a number s makes them s * cos(h, W) (CLIP's logit scale is 100)."""
    labels: Labels = "cosine"
    """What labels come from. Controls: "permuted" words, "random" rows in place of words, "uniform" over the top k."""
    labels_seed: int = 0
    """The seed of the permutation or of the random rows."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("weight", 'a number of at least 0, or "auto"'),
            ("weight_inverse", 'a number of at least 0, or "same"'),
            ("balance", 'a number above 0, "off" or "auto"'),
            ("tau", "a number above 0"),
            ("tau_random", "a number above 0"),
            ("k", 'a whole number of at least 1, or "all"'),
            ("scale", '"raw" or a number above 0'),
        ):
            value = getattr(self, name)
            right = value is None or (value > 0 if name.startswith("tau") else value >= 0)
            require(right, f"plpp.{name}={value}", allowed)
        if self.labels == "uniform" and self.one_word:
            raise UserError(
                "plpp.labels=uniform needs a soft label of at least two words: with label=hard or k=1 there is nothing "
                "to spread. Set plpp.label=soft and plpp.k to 2 or more."
            )

    @property
    def one_word(self) -> bool:
        """Whether the label is the nearest word alone."""
        return self.label == "hard" or self.k == 1

    @property
    def weights(self) -> dict[str, float]:
        """Term -> its weight before any balance; terms that `mutual` leaves out or that weigh nothing are not in it."""
        weight = WEIGHT if self.weight is None else self.weight
        inverse = weight if self.weight_inverse is None else self.weight_inverse
        asked = {"plpp": self.mutual != "inverse" and weight, "plpp-inverse": self.mutual != "ppl" and inverse}
        return {name: weight for name, weight in asked.items() if weight}

    def shift_of(self, num_tokens: int) -> Literal[1, 0]:
        """The shift for a context of so many tokens."""
        if self.shift == "auto":
            return 0 if num_tokens <= FEW else 1
        return self.shift

    def decided(self) -> PlppOptions:
        """The same options with "auto" of weight and balance decided: a record says how a run was weighted."""
        given = (self.weight, self.weight_inverse) != (None, None)
        balance = (0.0 if given else BALANCE) if self.balance is None else self.balance
        weight = WEIGHT if self.weight is None and not balance else self.weight
        return replace(self, weight=weight, balance=balance)

    def on(self, prompt: PromptSpec) -> PlppOptions:
        """The same options with what depends on the host's prompt decided: the shift, and the temperature of its start."""
        assert prompt.layout is not None
        random = getattr(prompt, "init", None) == "normal"  # not from words, nor from what was learned before
        tau = self.tau if self.tau_random is None or not random else self.tau_random
        return replace(self, shift=self.shift_of(prompt.layout.num_tokens), tau=tau)


@final
class Plpp:
    """The two losses of one resolved set of options, unweighted: pure functions of (context, vocabulary)."""

    def __init__(self, options: PlppOptions) -> None:
        self.options = options

    def log_perplexity(self, context: Context, vocabulary: Vocabulary) -> Tensor:
        """``L_ppl = -(1/M) sum_i sum_j sg(t_ij) log q_ij``, a scalar; the mean over classes where they differ.

        t_i: softmax of cos(p_i, W) / tau over I, the k words nearest to p_i (hard label or k = 1: the nearest).
        q_i: softmax of the head's logits over the same I (student "same") or over all words A.
        """
        options = self.options
        labels, words = self._tables(vocabulary)
        vectors_RD, states_RD = self._rows(context, vocabulary, words)
        support = self._teacher_support(context, vectors_RD, labels)
        over_all = options.student == "all" or options.one_word

        def rows(vectors_RD: Tensor, states_RD: Tensor, support_RK: Tensor | None) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and options.detach not in ("both", "teacher")):
                labels_RK = soft_labels(self._cosines(vectors_RD, labels, support_RK), options.tau)
            logits = self._head(states_RD, words, None if over_all else support_RK)
            student_log = torch.log_softmax(logits, dim=-1)
            if over_all and support_RK is not None:
                student_log = student_log.gather(-1, support_RK)
            return log_perplexity(labels_RK, student_log)

        return self._scaled(mean_over_rows(rows, vectors_RD, states_RD, support), inverse=False)

    def inverse(self, context: Context, vocabulary: Vocabulary) -> Tensor:
        """``L_inv = -(1/M) sum_i sum_j sg(q_ij) log t_ij``, a scalar; both sides a softmax over the same words.

        Those are the teacher's k words, or (option) the student's; with a hard label or k = 1 all words, with the soft
        label.
        """
        options = self.options
        labels, words = self._tables(vocabulary)
        vectors_RD, states_RD = self._rows(context, vocabulary, words)
        support: Tensor | None = None
        if not options.one_word and options.inverse_support == "teacher":
            support = self._teacher_support(context, vectors_RD, labels)
        elif not options.one_word and 0 < options.k < words.num_words:
            support = top_words(lambda states: self._head(states, words, None), states_RD, options.k)

        def rows(vectors_RD: Tensor, states_RD: Tensor, support_RK: Tensor | None) -> Tensor:
            logits = self._head(states_RD, words, support_RK)
            cosines = self._cosines(vectors_RD, labels, support_RK)
            return inverse_log_perplexity(cosines, logits, options.tau, detach=options.detach in ("both", "student"))

        return self._scaled(mean_over_rows(rows, vectors_RD, states_RD, support), inverse=True)

    def _tables(self, vocabulary: Vocabulary) -> tuple[WordTable, WordTable]:
        """The table that labels are read from, and the head's."""
        return word_table(vocabulary, self.options.labels, self.options.labels_seed), word_table(vocabulary)

    def _rows(self, context: Context, vocabulary: Vocabulary, words: WordTable) -> tuple[Tensor, Tensor]:
        """The vectors to be labelled, their gradient bounded, and the states that predict them, centred: (R, D) each."""
        options = self.options
        shift = options.shift_of(context.vectors.shape[-2])
        vectors_RD, states_RD = flatten_context(context, shift, words.rows_AD.dtype)
        if options.centre:
            assert vocabulary.mean_state is not None, "a vocabulary without the tower's mean state"
            states_RD = states_RD - vocabulary.mean_state().to(states_RD)
        if options.length == "bounded":
            vectors_RD = bounded(vectors_RD, words.mean_length)
        return vectors_RD, states_RD

    def _head(self, states_RD: Tensor, words: WordTable, support_RK: Tensor | None) -> Tensor:
        return head_logits(states_RD, words, support_RK, self.options.scale or None)

    def _cosines(self, vectors_RD: Tensor, labels: WordTable, support_RK: Tensor | None) -> Tensor:
        cosines = label_cosines(vectors_RD, labels, support_RK)
        return torch.zeros_like(cosines) if self.options.labels == "uniform" else cosines

    def _teacher_support(self, context: Context, vectors_RD: Tensor, labels: WordTable) -> Tensor | None:
        """(R, k) the words nearest to each context vector; None: all. Found once for both terms of a step."""
        k = 1 if self.options.one_word else self.options.k
        if k == 0 or k >= labels.num_words:
            return None
        key = ("words", self.options.labels, self.options.labels_seed, k)
        if key not in context.found:
            context.found[key] = top_words(labels.cosine, vectors_RD, k)
        return context.found[key]

    def _scaled(self, loss: Tensor, *, inverse: bool) -> Tensor:
        scaled = self.options.tau_scale == "both" or (inverse and self.options.tau_scale == "inverse")
        return loss * self.options.tau if scaled else loss


def plpp_terms(options: PlppOptions, prompt: PromptSpec) -> tuple[Term, ...]:
    """The overlay's terms on a host with this prompt: none with weight 0. Warns of settings that make a term dead."""
    if not options.weights:
        return ()
    for part in dead_parts(options, prompt):
        if part.share >= NOTED:
            warnings.warn(part.why, UserWarning, stacklevel=3)
    need: Need = "context_states" if resolve_head(options, prompt) == "alone" else "host_states"
    chosen = options.on(prompt)
    losses = Plpp(chosen)
    scores = {"plpp": losses.log_perplexity, "plpp-inverse": losses.inverse}
    formulas = {"plpp": _ppl_formula(chosen), "plpp-inverse": _inverse_formula(chosen)}
    return tuple(
        Term(
            name=name,
            score=_score(name, scores[name], need, chosen),
            weight=weight,
            needs=frozenset({need}),
            formula=formulas[name],
            over_images=False,
            balance=chosen.balance or 0.0,
            labelled=lambda prompted: labelled_tensors(prompted, chosen),
        )
        for name, weight in chosen.weights.items()
    )


def _score(
    name: str, loss: Callable[[Context, Vocabulary], Tensor], need: Need, options: PlppOptions
) -> Callable[[View], Tensor]:
    def score(view: View) -> Tensor:
        assert view.context is not None, f"{name} needs {need}"
        return loss(labelled_context(view.context, view.prompted, options), view.vocabulary)

    return score


def labelled_tensors(prompted: Prompted, options: PlppOptions) -> tuple[Tensor, ...]:
    """The first layer's text tokens that PLPP labels: one tensor, or with unshared tokens those that the classifier reads."""
    first = prompted.text[0]
    token = first.q if first.token is None else first.token
    if first.k is None or first.v is None or options.rows == "token":
        return (token,)
    return (first.q, first.k, first.v) if first.token is None else (token, first.q, first.k, first.v)


def num_labelled(options: PlppOptions, prompt: PromptSpec) -> int:
    """How many tensors `labelled_tensors` gives for this prompt."""
    residual = getattr(prompt, "residual", None)
    return 1 if residual is None or options.rows == "token" else 4 if residual == "keep" else 3


def labelled_context(context: Context, prompted: Prompted, options: PlppOptions) -> Context:
    """The context with every labelled tensor on a leading axis, each predicted by the same states."""
    tensors = labelled_tensors(prompted, options)
    if len(tensors) == 1:
        return context
    if "labelled" not in context.found:
        context.found["labelled"] = torch.stack(tensors)
    vectors = context.found["labelled"]
    states = context.states.expand(len(tensors), *context.states.shape)
    return Context(vectors=vectors, states=states, found=context.found)


def resolve_head(options: PlppOptions, prompt: PromptSpec) -> Literal["host", "alone"]:
    """Whose states the head reads.

    With the class name in front of context tokens the host's states differ by class, and class-specific contexts have no shared
    prefix. Only the separate pass works there ("end": equal to the host's states, by causality).
    """
    layout = prompt.layout
    if layout is None:
        raise UserError(
            "plpp needs a method that learns text context tokens at the first layer: this one has none to label."
        )
    by_class = layout.position != "end" or not layout.shared
    if options.head == "host" and layout.position != "end":
        raise UserError(
            f"plpp.head=host with the class name at {layout.position!r}: the host's states then differ by class. "
            "Use plpp.head=alone or auto, or position=end."
        )
    if options.head == "alone" or by_class:
        return "alone"
    return "alone" if options.head == "auto" and prompt.reach.deep_text else "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A part of a term that trains nothing, or not what it should."""

    term: str
    share: float
    """Of the term's rows: 1 is the whole term."""
    why: str
    """One sentence, with what to do."""


def dead_parts(options: PlppOptions, prompt: PromptSpec) -> tuple[Dead, ...]:
    """Every part of a term that is constant, or that trains another tensor than the labelled one, under these options."""
    found = []
    tokens = prompt.layout.num_tokens if prompt.layout else 1
    labels_fixed = options.detach in ("both", "teacher")
    if "plpp" in options.weights and options.shift_of(tokens) == 1 and labels_fixed:
        share = 1 / tokens
        what = (
            "the perplexity term gives no gradient" if share == 1 else f"{share:.0%} of the perplexity term is constant"
        )
        why = (
            f"plpp with {tokens} context token{'s' * (tokens > 1)} and shift 1: [SOS] predicts the first and is constant: "
            f"{what}. Use plpp.shift=0 or more context tokens."
        )
        found.append(Dead(term="plpp", share=share, why=why))
    if "plpp-inverse" in options.weights and options.labels == "uniform":
        why = "plpp.labels=uniform: the inverse term is constant and gives no gradient. Use plpp.mutual=ppl."
        found.append(Dead(term="plpp-inverse", share=1.0, why=why))
    if "plpp" in options.weights and prompt.reach.deep_text and resolve_head(options, prompt) == "host":
        why = (
            "plpp.head=host on a method with deep text prompts: where they replace the context, the perplexity term "
            "reaches the last prompted layer only, never the labelled context. Use plpp.head=auto."
        )
        found.append(Dead(term="plpp", share=1.0, why=why))
    return tuple(found)


def plpp_notes(options: PlppOptions, prompt: PromptSpec) -> tuple[str, ...]:
    """What is labelled, which pass is read, and what of it trains nothing, in words."""
    if not options.weights:
        return ()
    alone = resolve_head(options, prompt) == "alone"
    passes = (
        "a separate pass of [SOS] and the context, which the classifier does not run"
        if alone
        else "the host's own pass"
    )
    rows = "first layer's context"
    if num_labelled(options, prompt) > 1:
        rows = "first layer's query, key and value tokens" + (
            ", and its un-replaced ones" if getattr(prompt, "residual", None) == "keep" else ""
        )
    shift = "before" if options.on(prompt).shift else "at"
    constant = [f"{part.share:.0%} of {part.term} trains nothing there" for part in dead_parts(options, prompt)]
    return (f"plpp labels the {rows}; its head reads the state {shift} each word, in {passes}", *constant)


def plpp_cost(options: PlppOptions, prompt: PromptSpec, *, width: int, words: int, classes: int) -> str:
    """What the terms add to a step, in words; multiplications are those of the forward pass."""
    if not options.weights:
        return "plpp: nothing, its weight is 0"
    assert prompt.layout is not None
    rows = prompt.layout.num_tokens * (1 if prompt.layout.shared else classes) * num_labelled(options, prompt)
    full = options.student == "all" or options.one_word or options.k == 0
    columns = words if full else min(options.k, words)
    growth = "whatever the number of classes" if prompt.layout.shared else f"growing with the {classes} classes"
    again = "; one more text pass of [SOS] and the context alone" if resolve_head(options, prompt) == "alone" else ""
    return (
        f"plpp: {rows} context tokens x {width} x {words:,} words for labels and x {columns:,} for the head "
        f"({rows * width * (words + columns) / 1e6:,.1f} million multiplications), {growth}{again}"
    )


def _ppl_formula(options: PlppOptions) -> str:
    label = "sg(t_ij)" if options.detach in ("both", "teacher") else "t_ij"
    over = "j = argmax cos(p_i, W)" if options.one_word else _top("p_i", options)
    scale = "tau " if options.tau_scale == "both" else ""
    return f"L_ppl = -{scale}(1/M) sum_i sum_j {label} log q_ij, {over}; {_sides(options)}"


def _inverse_formula(options: PlppOptions) -> str:
    target = "sg(q_ij)" if options.detach in ("both", "student") else "q_ij"
    whose = "p_i" if options.inverse_support == "teacher" else "q_i"
    over = "j in all words" if options.one_word else _top(whose, options)
    scale = "" if options.tau_scale == "none" else "tau "
    return f"L_inv = -{scale}(1/M) sum_i sum_j {target} log t_ij, {over}"


def _top(whose: str, options: PlppOptions) -> str:
    return "j in all words" if options.k == 0 else f"j in the {options.k} words nearest to {whose}"


def _sides(options: PlppOptions) -> str:
    teacher = {
        "cosine": f"t = softmax(cos(p, W) / {options.tau:g})",
        "permuted": f"t = softmax(cos(p, permuted W) / {options.tau:g})",
        "random": f"t = softmax(cos(p, random rows) / {options.tau:g})",
        "uniform": "t uniform",
    }[options.labels]
    over = " over all words" if options.student == "all" or options.one_word else ""
    state = "h - mean h" if options.centre else "h"
    head = f"{options.scale:g} cos({state}, W)" if options.scale else f"{f'({state})' if options.centre else state} W^T"
    return f"{teacher}, q = softmax({head}){over}, h the state {'before' if options.shift else 'at'} word i"
