"""The protocols of the field as plans of cells, and the working off of such plans: resumable, in any number of processes."""

from vlprompt.protocols.cells import PROTOCOLS, Cell, Course, Grid, Means, Outcome, Protocol
from vlprompt.protocols.desk import Desk
from vlprompt.protocols.estimate import lines, probe, total
from vlprompt.protocols.grid import work_off
from vlprompt.protocols.local import Carrier, carrier
from vlprompt.protocols.maker import Request
from vlprompt.protocols.plan import Plan, cached_features, done, make, said_of
from vlprompt.protocols.work import run_cell, run_cells

__all__ = [
    "PROTOCOLS",
    "Carrier",
    "Cell",
    "Course",
    "Desk",
    "Grid",
    "Means",
    "Outcome",
    "Plan",
    "Protocol",
    "Request",
    "cached_features",
    "carrier",
    "done",
    "lines",
    "make",
    "probe",
    "run_cell",
    "run_cells",
    "said_of",
    "total",
    "work_off",
]
