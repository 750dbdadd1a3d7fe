"""The protocols of the field as plans of cells, and the working off of such plans: resumable, in any number of processes."""

from vlprompt.protocols.cells import PROTOCOLS, Cell, Course, Grid, Means, Outcome, Protocol
from vlprompt.protocols.desk import Desk
from vlprompt.protocols.estimate import lines, probe, total
from vlprompt.protocols.grid import work_off
from vlprompt.protocols.local import Carrier, carrier
from vlprompt.protocols.maker import Request
from vlprompt.protocols.outlook import Outlook, look_ahead
from vlprompt.protocols.plan import Plan, cached_features, done, make, said_of
from vlprompt.protocols.sets import expand
from vlprompt.protocols.sized import PAPERS_MODEL, SizedDesk, lacking
from vlprompt.protocols.work import run_cell, run_cells

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
    "probe",
    "run_cell",
    "run_cells",
    "said_of",
    "total",
    "work_off",
]
