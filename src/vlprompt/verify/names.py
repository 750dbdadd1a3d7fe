"""The published code's names in ours: methods' options, learned tensors, and losses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlprompt.errors import DATA, UserError

OPTIONS = {"csc": "per_class", "T": "temperature", "lambda": "strength", "K": "classes"}
"""A case's `config` -> what `--set` takes; other names are the same."""
INPUTS = frozenset({"sentences", "templates", "weights", "teacher_template", "negatives", "dataset"})
"""What a `config` gives apart from options."""
LOSSES = {
    "ce": "cross-entropy",
    "xe_loss": "cross-entropy",
    "anchor": "text-anchor",
    "kl": "teacher",
    "kl_loss": "teacher",
    "loss_text": "consistency-text",
    "loss_image": "consistency-image",
    "loss_logits": "consistency-logits",
}
"""A published loss -> the term's name."""
DEEP = re.compile(r"(text|image)_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
COMPOUND = re.compile(r"prompt_learner\.compound_prompt(?:s_(text)|_(proj)ections)\.(\d+)(.*)")


def options(method: str, config: Mapping[str, Any]) -> dict[str, object]:
    """The method's settings. Where the `config` names no words, the context is drawn, and no fixed words stand behind it."""
    found = {OPTIONS.get(key, key): value for key, value in config.items() if key not in INPUTS}
    if "n_ctx" in found:
        found.setdefault("init", "normal")
    if method in ("ivlp", "promptsrc"):
        found.setdefault("n_image", found.get("n_ctx"))
    if "correction" in found:
        found["correction"] = found["correction"] or "none"
    return found | {f"{part}_weight": value for part, value in config.get("weights", {}).items()}


def tensor(official: str) -> str:
    """``prompt_learner.compound_prompts_text.0`` -> ``text.1``. UserError: a name that no method here has."""
    if official == "image_encoder.VPT":
        return "image.0"
    if deep := DEEP.fullmatch(official):
        return f"{deep[1]}.{deep[2]}"
    if compound := COMPOUND.fullmatch(official):
        return f"{compound[1] or compound[2]}.{int(compound[3]) + 1}{compound[4]}"
    prefix, _, own = official.partition(".")
    if prefix == "prompt_learner" and own:
        return own.replace("proj.", "proj.0.", 1) if own.startswith("proj.") else own
    raise UserError(f"a learned tensor {official!r} is unknown here.", exit_code=DATA)
