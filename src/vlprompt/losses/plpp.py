"""PLPP as an overlay on a host method: its options, and the two terms that they make.

Source: PLPP, arXiv 2412.15277, as far as public. Every default that the public text does not give is the project's
choice; docs/plpp.md says which, and has the ablation that they come from.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from vlprompt.errors import UserError
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
from vlprompt.losses.words import Labels, WordTable, word_table
from vlprompt.types import Context, Need, PromptSpec, Term, View, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class PlppOptions:
    """What may be chosen about PLPP. Each string under a field is its help in the command line."""

    weight: float = field(default=0.1, metadata={"alias": "lambda"})
    """lambda, the weight of both terms beside the host's loss; 0 is the host exactly."""
    label: Literal["soft", "hard"] = "soft"
    """What a context vector should predict: a distribution over its nearest words, or the nearest word alone."""
    tau: float = 0.1
    """Temperature of the soft label, softmax(cosine / tau)."""
    k: int = field(default=10, metadata={"words": {"all": 0}})
    """How many nearest words the label has: its top k, or "all" words. 1 is the hard label."""
    shift: Literal[1, 0] = 1
    """1: the state before a word predicts it, as in perplexity; 0: the word's own state."""
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
    scale: float = field(default=0.0, metadata={"words": {"raw": 0.0}})
    """Head logits: "raw" is the dot product h W^T; a number s makes them s * cos(h, W) (CLIP's logit scale is 100)."""
    labels: Labels = "cosine"
    """What labels come from. Controls: "permuted" words, "random" rows in place of words, "uniform" over the top k."""
    labels_seed: int = 0
    """The seed of the permutation or of the random rows."""

    def __post_init__(self) -> None:
        _require(self.weight >= 0, "weight", self.weight, "a number of at least 0")
        _require(self.tau > 0, "tau", self.tau, "a number above 0")
        _require(self.k >= 0, "k", self.k, 'a whole number of at least 1, or "all"')
        _require(self.scale >= 0, "scale", self.scale, '"raw" or a number above 0')
        if self.labels == "uniform" and self.one_word:
            raise UserError(
                "plpp.labels=uniform needs a soft label of at least two words: with label=hard or k=1 there is nothing "
                "to spread. Set plpp.label=soft and plpp.k to 2 or more."
            )

    @property
    def one_word(self) -> bool:
        """Whether the label is the nearest word alone."""
        return self.label == "hard" or self.k == 1


def _require(holds: bool, name: str, seen: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"plpp.{name}={seen}: it must be {allowed}.")


class Plpp:
    """The two losses of one resolved set of options, unweighted, on (context, vocabulary)."""

    def __init__(self, options: PlppOptions) -> None:
        self.options = options
        self._latest: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def log_perplexity(self, context: Context, vocabulary: Vocabulary) -> Tensor:
        """``L_ppl = -(1/M) sum_i sum_j sg(t_ij) log q_ij``, a scalar; the mean over classes where they differ.

        t_i: softmax of cos(p_i, W) / tau over I, the k words nearest to p_i (hard label or k = 1: the nearest).
        q_i: softmax of the head's logits over the same I (student "same") or over all words A.
        """
        options = self.options
        labels, words = self._tables(vocabulary)
        vectors_RD, states_RD = flatten_context(context, options.shift, words.rows_AD.dtype)
        support = self._teacher_support(context, vectors_RD, labels)
        over_all = options.student == "all" or options.one_word

        def rows(vectors_RD: Tensor, states_RD: Tensor, support_RK: Tensor | None) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and options.detach not in ("both", "teacher")):
                labels_RK = self._labels(vectors_RD, labels, support_RK)
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
        vectors_RD, states_RD = flatten_context(context, options.shift, words.rows_AD.dtype)
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

    def _head(self, states_RD: Tensor, words: WordTable, support_RK: Tensor | None) -> Tensor:
        return head_logits(states_RD, words, support_RK, self.options.scale or None)

    def _cosines(self, vectors_RD: Tensor, labels: WordTable, support_RK: Tensor | None) -> Tensor:
        cosines = label_cosines(vectors_RD, labels, support_RK)
        return torch.zeros_like(cosines) if self.options.labels == "uniform" else cosines

    def _labels(self, vectors_RD: Tensor, labels: WordTable, support_RK: Tensor | None) -> Tensor:
        return soft_labels(self._cosines(vectors_RD, labels, support_RK), self.options.tau)

    def _teacher_support(self, context: Context, vectors_RD: Tensor, labels: WordTable) -> Tensor | None:
        """(R, k) the words nearest to each context vector; None: all. Found once a step for both terms."""
        k = 1 if self.options.one_word else self.options.k
        if k == 0 or k >= labels.num_words:
            return None
        vectors = context.vectors
        if self._latest is not None:
            known, version, support = self._latest
            if known() is vectors and version == vectors._version:
                return support
        support = top_words(labels.cosine, vectors_RD, k)
        self._latest = (weakref.ref(vectors), vectors._version, support)
        return support

    def _scaled(self, loss: Tensor, *, inverse: bool) -> Tensor:
        scaled = self.options.tau_scale == "both" or (inverse and self.options.tau_scale == "inverse")
        return loss * self.options.tau if scaled else loss


def plpp_terms(options: PlppOptions, prompt: PromptSpec) -> tuple[Term, ...]:
    """The overlay's terms on a host with this prompt: none with weight 0. Warns of settings that make a term dead."""
    if options.weight == 0:
        return ()
    for warning in dead_terms(options, prompt):
        warnings.warn(warning, UserWarning, stacklevel=3)
    need: Need = "context_states" if resolve_head(options, prompt) == "alone" else "host_states"
    losses = Plpp(options)
    terms = []
    if options.mutual in ("both", "ppl"):
        terms.append(_term("plpp", losses.log_perplexity, _ppl_formula(options), need, options))
    if options.mutual in ("both", "inverse"):
        terms.append(_term("plpp-inverse", losses.inverse, _inverse_formula(options), need, options))
    return tuple(terms)


def _term(
    name: str, loss: Callable[[Context, Vocabulary], Tensor], formula: str, need: Need, options: PlppOptions
) -> Term:
    def score(view: View) -> Tensor:
        assert view.context is not None, f"{name} needs {need}"
        return loss(view.context, view.vocabulary)

    return Term(
        name=name, score=score, weight=options.weight, needs=frozenset({need}), formula=formula, over_images=False
    )


def resolve_head(options: PlppOptions, prompt: PromptSpec) -> Literal["host", "alone"]:
    """Whose states the head reads.

    With the class name in front of context tokens the host's states differ by class, and class-specific contexts have
    no shared prefix: there the separate pass is the only one ("end": equal to the host's states, by causality).
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


def dead_terms(options: PlppOptions, prompt: PromptSpec) -> tuple[str, ...]:
    """One sentence for each term that trains nothing, or not what it should, under these options."""
    found = []
    words = prompt.layout.num_tokens if prompt.layout else 0
    labels_fixed = options.detach in ("both", "teacher")
    if options.mutual != "inverse" and options.shift == 1 and words == 1 and labels_fixed:
        found.append(
            "plpp with one context token and shift 1: [SOS] predicts it and is constant, so the perplexity term gives "
            "no gradient. Use plpp.shift=0 or more context tokens."
        )
    if options.mutual != "ppl" and options.labels == "uniform":
        found.append("plpp.labels=uniform: the inverse term is constant and gives no gradient. Use plpp.mutual=ppl.")
    if options.mutual != "inverse" and prompt.reach.deep_text and resolve_head(options, prompt) == "host":
        found.append(
            "plpp.head=host on a method with deep text prompts: where they replace the context, the perplexity term "
            "reaches the last prompted layer only, never the labelled context. Use plpp.head=auto."
        )
    return tuple(found)


def plpp_cost(options: PlppOptions, prompt: PromptSpec, *, width: int, words: int, classes: int) -> str:
    """What the terms add to a step, in words; multiplications are those of the forward pass."""
    if options.weight == 0:
        return "plpp: nothing, its weight is 0"
    assert prompt.layout is not None
    rows = prompt.layout.num_tokens * (1 if prompt.layout.shared else classes)
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
    head = f"{options.scale:g} cos(h, W)" if options.scale else "h W^T"
    return f"{teacher}, q = softmax({head}){over}, h the state {'before' if options.shift else 'at'} word i"
