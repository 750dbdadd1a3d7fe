"""Whether a Ray cluster is there, and whether it still is: nothing here waits longer than it says.

Ray itself asks for an unreachable head for minutes, or ends the process after one in which the head was silent.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from vlprompt.errors import UserError, data_error

Thing = TypeVar("Thing")
SECONDS_TO_ANSWER, SECONDS_TO_GREET = 5.0, 35.0
"""For any answer, and for one that only Ray gives."""
SECONDS_OF_SILENCE = 30.0
"""Without an answer of the head, or without a machine that can do a task, a cluster is lost. After 60, Ray ends the process."""
SECONDS_BETWEEN_BEATS = 2.0
SECONDS_OF_STANDSTILL = 5.0
"""Between two looks of a process that runs lies about one."""
ASKING = "vlprompt asks Ray"
"""Name of every thread that a cluster may never answer."""
HEAD = "its head"


def within(seconds: float, call: Callable[[], Thing]) -> Thing:
    """What a call gives or raises. TimeoutError: it takes longer; its thread goes on, and is not waited for."""
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def called() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=called, name=ASKING, daemon=True).start()
    try:
        found, error = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    value: Thing = found
    return value


def require_somebody(address: str) -> None:
    """UserError where nothing listens at an address, or something else: Ray itself would ask for minutes. ``auto`` is this machine's."""
    place = os.environ.get("RAY_ADDRESS") or _of_this_machine() if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        if not port.isdecimal():
            raise ValueError("that is no HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise unreachable(address, f"nobody answers at {place or 'any known address'} ({error})") from error
    if place.startswith("ray://"):
        return
    said = _greeted(place)
    if NO_TOKEN in said and address == "auto" and "RAY_ADDRESS" not in os.environ:
        said = _greeted(place, RAY_AUTH_MODE="token")  # as `ray start` and ray.init do where a token is at hand
    if NO_TOKEN in said:
        raise data_error(
            f"the Ray cluster at {address!r} asks for its token. Put the token into ~/.ray/auth_token or RAY_AUTH_TOKEN, set "
            "RAY_AUTH_MODE=token, and give the same command."
        )
    if said == SILENCE:
        silent = f"it takes calls, and says nothing for {SECONDS_TO_GREET:.0f} s"
        raise unreachable(address, f"nobody answers at {place} ({silent})")
    if said:
        raise data_error(
            f"no Ray cluster at {address!r}: {place} answers, but not as a Ray of this version does. Give the address that "
            "`ray start --head` printed, or use --ray local."
        )


def unreachable(address: str, why: str) -> UserError:
    return data_error(
        f"no Ray cluster at {address!r}: {why}. Start one with `ray start --head`, join machines with "
        "`ray start --address=HEAD:6379`, or use --ray local."
    )


def _of_this_machine() -> str:
    """Where `ray start` has noted the cluster; empty where it has not."""
    noted = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")
    return noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""


NO_TOKEN, SILENCE = "AuthenticationError", "silence"


def _greeted(place: str, **variables: str) -> str:
    """What is wrong with a Ray at an address, for programs; empty where it answers."""
    asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
    given = {**variables, **os.environ}
    try:
        done = subprocess.run(
            asked, env=given, capture_output=True, timeout=SECONDS_TO_GREET, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return SILENCE
    return (done.stderr or "failed") if done.returncode else ""


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""What opens HTTP/2, Ray's protocol: its preface and empty settings. A process that runs answers at once with its own settings."""


def greets(host: str, port: int) -> bool:
    """Whether a process of Ray that listens here also runs: the system takes calls for one that is stopped. True where Ray speaks TLS,
    in which this cannot be asked."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    try:
        with socket.create_connection((host, port), timeout=SECONDS_TO_ANSWER) as call:
            call.sendall(GREETING)
            return bool(call.recv(1))
    except OSError:
        return False


class Unheard(Exception):
    """Somebody else than the head does not answer; the message says who."""


class Gone(Exception):
    """A cluster says itself that it is lost to us; the message says how."""


class Pulse:
    """Asks a cluster every few seconds whether it is there and can do a task."""

    def __init__(self, ask: Callable[[], str]) -> None:
        """ask: what keeps the cluster from doing a task, empty where nothing does; Gone; Unheard; raises anything else, or never
        ends, where its head does not answer."""
        self._ask, self._end = ask, threading.Event()
        self._heard = self._able = self._awake = time.monotonic()
        self._why = self._gone = ""
        self._silent = HEAD

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Ask, as long as the block lasts."""
        thread = threading.Thread(target=self._beat, name=ASKING, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(SECONDS_BETWEEN_BEATS / 2)

    def _beat(self) -> None:
        while not self._end.is_set():
            try:
                self._why = self._ask()
                self._heard = time.monotonic()
                self._able = self._able if self._why else self._heard
            except Gone as error:
                self._gone = str(error)
            except Unheard as error:
                self._silent = str(error)
            except Exception:  # whatever Ray says where its head is gone
                self._silent = HEAD
            finally:
                self._end.wait(SECONDS_BETWEEN_BEATS)

    def awake(self) -> None:
        """Called all the time: while this process stood still (Ctrl-Z), nobody could answer it."""
        now = time.monotonic()
        if (gap := now - self._awake) > SECONDS_OF_STANDSTILL:
            self._heard, self._able = min(now, self._heard + gap), min(now, self._able + gap)
        self._awake = now

    def lost(self) -> str:
        """Why the cluster counts as lost; empty as long as it does not."""
        now = time.monotonic()
        if self._gone or now - self._heard > SECONDS_OF_SILENCE:
            return self._gone or f"{self._silent} has not answered for {SECONDS_OF_SILENCE:.0f} s"
        return self._why if now - self._able > SECONDS_OF_SILENCE else ""

    def answers(self) -> bool:
        """Whether the cluster answers once more, before it counts as lost."""
        asked = time.monotonic()
        while self._able <= asked and not self.lost():
            time.sleep(SECONDS_BETWEEN_BEATS / 10)
        return self._able > asked
