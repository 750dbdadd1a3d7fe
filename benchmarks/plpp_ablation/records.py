"""What one cell of the ablation leaves behind: a line of JSON. Knows no torch and no model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlprompt import disk, reading
from vlprompt.errors import data_error
from vlprompt.records import logged

SCHEMA = 1
FILE = "ablation.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationCell:
    """One setting on one data set with one seed. Accuracies are percent, on validation images."""

    setting: str
    factor: str
    dataset: str
    seed: int
    subset: str
    """Classes learned on: `base` (the first half; then novel is the rest) or `all`."""
    accuracy: Mapping[str, float]
    """`base` and `novel` after learning on base, each among its own half's classes; or `all`."""
    zero_shot: Mapping[str, float]
    """The template's, on the same images and classes."""
    by_epoch: tuple[float, ...]
    """After every epoch, on the classes learned on."""
    gradient_ratios: Mapping[str, float]
    """Term -> length of its weighted gradient over cross-entropy's, mean over the epochs' first batches."""
    perplexity: float
    """Of the learned context: hard label, all words."""
    num_val: Mapping[str, int]
    """Validation images behind each accuracy."""
    method: str
    options: Mapping[str, object]
    model: str
    shots: int
    seconds: float
    key: str
    """SHA-256 of all that decides the numbers."""
    head: Mapping[str, float] = field(default_factory=dict)
    """Of the model's head without a prompt, as `vlprompt head` has them; empty in older records."""
    schema: int = SCHEMA


def read(out: Path) -> list[AblationCell]:
    """The cells of an ablation's directory, oldest first; a line that a kill cut short is left out."""
    path, cells = out / FILE, []
    for number, (_, values) in enumerate(logged(path), 1):
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise data_error(f"{path}, line {number}: no record of this version's ablation (schema {SCHEMA}).")
        cells.append(reading.typed(AblationCell, values, f"{path}, line {number}"))
    return cells


def append(out: Path, cell: AblationCell) -> None:
    """Add a cell; what is there stays whole whatever happens."""
    lines = [line for line, _ in logged(out / FILE)] + [json.dumps(dataclasses.asdict(cell), allow_nan=False)]
    disk.write_text(out / FILE, "".join(f"{line}\n" for line in lines))
