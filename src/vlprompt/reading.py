"""Files that others wrote, read within bounds: their text, JSON and TOML, and the types of what they hold.

Whatever is in a file, the answer is a value or a `UserError` that names the file: no other exception, and no memory beyond a few times
its size.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from vlprompt.errors import data_error

MAX_BYTES = 1 << 28
"""256 MiB: the list of ImageNet-21K's images takes less."""
MAX_DEPTH = 64
MAX_WHOLE = 2**63
T = TypeVar("T")


def data(path: Path, *, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file, at most `most`."""
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise data_error(f"{path}: cannot be read ({reason}).") from problem
    if len(found) > most:
        raise data_error(f"{path} has more than {most:,} bytes, which no such file needs.")
    return found


def text(path: Path, *, most: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file, without a byte-order mark."""
    try:
        return data(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise data_error(f"{path} is not UTF-8 text ({problem}). Save it as UTF-8.") from problem


def json_file(path: Path) -> Any:
    """The value of a JSON file; see `json_value`."""
    return json_value(text(path), str(path))


def json_object(path: Path) -> dict[str, Any]:
    value = json_file(path)
    if not isinstance(value, dict):
        raise data_error(f"{path} holds {_kind(value)}, not a JSON object.")
    return value


def require_schema(values: Mapping[str, Any], known: int, path: Path) -> None:
    """UserError where a later version of vlprompt wrote a file."""
    schema = values.get("schema")
    if type(schema) is int and schema > known:
        raise data_error(f"{path} has schema {schema}; this version reads up to {known}. Update vlprompt.")


def json_value(content: str | bytes, where: str) -> Any:
    """A JSON value. UserError: no JSON, NaN or infinity, half a surrogate pair, two values for one key, or more than 64 levels."""
    try:
        content = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(content, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_single)
        if "\\ud" in content.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise data_error(f"{where} is damaged or no JSON ({_short(problem)}).") from problem
    _require_shallow(value, where)
    return value


def toml_value(content: str, where: str) -> dict[str, Any]:
    """A TOML document. UserError as `json_value`."""
    try:
        value = tomllib.loads(content, parse_float=_finite)
    except (ValueError, RecursionError) as problem:
        raise data_error(f"{where} is damaged or no TOML ({_short(problem)}).") from problem
    _require_shallow(value, where)
    return value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is not a finite number")
    return value


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. ValueError: a key with two values, of which json would take the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if found[key] != value:
                raise ValueError(f"the key {key[:60]!r} has two values")
    return found


def _short(problem: Exception) -> str:
    return "nested too deep" if isinstance(problem, RecursionError) else str(problem)[:200]


def _require_shallow(value: object, where: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        parts = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for part in parts for one in part if isinstance(one, dict | list)]
        if not level:
            return
    raise data_error(f"{where} is nested more than {MAX_DEPTH} levels deep.")


def typed(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from a file's values; fields that it does not have are passed over, those with a default may be missing.

    UserError that names every field that is missing or has another type. Numbers are finite, whole numbers fit 64 bits.
    """
    if not isinstance(values, dict):
        raise data_error(f"{where}: {_kind(values)} where an object belongs.")
    hints = typing.get_type_hints(kind)
    fields = [one for one in dataclasses.fields(typing.cast(Any, kind)) if one.init]
    bare = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [one.name for one in fields if one.name not in values and (one.default, one.default_factory) == bare]
    if missing:
        raise data_error(f"{where}: it lacks {', '.join(missing)}.")
    given = {one.name: values[one.name] for one in fields if one.name in values}
    wrong = [
        f"{name} is {shown(value)}, not {_words(hints[name])}"
        for name, value in given.items()
        if not fits(value, hints[name])
    ]
    if wrong:
        raise data_error(f"{where}: {'; '.join(wrong)}.")
    return kind(**{name: _as(value, hints[name]) for name, value in given.items()})


def fits(value: object, hint: Any) -> bool:
    """Whether a value that came from a file is of a type: plain ones, unions, literals, mappings and sequences."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return True
    if origin is Literal:
        return type(value) in (str, int, bool) and value in inner
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _bounded(value)
    if hint is int:
        return type(value) is int and _bounded(value)
    return type(value) is (type(None) if hint is None else hint)


def _as(value: Any, hint: Any) -> Any:
    return tuple(value) if isinstance(value, list) and typing.get_origin(hint) is not list else value


def _bounded(value: float) -> bool:
    return abs(value) < MAX_WHOLE if isinstance(value, int) else math.isfinite(value)


def whole(content: str) -> int | None:
    """The whole number from 0 that a text is, of at most 18 digits; None where it is none."""
    return int(content) if content.isascii() and content.isdigit() and len(content) <= 18 else None


def shown(value: object) -> str:
    """A value of a file in a message: short, whatever it is."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else _kind(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


def _words(hint: Any) -> str:
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, inner))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_words, inner))
    plain = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    return plain.get(hint, "a list or table of the right values")
