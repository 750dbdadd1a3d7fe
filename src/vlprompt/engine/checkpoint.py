"""The state after an epoch, on disk so that a resumed run gives the same bits; and the lock on a run directory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from vlprompt import atomic
from vlprompt.errors import DATA, UserError

CHECKPOINT, METRICS, LOCK = "checkpoint.safetensors", "metrics.jsonl", ".lock"
SCHEMA = 1
SECONDS_BETWEEN_LOOKS = 0.2
"""While another process holds a lock."""


@dataclass(slots=True)
class State:
    """All that the loop carries from one epoch to the next: everything else follows from the configuration."""

    epoch: int
    """Epochs done."""
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)
    """SGD's buffers; none before a parameter's first gradient."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """float64, the weighted sum of the prompts so far, where a method averages."""
    seconds: float = 0.0
    """Wall time of learning so far, over all starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where the states of one seed go. The file is one, tensors and numbers together, replaced whole after an epoch."""

    directory: Path
    config_hash: str
    every: int = 1

    @property
    def path(self) -> Path:
        return self.directory / CHECKPOINT

    def save(self, state: State) -> None:
        """Write the state; the one before stays until this one is whole on disk."""
        numbers = {"schema": SCHEMA, "epoch": state.epoch, "seconds": state.seconds, "config": self.config_hash}
        atomic.write_bytes(self.path, packed(state, numbers))

    def load(self) -> State | None:
        """The last state; None where there is none. UserError where it is damaged or another configuration's.

        What `metrics.jsonl` has beyond that state (a killed run's last epochs) is cut off.
        """
        state = self._read() if self.path.is_file() else None
        self._cut_log(state.epoch if state else 0)
        return state

    def _read(self) -> State:
        try:
            state, numbers = unpacked(self.path.read_bytes())
        except (SafetensorError, KeyError, ValueError) as problem:
            raise UserError(
                f"{self.path} is no checkpoint of vlprompt or is damaged ({problem}). Move it away to start this seed again.",
                exit_code=DATA,
            ) from problem
        if numbers["schema"] != SCHEMA or numbers["config"] != self.config_hash:
            raise UserError(
                f"{self.path} was written under another configuration or version. Use another --out, or move it away."
            )
        return state

    def _cut_log(self, epoch: int) -> None:
        path = self.directory / METRICS
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if _epoch_of(line) < epoch]
            atomic.write_text(path, "".join(line + "\n" for line in kept))

    def log(self, values: Mapping[str, object]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        with (self.directory / METRICS).open("a") as file:
            file.write(json.dumps(values) + "\n")


def packed(state: State, numbers: Mapping[str, object]) -> bytes:
    """A state's tensors and some numbers beside them, as one safetensors file; `numbers` has its epoch and seconds."""
    tensors = {
        f"{kind}/{name}": tensor.detach().cpu().contiguous()
        for kind in ("parameters", "momentum", "average")
        for name, tensor in getattr(state, kind).items()
    }
    return save(tensors, metadata={"state": json.dumps(numbers)})


def unpacked(data: bytes) -> tuple[State, dict[str, Any]]:
    """The state and the numbers of `packed`. SafetensorError, KeyError or ValueError where they are damaged."""
    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    numbers = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
    state = State(epoch=numbers["epoch"], parameters={}, seconds=numbers["seconds"])
    for name, tensor in tensors.items():
        kind, _, key = name.partition("/")
        getattr(state, kind)[key] = tensor
    return state, numbers


def _epoch_of(line: str) -> float:
    """The epoch of a line; infinity for a line that was cut short by a kill."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def capture(
    epoch: int, prompt: nn.Module, optimiser: torch.optim.SGD, average: dict[str, Tensor], seconds: float
) -> State:
    """The state of a prompt and its optimiser, by reference: save it before the next step."""
    named = dict(prompt.named_parameters())
    momentum = {name: optimiser.state[p].get("momentum_buffer") for name, p in named.items() if p in optimiser.state}
    return State(
        epoch=epoch,
        parameters={name: p.detach() for name, p in named.items()},
        momentum={name: buffer for name, buffer in momentum.items() if buffer is not None},
        average=average,
        seconds=seconds,
    )


def restore(state: State, prompt: nn.Module, optimiser: torch.optim.SGD) -> None:
    """Put a state back, in place. The names and shapes are the configuration's, so that a mismatch is a bug."""
    put_back(state.parameters, prompt)
    named = dict(prompt.named_parameters())
    for name, buffer in state.momentum.items():
        optimiser.state[named[name]]["momentum_buffer"] = buffer.to(named[name].device)


def put_back(parameters: Mapping[str, Tensor], prompt: nn.Module) -> None:
    """A state's parameters into a prompt, in place."""
    named = dict(prompt.named_parameters())
    assert named.keys() == parameters.keys(), "the checkpoint has other tensors than the prompt"
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(parameters[name])


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a run directory for this process; the lock goes with the process, however that ends.

    UserError where another process holds it.
    """
    with locked_if_free(directory) as ours:
        if not ours:
            raise UserError(f"{directory} is in use by another vlprompt process. Wait for it, or use another --out.")
        yield


@contextmanager
def locked_if_free(directory: Path) -> Iterator[bool]:
    """As `locked`, but where another process holds the directory the value is False and there is no error."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as file:
        yield _try_lock(file)


@contextmanager
def locked_in_turn(directory: Path) -> Iterator[None]:
    """As `locked`, but a directory that another process holds is waited for, however long it takes."""
    while True:
        with locked_if_free(directory) as ours:
            if ours:
                yield
                return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _try_lock(file: IO[str]) -> bool:
    """An exclusive lock that the system releases with the file handle; False where another handle has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
