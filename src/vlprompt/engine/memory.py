"""How much memory a training step takes, and how many text rows to run at once to stay below a limit.

The count is of what the backward pass keeps: the attention weights, and about 13.3 numbers per row, layer and unit of width in a
block whose weights are frozen. These are the residual stream twice, queries, keys, values, the attended values, the four-fold hidden
layer of the MLP, and their neighbours in the pass. Compared with the estimate by `python -m benchmarks.estimates`: docs/performance.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlprompt.errors import UserError
from vlprompt.towers import ClassTokens, Clip
from vlprompt.towers.config import ResNetConfig, TowerConfig
from vlprompt.types import PromptSpec

KEPT = 13.3
"""Numbers kept per row, layer and unit of width (measured: 13.0 to 13.6 at ViT-B/16's text size in float32 with 5,400 rows)."""
PARTED = 1.28
"""The same, times this, if rows are run a part at a time: a part cannot use all that the one before freed. Measured with OVERHEAD, what
was freed given back to the system: 1.15 to 1.26 with 900 to 3,300 rows at once (1.34 if it is kept)."""
OVERHEAD = 384 * 2**20
"""Bytes besides weights and kept rows: the interpreter, libraries and the allocator's slack (measured at ViT-B/16's size)."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What a step is expected to need, in bytes, and the text rows that are run at once."""

    total: int
    """Peak of the process."""
    text: int
    """Of it, the text rows that the backward pass keeps."""
    image: int
    """Of it, the image rows that the backward pass keeps; 0 where the image tower is not prompted."""
    rows: int
    """Own text rows of all classes (times images, where the text depends on the image)."""
    max_rows: int | None
    """None: all at once."""


def parse_bytes(text: str) -> int:
    """`4G`, `512M` or a number of bytes -> bytes. UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UserError(f"the memory limit {text!r} is not a size. Write for example --max-memory 4G or 512M.")
    return int(float(match[1]) * UNITS[match[2].upper()])


def estimate(clip: Clip, spec: PromptSpec, tokens: ClassTokens, *, batch: int, limit: int | None = None) -> MemoryNeed:
    """The memory of one training step; with a limit (bytes) also the number of rows that keeps it.

    UserError where not even one class at a time fits.
    """
    item = clip.text_tower.text_projection.element_size()
    text, image = clip.config.text, clip.config.image
    num_prefix, num_own = len(tokens.prefix.ids), len(tokens.own.ids)
    rows = (
        0
        if spec.layout is None and not spec.reach.text_tower
        else num_own * (batch if "image" in spec.reach.sees else 1)
    )
    longest = max(bucket.length for bucket in tokens.buckets)
    per_row = int(text.layers * (KEPT * text.width * item + 2 * text.heads * (num_prefix + longest) * 4))
    frozen = sum(p.numel() * p.element_size() for p in clip.parameters())
    image_bytes = _image_bytes(image, 1 + clip.config.num_patches, batch, item) if spec.reach.image_tower else 0
    fixed = frozen + OVERHEAD + image_bytes + num_prefix * per_row
    max_rows = None
    if limit is not None and fixed + rows * per_row > limit:
        per_row = int(PARTED * per_row)
        max_rows = (limit - fixed) // per_row
        if max_rows < longest:
            raise UserError(
                f"--max-memory {limit / 2**30:.2g}G is less than what one class at a time needs, about "
                f"{(fixed + longest * per_row) / 2**30:.2g}G ({frozen / 2**30:.2g}G of it weights). Allow more, or use a smaller "
                f"batch (--set batch=...) or model."
            )
    at_once = rows if max_rows is None else max_rows
    return MemoryNeed(
        total=fixed + at_once * per_row, text=at_once * per_row, image=image_bytes, rows=rows, max_rows=max_rows
    )


def _image_bytes(image: TowerConfig | ResNetConfig, rows: int, batch: int, item: int) -> int:
    assert isinstance(image, TowerConfig), "prompts in an image tower that has no place for them"
    return int(batch * rows * image.layers * (KEPT * image.width + 2 * image.heads * rows) * item)
