"""The published methods written out on our towers, no more of each than its case needs.

Letters: B images, C classes, M context tokens, D width, E joint embedding. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprompt.losses import CROSS_ENTROPY, logits
from vlprompt.losses.anchors import text_anchor
from vlprompt.losses.consistency import ConsistencyOptions, consistency_terms
from vlprompt.losses.rules import Projection, teacher_term
from vlprompt.losses.sampled import Correction, corrected, sampled_cross_entropy
from vlprompt.prompts import ConditionedSpec, ContextSpec
from vlprompt.prompts.joint import CoupledSpec, IndependentSpec
from vlprompt.prompts.layers import NORMAL
from vlprompt.types import BARE, Features, Prompted, PromptSpec, Sampled, Teacher, TextLayout, View
from vlprompt.verify.compare import GRAD
from vlprompt.verify.given import Given

CTX = "prompt_learner.ctx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a case computed, under the names of the published numbers."""

    sentences: Sequence[str]
    """What the published code tokenised."""
    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Both towers' answers, and the logits (B, C) at the model's scale."""

    text: Features
    image: Features
    logits: Tensor


def clip(given: Given) -> Answer:
    """The bare towers (openai/CLIP:clip/model.py)."""
    sentences = given.config["sentences"]
    text = given.clip.encode_text(given.clip.sentence_tokens(sentences))
    image = given.clip.encode_images(given.pixels)
    values = {"text": text.pooled, "image": image.pooled}
    values["logits_per_image"] = logits(image, text, given.clip.logit_scale)
    return Answer(sentences=sentences, values=values, gradients={})


def coop(given: Given) -> Answer:
    """A text context, for all classes or for each (arXiv 2109.01134)."""
    prompted, ctx = _context(given)
    scored = _score(given, prompted)
    loss = F.cross_entropy(scored.logits, given.labels)
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "loss": loss},
        gradients=_gradients(loss, {CTX: ctx}),
    )


def cocoop(given: Given) -> Answer:
    """The context plus a two-layer network of the normalised image feature (arXiv 2203.05557)."""
    names = {"ctx": CTX} | {f"meta_net.{layer}": f"prompt_learner.meta_net.{layer}" for layer in ("linear1", "linear2")}
    module = _built(given, ConditionedSpec(n_ctx=given.config["n_ctx"], init=NORMAL), names)
    scored = _score(given, module(given.clip.encode_images(given.pixels).unit))
    loss = F.cross_entropy(scored.logits, given.labels)
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "loss": loss},
        gradients=_gradients(loss, given.learned),
    )


def maple(given: Given) -> Answer:
    """Text prompts at each prompted layer, and their linear images in the image tower (arXiv 2210.03117)."""
    n_ctx, depth = given.config["n_ctx"], given.config["depth"]
    names = {"ctx": CTX, "proj.0": "prompt_learner.proj"}
    for i in range(1, depth):
        names |= {f"text.{i}": f"prompt_learner.compound_prompts_text.{i - 1}"}
        names |= {f"proj.{i}": f"prompt_learner.compound_prompt_projections.{i - 1}"}
    scored = _score(given, _built(given, CoupledSpec(n_ctx=n_ctx, depth=depth, init=NORMAL), names)(None))
    loss = F.cross_entropy(scored.logits, given.labels)
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "loss": loss},
        gradients=_gradients(loss, given.learned),
    )


def promptsrc(given: Given) -> Answer:
    """Independent prompts in both towers, held near the frozen features and logits (arXiv 2307.06948)."""
    n_ctx, depth, weights = given.config["n_ctx"], given.config["depth"], given.config["weights"]
    names = {"ctx": CTX, "image.0": "image_encoder.VPT"}
    for tower in ("text", "image"):
        names |= {f"{tower}.{i}": f"{tower}_encoder.transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth)}
    spec = IndependentSpec(n_ctx=n_ctx, n_image=n_ctx, depth=depth, init=NORMAL)
    prompted = _built(given, spec, names)(None)
    scored = _score(given, prompted)
    with torch.no_grad():
        embeddings = [_template(given, template).pooled for template in given.config["templates"]]
        teacher_text = Features(pooled=torch.stack(embeddings).mean(0))
        teacher_image = given.clip.encode_images(given.pixels)
        teacher_logits = logits(teacher_image, teacher_text, given.clip.logit_scale)
    view = _view(given, scored, prompted, Teacher(text=teacher_text, image=teacher_image, logits=teacher_logits))
    asked = ConsistencyOptions(
        text_weight=weights["text"], image_weight=weights["image"], logits_weight=weights["logits"]
    )
    found = {term.name: term.weight * term.score(view) for term in consistency_terms(asked)}
    losses = {
        name: found.pop(f"consistency-{name.removeprefix('loss_')}")
        for name in ("loss_text", "loss_image", "loss_logits")
    }
    losses = {"ce": found.pop("cross-entropy")} | losses
    assert not found, f"terms that the published code lacks: {list(found)}"
    values = {
        "logits": scored.logits,
        "text": scored.text.unit,
        "image": scored.image.unit,
        "teacher_logits": teacher_logits,
        "teacher_text": teacher_text.unit,
        "teacher_image": teacher_image.unit,
    }
    return Answer(
        sentences=_sentences(given),
        values=values | losses,
        gradients=_gradients(torch.stack([*losses.values()]).sum(), given.learned),
    )


def kgcoop(given: Given) -> Answer:
    """CoOp, its text features drawn to those of a template (arXiv 2303.13283)."""
    prompted, ctx = _context(given)
    scored = _score(given, prompted)
    with torch.no_grad():
        teacher = _template(given, given.config["teacher_template"])
    view = _view(given, scored, prompted, Teacher(text=teacher))
    ce, anchor = CROSS_ENTROPY.score(view), text_anchor(view)
    return Answer(
        sentences=_sentences(given, "a photo of a"),
        values={"logits": scored.logits, "ce": ce, "anchor": anchor, "teacher_text": teacher.unit},
        gradients=_gradients(ce + given.config["weight"] * anchor, {CTX: ctx}),
    )


def prograd(given: Given) -> Answer:
    """CoOp, its gradient kept from working against zero-shot CLIP's (arXiv 2205.14865)."""
    prompted, ctx = _context(given)
    scored = _score(given, prompted)
    with torch.no_grad():
        teacher = logits(
            given.clip.encode_images(given.pixels),
            _template(given, given.config["teacher_template"]),
            given.clip.logit_scale,
        )
    view = _view(given, scored, prompted, Teacher(logits=teacher))
    ce, kl = CROSS_ENTROPY.score(view), teacher_term(given.config["T"]).score(view)
    (grad_ce,) = torch.autograd.grad(ce, [ctx], retain_graph=True)
    (grad_kl,) = torch.autograd.grad(kl, [ctx])
    rule = Projection(strength=given.config["lambda"])
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "teacher_logits": teacher, "ce": ce, "kl": kl},
        gradients={
            "grad_ce": grad_ce,
            "grad_kl": grad_kl,
            "cosine": F.cosine_similarity(grad_ce.flatten(), grad_kl.flatten(), dim=0),
            "grad_rule": rule.combine([grad_ce, grad_kl]),
            "grad_rule_if_kl_gradient_were_negated": rule.combine([grad_ce, -grad_kl]),
        },
    )


def pomp(given: Given) -> Answer:
    """CoOp over each image's own class (column 0) and a few negatives, the own class masked there (arXiv 2304.04704)."""
    prompted, ctx = _context(given)
    scored = _score(given, prompted)
    negatives_K = torch.tensor(given.config["negatives"], device=given.labels.device)
    own_B1, correction = given.labels[:, None], cast(Correction, given.config["correction"] or "none")
    own_BC = torch.arange(len(given.class_names), device=given.labels.device) == own_B1
    sampled = Sampled(seen=own_BC.index_fill(1, negatives_K, True), num_classes=len(given.class_names))
    loss = sampled_cross_entropy(correction).score(replace(_view(given, scored, prompted), sampled=sampled))
    answers_BC = corrected(scored.logits, given.labels, sampled, correction)
    negatives_BK = answers_BC[:, negatives_K].masked_fill(negatives_K == own_B1, -1e6)
    sampled_BK = torch.cat([answers_BC.gather(1, own_B1), negatives_BK], dim=1)
    return Answer(
        sentences=_sentences(given),
        values={"logits": sampled_BK, "loss": loss},
        gradients=_gradients(loss, {CTX: ctx}),
    )


METHODS: Mapping[str, Callable[[Given], Answer]] = {
    "clip": clip,
    "coop": coop,
    "cocoop": cocoop,
    "maple": maple,
    "promptsrc": promptsrc,
    "kgcoop": kgcoop,
    "prograd": prograd,
    "pomp": pomp,
}


def _spec(given: Given) -> ContextSpec:
    options = given.config
    return ContextSpec(
        n_ctx=options["n_ctx"],
        init=options.get("init", "normal"),
        position=options.get("position", "end"),
        per_class=options.get("csc", False),
    )


def _layout(given: Given) -> TextLayout:
    return _spec(given).layout


def _built(given: Given, spec: PromptSpec, names: Mapping[str, str]) -> nn.Module:
    """The package's own prompt with the case's values; `names`: our tensor (or module of tensors) -> its official name."""
    module = spec.build(given.clip.facts, torch.Generator().manual_seed(0), len(given.class_names)).to(
        given.clip.device
    )
    left = set(given.learned)
    for ours, _ in list(module.named_parameters()):
        owner, _, leaf = ours.rpartition(".")
        theirs = names.get(ours) or f"{names[owner]}.{leaf}"
        setattr(module.get_submodule(owner), leaf, given.learned[theirs])
        left.remove(theirs)
    assert not left, f"learned tensors that our prompt lacks: {left}"
    return module


def _context(given: Given) -> tuple[Prompted, Tensor]:
    """The package's own context prompt with the case's values, and its learned tensor."""
    module = _spec(given).build(given.clip.facts, torch.Generator().manual_seed(0), len(given.class_names))
    module = module.to(given.clip.device)
    module.ctx = given.learned.get(CTX, module.ctx)
    return module(None), module.ctx


def _view(given: Given, scored: Scored, prompted: Prompted, teacher: Teacher | None = None) -> View:
    """What the package's terms look at."""
    return View(
        labels=given.labels,
        logits=scored.logits,
        text=scored.text,
        image=scored.image,
        prompted=prompted,
        vocabulary=given.clip.vocabulary,
        teacher=teacher,
    )


def _score(given: Given, prompted: Prompted) -> Scored:
    text = given.clip.encode_text(given.clip.class_tokens(given.class_names, prompted.layout), prompted)
    image = given.clip.encode_images(given.pixels, prompted)
    return Scored(text=text, image=image, logits=logits(image, text, given.clip.logit_scale))


def _template(given: Given, template: str) -> Features:
    """The frozen text features (C, E) of the class names in a template."""
    return given.clip.encode_text(given.clip.class_tokens(given.class_names, template=template), BARE)


def _sentences(given: Given, words: str = "") -> list[str]:
    """Words or placeholders, then the name: what the published code tokenises before it puts the context in."""
    lead = words or given.config.get("init", " ".join("X" * given.config["n_ctx"]))
    return [f"{lead} {name.replace('_', ' ')}." for name in given.class_names]


def _gradients(loss: Tensor, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    grads = torch.autograd.grad(loss, list(learned.values()))
    return {f"{GRAD}{name}": grad for name, grad in zip(learned, grads)}
