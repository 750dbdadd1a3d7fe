"""One pass: the published inputs through the package's own method, as a step of `vlprompt train` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.engine.step import by_term, gradients_of, weighted
from vlprompt.engine.train import forward_of, new_prompt
from vlprompt.losses import logits
from vlprompt.losses.sampled import Correction, corrected
from vlprompt.types import Method, View
from vlprompt.verify.compare import GRAD, Numbers
from vlprompt.verify.given import CaseInputs
from vlprompt.verify.names import LOSSES


def answer(given: CaseInputs) -> Numbers:
    """The forward pass, the losses and the gradients of a case."""
    method, clip = given.method, given.clip
    if method is None:
        text = clip.encode_text(clip.sentence_tokens(given.config["sentences"]))
        image = clip.encode_images(given.pixels)
        values = {"text": text.pooled, "image": image.pooled, "logits_per_image": logits(image, text, clip.logit_scale)}
        return {"values": values}
    forward = forward_of(clip, method, given.lesson, max_rows=None)
    prompt = new_prompt(clip, method.prompt, len(given.lesson.class_names), given.lesson.seed, method.start)
    with torch.no_grad():
        frozen = clip.encode_images(given.pixels).pooled if forward.reads_frozen else None
    drawn = given.lesson.drawn(method.steps.classes, 0, 0)
    view = forward(prompt, given.labels, frozen, given.pixels, drawn)
    losses = weighted(method.terms, view)
    parameters = list(prompt.parameters())
    if method.steps.rule is None:
        found = gradients_of(method, losses, parameters)
        named = zip(prompt.named_parameters(), found, strict=True)
        gradients = {f"{GRAD}{given.official[name]}": one for (name, _), one in named if one is not None}
    else:
        gradients = _of_rule(method, losses, parameters)
    return {"values": _values(given, view, losses, drawn), "gradients": gradients}


def sentence_ids(given: CaseInputs) -> list[list[int]]:
    """Token ids of what the published code tokenised: words or placeholders, then the name."""
    config, tokenizer = given.config, given.clip.tokenizer
    if given.method is None:
        sentences = list(config["sentences"])
    else:
        words = "a photo of a" if given.method.name == "kgcoop" else " ".join("X" * config["n_ctx"])
        sentences = [f"{config.get('init', words)} {name.replace('_', ' ')}." for name in given.lesson.class_names]
    return [[tokenizer.start_id, *tokenizer.encode(one), tokenizer.end_id] for one in sentences]


def _values(given: CaseInputs, view: View, losses: Mapping[str, Tensor], drawn: Tensor | None) -> dict[str, Tensor]:
    """All that may be published of a forward pass. KgCoOp's anchor is published without its weight."""
    assert given.method is not None
    values = {"logits": view.logits, "text": view.text.unit, "image": view.image.unit}
    values["loss"] = torch.stack(list(losses.values())).sum()
    values |= {name: losses[term] for name, term in LOSSES.items() if term in losses}
    for term in given.method.terms:
        if term.name == LOSSES["anchor"]:
            values["anchor"] = losses[term.name] / term.weight
    if (teacher := view.teacher) is not None:
        values |= {
            f"teacher_{part}": one.unit for part in ("text", "image") if (one := getattr(teacher, part)) is not None
        }
        values |= {} if teacher.logits is None else {"teacher_logits": teacher.logits}
    if drawn is not None:
        values["logits"] = _sampled(given.method, view, given.labels, drawn.to(given.labels.device))
    return values


def _sampled(method: Method, view: View, labels_B: Tensor, drawn_K: Tensor) -> Tensor:
    """(B, 1 + K): each image's own class, then the drawn ones, masked where one is its own."""
    answers_BC = corrected(view.logits, view.labels, view.sampled, cast(Correction, method.options["correction"]))
    own_B1, column_K = view.labels[:, None], torch.searchsorted(torch.unique(torch.cat([labels_B, drawn_K])), drawn_K)
    drawn_BK = answers_BC[:, column_K].masked_fill(column_K == own_B1, -1e6)
    return torch.cat([answers_BC.gather(1, own_B1), drawn_BK], dim=1)


def _of_rule(method: Method, losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """ProGrad's two gradients of its one tensor, and what the rule makes of them."""
    rule = method.steps.rule
    assert rule is not None
    each = by_term(losses, parameters)
    (ce,), (kl,) = each[LOSSES["ce"]], each[LOSSES["kl"]]
    assert ce is not None
    assert kl is not None
    return {
        "grad_ce": ce,
        "grad_kl": kl,
        "cosine": F.cosine_similarity(ce.flatten(), kl.flatten(), dim=0),
        "grad_rule": rule.combine([ce, kl]),
        "grad_rule_if_kl_gradient_were_negated": rule.combine([ce, -kl]),
    }
