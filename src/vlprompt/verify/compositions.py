"""The published methods written out on our towers, no more of each than its case needs.

Letters: B images, C classes, M context tokens, D width, E joint embedding. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprompt.losses import logits
from vlprompt.prompts import ContextSpec
from vlprompt.types import BARE, Features, Prompted, Splice, TextLayout
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
    learned = {name.removeprefix("prompt_learner."): tensor for name, tensor in given.learned.items()}
    unit_BE = given.clip.encode_images(given.pixels).unit
    hidden = F.linear(unit_BE, learned["meta_net.linear1.weight"], learned["meta_net.linear1.bias"]).relu()
    shift_BD = F.linear(hidden, learned["meta_net.linear2.weight"], learned["meta_net.linear2.bias"])
    ctx_BMD = learned["ctx"] + shift_BD[:, None]
    scored = _score(given, Prompted(text={0: Splice(q=ctx_BMD, axis="image")}, layout=_layout(given)))
    loss = F.cross_entropy(scored.logits, given.labels)
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "loss": loss},
        gradients=_gradients(loss, given.learned),
    )


def maple(given: Given) -> Answer:
    """Text prompts at each prompted layer, and their linear images in the image tower (arXiv 2210.03117)."""
    learned = {name.removeprefix("prompt_learner."): tensor for name, tensor in given.learned.items()}
    text, image = {}, {}
    for layer in range(given.config["depth"]):
        prompt, proj = f"compound_prompts_text.{layer - 1}", f"compound_prompt_projections.{layer - 1}"
        if layer == 0:
            prompt, proj = "ctx", "proj"
        text[layer] = Splice(q=learned[prompt])
        image[layer] = Splice(q=F.linear(learned[prompt], learned[f"{proj}.weight"], learned[f"{proj}.bias"]))
    scored = _score(given, Prompted(text=text, image=image, layout=_layout(given)))
    loss = F.cross_entropy(scored.logits, given.labels)
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "loss": loss},
        gradients=_gradients(loss, given.learned),
    )


def promptsrc(given: Given) -> Answer:
    """Independent prompts in both towers, held near the frozen features and logits (arXiv 2307.06948)."""
    depth, weights = given.config["depth"], given.config["weights"]
    block = "{}_encoder.transformer.resblocks.{}.VPT_shallow"
    text = {i: Splice(q=given.learned[block.format("text", i) if i else CTX]) for i in range(depth)}
    image = {i: Splice(q=given.learned[block.format("image", i) if i else "image_encoder.VPT"]) for i in range(depth)}
    scored = _score(given, Prompted(text=text, image=image, layout=_layout(given)))
    with torch.no_grad():
        embeddings = [_template(given, template).pooled for template in given.config["templates"]]
        teacher_text = Features(pooled=torch.stack(embeddings).mean(0))
        teacher_image = given.clip.encode_images(given.pixels)
        teacher_logits = logits(teacher_image, teacher_text, given.clip.logit_scale)
    losses = {
        "ce": F.cross_entropy(scored.logits, given.labels),
        "loss_text": weights["text"] * (scored.text.unit - teacher_text.unit).abs().mean(),
        "loss_image": weights["image"] * (scored.image.unit - teacher_image.unit).abs().mean(),
        "loss_logits": weights["logits"] * _kl(teacher_logits, scored.logits) / scored.logits.numel(),
    }
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
    ce = F.cross_entropy(scored.logits, given.labels)
    anchor = 1 - (scored.text.unit * teacher.unit).sum(-1).mean()
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
    temperature = given.config["T"]
    ce = F.cross_entropy(scored.logits, given.labels)
    soft = (teacher / temperature).softmax(-1)
    kl = F.cross_entropy(scored.logits / temperature, soft) * temperature**2
    (grad_ce,) = torch.autograd.grad(ce, [ctx], retain_graph=True)
    (grad_kl,) = torch.autograd.grad(kl, [ctx])
    strength = given.config["lambda"]
    return Answer(
        sentences=_sentences(given),
        values={"logits": scored.logits, "teacher_logits": teacher, "ce": ce, "kl": kl},
        gradients={
            "grad_ce": grad_ce,
            "grad_kl": grad_kl,
            "cosine": F.cosine_similarity(grad_ce.flatten(), grad_kl.flatten(), dim=0),
            "grad_rule": _projected(grad_ce, grad_kl, strength),
            "grad_rule_if_kl_gradient_were_negated": _projected(grad_ce, -grad_kl, strength),
        },
    )


def pomp(given: Given) -> Answer:
    """CoOp over each image's own class (column 0) and a few negatives, the own class masked there (arXiv 2304.04704)."""
    prompted, ctx = _context(given)
    scored = _score(given, prompted)
    negatives = torch.tensor(given.config["negatives"], device=given.labels.device)
    own_B1 = given.labels[:, None]
    masked_BK = negatives == own_B1
    columns_BK = torch.cat([own_B1, negatives.expand(len(own_B1), -1)], dim=1)
    sampled_BK = scored.logits.gather(1, columns_BK)
    added_BK = -1e6 * masked_BK
    if given.config["correction"] == "log10":
        drawn_B1 = (~masked_BK).sum(1, keepdim=True)
        added_BK = added_BK + torch.log10((scored.logits.shape[1] - 1) / drawn_B1)
    sampled_BK = torch.cat([sampled_BK[:, :1], sampled_BK[:, 1:] + added_BK], dim=1)
    loss = F.cross_entropy(sampled_BK, torch.zeros_like(given.labels))
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


def _context(given: Given) -> tuple[Prompted, Tensor]:
    """The package's own context prompt with the case's values, and its learned tensor."""
    module = _spec(given).build(given.clip.facts, torch.Generator().manual_seed(0), len(given.class_names))
    module = module.to(given.clip.device)
    module.ctx = given.learned.get(CTX, module.ctx)
    return module(None), module.ctx


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


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student), summed over images and classes, of logits."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="sum", log_target=True)


def _projected(grad: Tensor, against: Tensor, strength: float) -> Tensor:
    """`grad` without its part against the direction of `against`, if it has one; of one tensor."""
    direction = against / against.norm()
    along = (grad * direction).sum()
    return grad - strength * along * direction if along < 0 else grad
