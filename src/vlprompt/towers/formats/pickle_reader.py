"""A reader of pickled tensors that executes nothing: it interprets the few instructions that `torch.save` writes.

Python's own unpickler calls whatever a file names. Here a name is only a name. The instructions build dictionaries, lists,
tuples, numbers and strings. The few names that a file of tensors needs stand for values of this module; any other is
refused.
`torch.load(weights_only=True)` does not stand in for it. It refuses TorchScript archives, makes real objects of the
optimisers in a training checkpoint, and does not notice a damaged byte (torch 2.13).

Instructions: the pickle protocol 2, as pickletools documents it. Names: those that torch 1.0 to 2.x write for a state dict
(`torch.save`) or a module (`torch.jit.save`).
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class PickleRefused(Exception):
    """What the file asked for and is not done; the message is for people."""


class Name(NamedTuple):
    """A name that the file wrote; never looked up."""

    module: str
    attribute: str


class StorageRef(NamedTuple):
    """A run of numbers in the archive: torch's name of its type, the key of its file, its length."""

    kind: str
    key: str
    length: int


class TensorRef(NamedTuple):
    """A view of a storage."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Module:
    """A TorchScript object: the name of its class and its attributes, and nothing of what it does."""

    kind: Name
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a class that is read over: its name, and nothing of what is in it."""

    kind: Name


_DICT = Name("collections", "OrderedDict")
_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_FIRST_ARGUMENT = {
    Name("torch._utils", "_rebuild_parameter"),
    Name("torch.jit._pickle", "restore_type_tag"),
    *(Name("torch.jit._pickle", f"build_{kind}list") for kind in ("int", "double", "bool", "tensor")),
}
STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {_DICT, _TENSOR, *_FIRST_ARGUMENT, *(Name("torch", f"{kind}Storage") for kind in STORAGES)}

_INERT = {
    *(Name("torch.optim.lr_scheduler", kind) for kind in ("CosineAnnealingLR", "StepLR", "MultiStepLR")),
    *(Name(f"torch.optim.{kind.lower()}", kind) for kind in ("SGD", "Adam", "AdamW")),
    Name("collections", "defaultdict"),
    *(Name(module, "dict") for module in ("builtins", "__builtin__")),
    *(Name(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *(Name("numpy", "dtype"), Name("_codecs", "encode"), Name("argparse", "Namespace")),
}
"""What training checkpoints hold apart from tensors (Dassl's keep their optimiser's schedule): read over, and nothing of it is kept."""

_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FILLS = {"SETITEM": 2, "APPEND": 1, "BUILD": 1, "SETITEMS": 0, "APPENDS": 0}
"""What puts values into the object below them: how many, or all down to the last mark."""
_MARKED = {"SETITEMS", "APPENDS"}
_PUT, _GET = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}


def read(pickled: bytes) -> Any:
    """The value of a pickle: plain containers, numbers, strings, `TensorRef`s and `Module`s. Raises PickleRefused."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise PickleRefused(f"is damaged: its list of tensors does not parse ({error})") from error
    raise PickleRefused("is damaged: its list of tensors has no end")


class _Machine:
    """The stack, the open marks and the memo of one reading."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        """Everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _fill_inert(self, op: str) -> bool:
        """Drop what is put into an object that is read over; False where the object is another."""
        number = len(self.stack) - self.marks[-1] if op in _MARKED else _FILLS[op]
        if not isinstance(self.stack[-1 - number], Inert):
            return False
        if op in _MARKED:
            self.marks.pop()
        del self.stack[len(self.stack) - number :]
        return True

    def step(self, op: str, argument: Any) -> None:
        if op in _FILLS and self._fill_inert(op):
            return
        if op in _LITERALS:
            self.stack.append(argument)
        elif op in _CONSTANTS:
            self.stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            self.stack.append(_EMPTY[op]())
        elif op in _PUT:
            self.memo[argument] = self.stack[-1]
        elif op in _GET:
            self.stack.append(self.memo[argument])
        elif op == "MARK":
            self.marks.append(len(self.stack))
        elif op == "TUPLE":
            self.stack.append(tuple(self.pop_marked()))
        elif op in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[op])]
            self.stack.append(tuple(reversed(items)))
        elif op in ("SETITEM", "SETITEMS"):
            items = list(reversed([self.pop(), self.pop()])) if op == "SETITEM" else self.pop_marked()
            if not all(isinstance(key, str | int) for key in items[::2]):
                raise PickleRefused("is damaged: it names a value by something else than a string or a number")
            _expect(self.stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif op in ("APPEND", "APPENDS"):
            items = [self.pop()] if op == "APPEND" else self.pop_marked()
            _expect(self.stack[-1], list).extend(items)
        elif op == "GLOBAL":
            self.stack.append(_name(argument))
        elif op in ("REDUCE", "NEWOBJ"):
            arguments, name = self.pop(), self.pop()
            self.stack.append(_made(_expect(name, Name), _expect(arguments, tuple), new=op == "NEWOBJ"))
        elif op == "BUILD":
            state = self.pop()
            if isinstance(self.stack[-1], Module):
                self.stack[-1].attributes.update(_expect(state, dict))
            else:  # an OrderedDict's own attributes (torch's `_metadata`), which say nothing of the tensors
                _expect(self.stack[-1], dict)
        elif op == "BINPERSID":
            self.stack.append(_storage(self.pop()))
        elif op != "PROTO":
            raise PickleRefused(f"uses the pickle instruction {op}, which no file of tensors needs")


def _name(argument: str) -> Name:
    """A name from the file, if it is one that tensors or TorchScript modules need."""
    module, _, attribute = argument.partition(" ")
    name = Name(module, attribute)
    if name not in _ALLOWED | _INERT and module.split(".")[0] != "__torch__":
        raise PickleRefused(f"asks for {module}.{attribute}, which no file of tensors needs")
    return name


def _made(name: Name, arguments: tuple[Any, ...], *, new: bool) -> Any:
    """What calling (or, `new`, instantiating) a name with arguments stands for."""
    if name in _INERT:
        return Inert(name)
    if new and name.module.split(".")[0] == "__torch__" and not arguments:
        return Module(name)
    if not new and name == _DICT and not arguments:
        return {}
    if not new and name in _FIRST_ARGUMENT:
        return arguments[0]
    if not new and name == _TENSOR:
        storage, offset, size, stride = arguments[:4]
        numbers = (offset, *_expect(size, tuple), *_expect(stride, tuple))
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise PickleRefused("is damaged: a tensor whose size, stride and offset are not counts")
        return TensorRef(_expect(storage, StorageRef), offset, size, stride)
    raise PickleRefused(f"calls {name.module}.{name.attribute} in a way that no file of tensors needs")


def _storage(reference: Any) -> StorageRef:
    """A persistent id ("storage", type, key, device, length); the device is of no interest."""
    tag, kind, key, _, length = _expect(reference, tuple)
    kind = _expect(kind, Name)
    if tag != "storage" or kind.module != "torch" or not isinstance(key, str) or type(length) is not int:
        raise PickleRefused("is damaged: a storage without type, name and length")
    return StorageRef(kind.attribute.removesuffix("Storage"), key, length)


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value
