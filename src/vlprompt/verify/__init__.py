"""Our towers on this machine against what the published implementations computed (`vlprompt.parity`)."""

from vlprompt.verify.cases import run_case
from vlprompt.verify.compare import Check, Result
from vlprompt.verify.given import case_names

__all__ = ["Check", "Result", "case_names", "run_case"]
