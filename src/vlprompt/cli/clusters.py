"""`--ray`: where cells are carried out when it is not this machine alone."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

from vlprompt.cli.options import option
from vlprompt.errors import UserError

if TYPE_CHECKING:
    from vlprompt.bench import Carrier, Desk
    from vlprompt.bench.cluster import Cluster
    from vlprompt.engine.observer import Observer

Ray = Annotated[
    str | None,
    option(
        "--ray local|auto|ADDRESS",
        "Run cells as Ray tasks: `local` (--jobs workers here), `auto` (this machine's cluster), or an address. "
        "Add `,cpus=N,gpus=N` for what a task takes.",
        "no cluster",
    ),
]


def parse(text: str, jobs: int) -> Cluster:
    """`auto,cpus=4,gpus=0.5` -> the ray. UserError for anything else than cpus and gpus after the address."""
    from vlprompt.bench.cluster import Cluster

    address, *rest = text.split(",")
    taken: dict[str, float] = {}
    for one in rest:
        name, _, value = one.partition("=")
        try:
            taken[name.strip()] = float(value)
        except ValueError:
            taken[name.strip()] = -1.0
    cpus = taken.pop("cpus", 1.0)
    gpus = taken.pop("gpus", None)
    if not address or taken or cpus < 1 or cpus != int(cpus) or (gpus is not None and gpus < 0):
        raise UserError(
            f"--ray {text!r} is not an address with cpus (a whole number from 1) and gpus (a number from 0). Write for example --ray auto "
            "or --ray auto,cpus=4,gpus=0.5."
        )
    return Cluster(address=address, workers=jobs, cpus=int(cpus), gpus=gpus)


@contextmanager
def carrying(ray: str | None, jobs: int, observer: Observer, desk: Desk) -> Iterator[Carrier]:
    """What carries batches of cells out: this process, several processes, or a Ray cluster."""
    from vlprompt import bench

    if ray is None:
        yield bench.carrier(jobs, observer, desk)
        return
    from vlprompt.bench import driver

    with driver.joined(parse(ray, jobs)) as carry:
        yield carry


def end(code: int) -> None:
    """End the process of a rank at once.

    Where Python cleared up, about two ranks in seventy were ended with SIGABRT, and torchrun counted finished work as failed. The
    likely cause is a thread of Gloo that asks for Python while it ends.
    """
    if "torch" in sys.modules and {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
