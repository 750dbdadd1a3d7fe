"""A record with plausible values, any of which can be changed."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlprompt.records import Record

BASE = Record(
    method="coop",
    dataset="birds",
    shots=16,
    seed=1,
    model="tiny",
    template="a picture of {}.",
    top1=40.0,
    zero_shot_top1=20.0,
    top5=80.0,
    macro_f1=38.0,
    balanced_accuracy=40.0,
    ece=5.0,
    num_classes=5,
    num_test=50,
    split_hash="0" * 64,
    seconds=12.0,
    seconds_features=3.0,
    epochs=30,
    peak_mib=100.0,
    device="cpu",
    versions={"torch": "2"},
    parameters=3072,
)


def record(**changes: Any) -> Record:
    return dataclasses.replace(BASE, **changes)
