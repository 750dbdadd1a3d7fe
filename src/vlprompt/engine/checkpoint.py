"""The state after an epoch on disk, from which a resumed run gives the same bits; and learning curves for TensorBoard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vlprompt import disk, reading, records, tensors
from vlprompt.errors import UserError, data_error
from vlprompt.records import METRICS

CHECKPOINT = "checkpoint.safetensors"
SCHEMA = 2
"""2: with a SHA-256 over tensors and numbers."""


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
    weights: dict[str, float] = field(default_factory=dict)
    """Of terms whose weight was found in the first epoch (`Term.balance`)."""
    step: int | None = None
    """Steps done, where states are kept within epochs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where the states of one seed go. The file is one, tensors and numbers together, replaced whole after an epoch."""

    directory: Path
    config_hash: str
    every: int = 1
    curves: Curves | None = field(default=None, repr=False)
    """TensorBoard's, which get every line of the log as well."""

    def kept(self, epoch: int) -> str:
        """What of a run is safe after an epoch: a sentence that begins with a space."""
        return f" The state after epoch {epoch} is kept in {self.path}."

    @property
    def path(self) -> Path:
        return self.directory / CHECKPOINT

    def save(self, state: State) -> None:
        """Write the state; the one before stays until this one is whole on disk."""
        numbers: dict[str, object] = {"schema": SCHEMA, "epoch": state.epoch, "seconds": state.seconds}
        numbers |= {"config": self.config_hash, **({"weights": state.weights} if state.weights else {})}
        disk.write_bytes(self.path, packed(state, numbers))

    def load(self) -> State | None:
        """The last state; None where there is none. UserError where it is damaged or another configuration's.

        What `metrics.jsonl` has beyond that state (a killed run's last epochs) is cut off.
        """
        state = None
        if self.path.is_file():
            state, _ = unpacked(self.path, self.path.read_bytes(), SCHEMA, self.config_hash)
        records.cut_log(self.directory / METRICS, "epoch", state.epoch - 1 if state else -1)
        return state

    def log(self, values: Mapping[str, object]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        records.log(self.directory / METRICS, values)
        if self.curves is not None:
            self.curves.log(values)


def packed(state: State, numbers: Mapping[str, object]) -> bytes:
    """A state's tensors and some numbers next to them, as one safetensors file; `numbers` has schema, epoch, seconds and config."""
    named = {
        f"{kind}/{name}": tensor.detach().cpu().contiguous()
        for kind in KINDS
        for name, tensor in getattr(state, kind).items()
    }
    told = json.dumps({**numbers, "threads": torch.get_num_threads()}, sort_keys=True)
    return save(named, metadata={"state": json.dumps({"numbers": told, "sha256": tensors.digest(named, told)})})


def unpacked(path: Path, data: bytes, schema: int, config_hash: str) -> tuple[State, dict[str, Any]]:
    """The state and the numbers of `packed`. UserError: damaged (other SHA-256), another version's or configuration's."""
    try:
        state, numbers, facts = _unpacked(path, data)
    except UserError as problem:
        raise data_error(
            f"{path} is not a checkpoint of vlprompt, or it is damaged ({problem}) Move it away to start this seed again."
        ) from problem
    if numbers.schema != schema or numbers.config != config_hash:
        raise UserError(
            f"{path} was written under another configuration or version. Use another --out, or move it away."
        )
    for one in (state.parameters, state.momentum, state.average):
        tensors.require_usable(one, path)
    if numbers.threads != (now := torch.get_num_threads()):
        warnings.warn(
            f"{path} was written with {numbers.threads} threads, and there are {now} now: the result may differ in its last bits. For "
            f"the same bits start with OMP_NUM_THREADS={numbers.threads}.",
            stacklevel=2,
        )
    return state, facts


def _unpacked(path: Path, data: bytes) -> tuple[State, _Numbers, dict[str, Any]]:
    where = path.name
    beside = tensors.header(data, where).get("__metadata__", {}).get("state")
    if not isinstance(beside, str):
        raise UserError(f"{where} has no numbers next to its tensors.")
    told = reading.typed(_Told, reading.json_value(beside, where), where)
    facts = reading.json_value(told.numbers, where)
    numbers = reading.typed(_Numbers, facts, where)
    named = tensors.unpacked(data, where)
    if tensors.digest(named, told.numbers) != told.sha256:
        raise UserError(f"{where} has other contents than were written (other SHA-256).")
    state = State(epoch=numbers.epoch, parameters={}, seconds=numbers.seconds, weights=dict(numbers.weights))
    for name, tensor in named.items():
        kind, _, key = name.partition("/")
        if kind not in KINDS:
            raise UserError(f"{where} has a tensor {reading.shown(name)}.")
        getattr(state, kind)[key] = tensor
    return state, numbers, facts


KINDS = ("parameters", "momentum", "average")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A checkpoint's metadata."""

    numbers: str
    """JSON."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """What every checkpoint says in numbers."""

    schema: int
    epoch: int
    seconds: float
    config: str
    weights: Mapping[str, float] = field(default_factory=dict)
    threads: int
    """Of the process that wrote it; on a processor the bits depend on it."""


def capture(
    epoch: int,
    prompt: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    seconds: float,
    weights: Mapping[str, float],
) -> State:
    """The state of a prompt and its optimiser, by reference: save it before the next step."""
    named = dict(prompt.named_parameters())
    momentum = {
        _kept(name, slot): value
        for name, p in named.items()
        for slot, value in optimiser.state.get(p, {}).items()
        if value is not None
    }
    return State(
        epoch=epoch,
        parameters={name: p.detach() for name, p in named.items()},
        momentum=momentum,
        average=average,
        seconds=seconds,
        weights=dict(weights),
    )


def restore(state: State, prompt: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put a state back, in place. UserError where its tensors are not the prompt's."""
    put_back(state.parameters, prompt)
    named = dict(prompt.named_parameters())
    places = {_kept(name, slot): (p, slot) for name, p in named.items() for slot in (BUFFER, *MOMENTS, COUNT)}
    known = {key: places[key][0] for key in state.momentum if key in places and places[key][1] != COUNT}
    _require_fit({key: one for key, one in state.momentum.items() if key in known or key not in places}, known)
    _require_fit(state.average, {name: named[name] for name in state.average if name in named})
    for key, value in state.momentum.items():
        parameter, slot = places[key]
        optimiser.state[parameter][slot] = value if slot == COUNT else value.to(parameter.device)


BUFFER, MOMENTS, COUNT = "momentum_buffer", ("exp_avg", "exp_avg_sq"), "step"
"""What SGD keeps of a parameter; what Adam and AdamW keep of its shape; and the number of their steps."""


def _kept(name: str, slot: str) -> str:
    """What an optimiser keeps of a parameter, by name: SGD's only buffer has the parameter's."""
    return name if slot == BUFFER else f"{name}@{slot}"


def put_back(parameters: Mapping[str, Tensor], prompt: nn.Module) -> None:
    """A state's parameters into a prompt, in place."""
    named = dict(prompt.named_parameters())
    _require_fit(parameters, named)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(parameters[name])


def _require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if {name: one.shape for name, one in found.items()} != {name: one.shape for name, one in wanted.items()}:
        raise data_error("the checkpoint has other tensors than the prompt. Move it away to start this seed again.")


def weights_found(directory: Path, config_hash: str) -> dict[str, float]:
    """Term -> the weight that was found while learning, of a seed's last state; empty where none was, or nothing was learned."""
    state = Checkpoints(directory=directory, config_hash=config_hash).load()
    return state.weights if state else {}


Track = Literal["tensorboard"]
FOLDER = "tensorboard"


class Curves:
    """TensorBoard's event files in a run's directory, opened at the first epoch that is written."""

    def __init__(self, directory: Path) -> None:
        """UserError where tensorboard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as problem:
            raise UserError(
                f"--track tensorboard needs the package tensorboard ({problem}). Install it with: pip install 'vlprompt[track]'. "
                "Without it every run has the same numbers in metrics.jsonl."
            ) from problem
        self._open = partial(SummaryWriter, log_dir=str(directory / FOLDER))
        self._writer: Any = None

    def log(self, values: Mapping[str, object]) -> None:
        """Add an epoch: numbers by their names, those in a mapping by ``outer/inner``."""
        epoch = values["epoch"]
        if self._writer is None:  # what an earlier start wrote from this epoch on is taken back
            self._writer = self._open(purge_step=epoch)
        for name, value in _numbers(values).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _numbers(values: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = float(value)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch(Checkpoints):
    """Stands where the loop would save: hands each epoch's state to a function. Nothing is written, nothing read."""

    after: Callable[[State], None]
    logged: Callable[[Mapping[str, object]], None] | None = None
    """What the loop would write to `metrics.jsonl`."""
    directory: Path = Path()
    config_hash: str = ""

    def kept(self, epoch: int) -> str:
        return ""

    def save(self, state: State) -> None:
        self.after(state)

    def load(self) -> None:
        return None

    def log(self, values: Mapping[str, object]) -> None:
        if self.logged is not None:
            self.logged(values)
