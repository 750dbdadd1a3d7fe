"""The process that speaks to Ray, next to the command.

Ray can freeze the process that uses it (a call that keeps Python's lock), or end it without a word. So that is another process, and
the command that began it says what happened, and when.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vlprompt.bench import cluster, pulse
from vlprompt.bench.carry import Carrier, CellBatch, Outcomes, how_ended, interrupt_once, started
from vlprompt.bench.cells import Grid
from vlprompt.bench.cluster import LOCAL, SECONDS_TO_JOIN, Cluster
from vlprompt.errors import DATA, UserError

SECONDS_OF_FREEZE = 45.0
"""Without a sign of life of the process that speaks to Ray, it is taken for frozen. It finds a lost cluster itself after 30."""
SECONDS_TO_END = 15.0
HANGS = ". Ray's process on this machine (raylet) may hang; `ray stop --force` ends it"
ALIVE, READY, JOINED, END = "alive", "ready", "joined", "end"


@contextlib.contextmanager
def joined(wanted: Cluster) -> Iterator[Carrier]:
    """The carrier of a cluster, as long as the block lasts; a local cluster ends with it. UserError: the extra is missing, no
    cluster is there, or it is lost."""
    cluster.require_ray(wanted.address)
    driver = Driver(wanted)
    try:
        if wanted.address != LOCAL:
            pulse.require_somebody(wanted.address)
        driver.join()
        yield driver.carry
    finally:
        driver.close()


class Frozen(Exception):
    """The process that speaks to Ray has ended, or says nothing; the message says which, and what Ray wrote last."""


class Driver:
    """That process, as the command sees it."""

    def __init__(self, wanted: Cluster) -> None:
        self._cluster, self._busy = wanted, False
        self._folder = tempfile.mkdtemp(prefix="vlprompt-")
        self._process, self._pipe = started(serve, wanted, str(self._written))

    def join(self) -> None:
        """Let it join the cluster. UserError: it cannot."""
        try:
            self._hear(None)
            self._say(JOINED)
            self._hear(None if self._cluster.address == LOCAL else SECONDS_TO_JOIN)
        except Frozen as reason:
            raise pulse.unreachable(self._cluster.address, f"{reason}{HANGS}") from None

    def carry(self, batches: Sequence[CellBatch], grid: Grid) -> Outcomes:
        """Outcomes as tasks end. UserError: the cluster is lost."""
        self._busy = True
        try:
            self._say((batches, grid))
            while (said := self._hear(SECONDS_OF_FREEZE)) != END:
                yield said
        except Frozen as reason:
            for token in grid.out.glob(f"{cluster.tokens_of(self._process.pid or 0)}*"):
                token.unlink(missing_ok=True)
            raise cluster.lost(self._cluster, str(reason), grid) from None
        self._busy = False

    def close(self) -> None:
        """End it: as Ctrl-C does where it works on something, by force where it does not listen."""
        self._pipe.close()
        until = time.monotonic() + SECONDS_TO_END
        while self._process.is_alive() and time.monotonic() < until:
            if self._busy and os.name == "posix":
                os.kill(self._process.pid or 0, signal.SIGINT)
            self._process.join(0.2)
        self._process.kill()
        self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _written(self) -> Path:
        return Path(self._folder, "said.log")

    def _say(self, what: object) -> None:
        try:
            self._pipe.send(what)
        except OSError:
            raise self._ended() from None

    def _hear(self, patience: float | None) -> Any:
        """What it says next. Frozen: it has ended, or has given no sign of life for `patience` seconds. UserError: what it found."""
        said: Any = ALIVE
        while said == ALIVE:
            try:
                # Asked twice: both may have stood still.
                if not self._pipe.poll(patience) and not self._pipe.poll(pulse.SECONDS_TO_ANSWER):
                    self._process.kill()  # nothing that it would still do is wanted
                    raise Frozen(f"Ray has not let go of the process that speaks to it for {patience:.0f} s")
                said = self._pipe.recv()
            except (EOFError, OSError):
                raise self._ended() from None
            if isinstance(said, Warning):
                warnings.warn(said, stacklevel=2)
                said = ALIVE
        if isinstance(said, BaseException):
            raise said
        return said

    def _ended(self) -> Frozen:
        self._process.join(SECONDS_TO_END)
        return Frozen(f"Ray's part of the command {how_ended(self._process)}{_last(self._written)}")


def _last(written: Path) -> str:
    """What Ray wrote last, from the first word to the end of the sentence; empty where it wrote nothing."""
    lines = written.read_text(encoding="utf-8", errors="replace").split("\n") if written.is_file() else []
    said = next((line for line in reversed(lines) if line.strip()), "")
    said = said.partition("] ")[2] or said
    return f' (Ray: "{said.partition(". ")[0].rstrip(".")}")' if said else ""


class _Left(Exception):
    """The command is gone, or wants nothing more."""


class _Voice:
    """This process's end of the pipe, which also says every few seconds that Python still runs here."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        threading.Thread(target=self._live, daemon=True).start()

    def say(self, what: object) -> None:
        try:
            with self._lock:
                self._pipe.send(what)
        except OSError:
            raise _Left from None

    def warn(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            self.say(UserWarning(str(message)))

    def hear(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is to leave
            raise _Left from None

    def _live(self) -> None:
        with suppress(_Left):
            while True:
                time.sleep(pulse.SECONDS_BETWEEN_BEATS)
                self.say(ALIVE)
        _thread.interrupt_main()  # the command is gone
        time.sleep(SECONDS_TO_END)
        os._exit(1)


def serve(pipe: Connection, wanted: Cluster, written: str) -> None:
    """The process: join when asked, then batches come in and outcomes go out, until the pipe is closed or Ctrl-C is pressed.

    It ends without Python's clearing up, in which Ray hangs where its cluster is gone.
    """
    signal.signal(signal.SIGINT, interrupt_once)
    with open(written, "w", encoding="utf-8") as file:
        for ours in (1, 2):  # standard output is the command's
            os.dup2(file.fileno(), ours)
    voice = _Voice(pipe)
    warnings.showwarning = voice.warn
    warnings.simplefilter("always", UserWarning)
    with suppress(_Left, KeyboardInterrupt):
        voice.say(READY)
        assert voice.hear() == JOINED
        try:
            with cluster.joined(wanted) as carry:
                voice.say(JOINED)
                while True:
                    _carry(carry, voice, at_once=wanted.address != LOCAL)
        except (_Left, KeyboardInterrupt):
            raise
        except (UserError, OSError) as error:
            voice.say(error)
        except BaseException:
            voice.say(RuntimeError(f"in the process that speaks to Ray:\n{traceback.format_exc()}"))
    os._exit(0)


def _carry(carry: Carrier, voice: _Voice, *, at_once: bool) -> None:
    """One grid. at_once: of a cluster that is lost nobody takes leave."""
    batches, grid = voice.hear()
    try:
        for outcome in carry(batches, grid):
            voice.say(outcome)
    except UserError as error:
        voice.say(error)
        if at_once:
            os._exit(DATA)
        raise _Left from None
    voice.say(END)
