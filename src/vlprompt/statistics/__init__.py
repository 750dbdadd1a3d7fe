"""Differences between methods on the same images, and what can be said of them. Reads records only; knows no torch."""

from vlprompt.statistics.bootstrap import (
    LEVEL,
    MARGIN,
    RESAMPLES,
    Estimate,
    PairedTest,
    Verdict,
    estimate,
    paired_test,
)
from vlprompt.statistics.comparison import Comparison, Outcome, compare, compare_cells, paired_table
from vlprompt.statistics.sides import FIELDS, Cell, Run, name_of, read_side, seedless

__all__ = [
    "FIELDS",
    "LEVEL",
    "MARGIN",
    "RESAMPLES",
    "Cell",
    "Comparison",
    "Estimate",
    "Outcome",
    "PairedTest",
    "Run",
    "Verdict",
    "compare",
    "compare_cells",
    "estimate",
    "name_of",
    "paired_table",
    "paired_test",
    "read_side",
    "seedless",
]
