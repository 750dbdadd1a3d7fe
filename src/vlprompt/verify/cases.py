"""One case at a time: the published inputs through our towers, and the outcome beside the published numbers."""

from __future__ import annotations

import math

import torch

from vlprompt.verify import compositions, parity
from vlprompt.verify.compare import Check, Result, compare, compare_ids
from vlprompt.verify.compositions import Answer
from vlprompt.verify.given import Given, given


def run_case(name: str, *, device: str = "cpu", dtype: str = "float32") -> Result:
    """Compute a case on `device` with weights held in `dtype`; only float32 is judged by the tolerances.

    An operation that the device lacks, or has no memory for, is a failed case that says so, not the end of the others.
    """
    inputs = given(name, device, dtype)
    try:
        checks = _checks(inputs, _compute(inputs), name, judged=dtype == "float32")
    except RuntimeError as problem:
        what = f"stopped ({' '.join(str(problem).split())[:200]})"
        checks = (Check(what=what, kind="values", error=math.inf),)
    return Result(name=name, source=inputs.source, checks=checks)


def _compute(inputs: Given) -> Answer:
    """Without cuDNN, whose convolutions round float32 to TF32 by default: the published numbers did not."""
    with torch.backends.cudnn.flags(enabled=False):
        return compositions.METHODS[inputs.method](inputs)


def _checks(inputs: Given, answer: Answer, name: str, *, judged: bool) -> tuple[Check, ...]:
    want, tokenizer = parity.case(name), inputs.clip.tokenizer
    plans = [[tokenizer.start_id, *tokenizer.encode(one), tokenizer.end_id] for one in answer.sentences]
    ids = compare_ids(plans, want["token_ids"])
    return ids, *compare(answer.values, answer.gradients, want, judged=judged)
