"""The package's towers, methods and training loop on this machine against what the published implementations computed."""

from vlprompt.verify.compare import Check, Compared
from vlprompt.verify.parity import OURS, Folder
from vlprompt.verify.run import Case, cases_in, run_case

__all__ = ["OURS", "Case", "Check", "Compared", "Folder", "cases_in", "run_case"]
