"""The ablation of PLPP: one option at a time around its defaults, and the controls, on validation images only."""

from vlprompt.ablate.run import run_ablation
from vlprompt.ablate.table import render

__all__ = ["render", "run_ablation"]
