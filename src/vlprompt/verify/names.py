"""The published code's names in ours: methods' options, learned tensors, and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlprompt.errors import data_error
from vlprompt.prompts.start import LEARNER, ours

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
    found = ours(official.removeprefix(LEARNER))
    if found in (official, ""):
        raise data_error(f"a learned tensor {official!r} is unknown here.")
    return found
