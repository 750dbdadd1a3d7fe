"""The protocols of the field as plans of cells, and the working off of such plans: resumable, in any number of processes."""

from vlprompt.bench.carry import Carrier, carrier, work_off
from vlprompt.bench.cells import PROTOCOLS, Cell, Course, Grid, Outcome, Protocol
from vlprompt.bench.estimate import Outlook, lines, look_ahead, total
from vlprompt.bench.protocols import Plan, cached_features, done, make, said_of
from vlprompt.bench.request import Request, expand
from vlprompt.bench.work import run_cell, run_cells
from vlprompt.bench.workspace import PAPERS_MODEL, Desk, SizedDesk, lacking
from vlprompt.engine.config import Means

__all__ = [
    "PAPERS_MODEL",
    "PROTOCOLS",
    "Carrier",
    "Cell",
    "Course",
    "Desk",
    "Grid",
    "Means",
    "Outcome",
    "Outlook",
    "Plan",
    "Protocol",
    "Request",
    "SizedDesk",
    "cached_features",
    "carrier",
    "done",
    "expand",
    "lacking",
    "lines",
    "look_ahead",
    "make",
    "run_cell",
    "run_cells",
    "said_of",
    "total",
    "work_off",
]
