"""The package's towers, methods and training loop on this machine against what the published implementations computed."""

from vlprompt.verify.compare import Check, Result
from vlprompt.verify.parity import OURS, Folder
from vlprompt.verify.run import Case, cases_in, run_case

__all__ = ["OURS", "Case", "Check", "Folder", "Result", "cases_in", "run_case"]
