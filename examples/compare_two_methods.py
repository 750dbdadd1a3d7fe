"""Is one method better than another? Learn both on the same images with the same seeds, and compare image by image.

python examples/compare_two_methods.py
"""

import tempfile
from pathlib import Path

from vlprompt.engine.config import RunConfig
from vlprompt.engine.run import train_run
from vlprompt.report.comparison import compare
from vlprompt.report.sides import read_side

place = Path(tempfile.mkdtemp())
for method in ("coop", "plpp+coop"):
    out = place / method
    train_run(
        RunConfig(
            method=method,
            model="pocket-s",
            data="emoji-symbols",
            shots=16,
            seeds=(1, 2, 3),
            out=out,
            overrides={"epochs": 10},
        )
    )
comparisons, notes = compare(read_side(place / "coop"), read_side(place / "plpp+coop"))
for found in comparisons:
    said = found.estimate
    print(
        f"{found.datasets[0]}: {found.second} {found.second_top1:.1f}, {found.first} {found.first_top1:.1f}; "
        f"difference {said.difference:+.1f} points, 95 % interval {said.low:+.1f} to {said.high:+.1f}: {said.verdict}"
    )
