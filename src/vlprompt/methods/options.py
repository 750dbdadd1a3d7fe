"""`--set NAME=VALUE`, read and checked. Options are frozen dataclasses: a field with a string under it is one, the string its help.

A field's metadata may give ``alias`` (a second name) and ``words`` (words that stand for values, ``{"all": 0}``).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vlprompt.errors import UserError, unknown

T = TypeVar("T")
MAX_WHOLE, MAX_NUMBER = 10**9, 1e30
"""Larger settings, either way, are refused: none is meant, and float32 holds none of 1e39."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a method, for lists and for conversion from text."""

    name: str
    """As ``--set`` names it: an overlay's options have its prefix, ``plpp.k``."""
    default: object
    allowed: str
    """In words: ``soft, hard`` or ``a whole number``."""
    help: str
    alias: str | None = None
    """A second name that means the same."""

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "default": self.default, "allowed": self.allowed, "help": self.help}


def parse_settings(texts: list[str] | None) -> dict[str, str]:
    """`["epochs=1", "plpp.k=5"]` -> {"epochs": "1", "plpp.k": "5"}. UserError for what has no `=`."""
    settings: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text!r} is not NAME=VALUE. Write for example --set epochs=10.")
        if name.strip() in settings:
            raise UserError(f"--set {name.strip()} is given twice. Give it once.")
        settings[name.strip()] = value.strip()
    return settings


def given(name: str, parts: Sequence[tuple[str, Any]], *layers: Mapping[str, object]) -> list[Any]:
    """The parts of a method with settings, those of later layers over those of earlier ones.

    parts: (prefix of its options' names, dataclass instance or None) of each; layers: option -> value, text or plain. UserError: an
    unknown name, one option under two names, a value that its type does not allow.
    """
    owners: dict[str, tuple[int, str]] = {}
    for place, (prefix, values) in enumerate(parts):
        for option in options_of(values, prefix):
            owner = (place, option.name.removeprefix(prefix))
            owners |= {known: owner for known in (option.name, option.alias) if known}
    settings: list[dict[str, object]] = [{} for _ in parts]
    for layer in layers:
        seen = set[tuple[int, str]]()
        for key, value in layer.items():
            if key not in owners:
                if meant := [known for known in owners if known.endswith(f".{key}")]:
                    raise UserError(
                        f"unknown option {key!r} of {name!r}: write an overlay's with its name, {meant[0]}=..."
                    )
                raise unknown(f"option of {name!r}:", key, owners)
            place, field = owners[key]
            if owners[key] in seen:
                raise UserError(f"{key}={value}: {field!r} is given twice, under two names. Give one of them.")
            seen.add(owners[key])
            settings[place][field] = value
    return [
        None if values is None else replaced(values, own, prefix)
        for (prefix, values), own in zip(parts, settings, strict=True)
    ]


def options_of(values: Any, prefix: str = "") -> tuple[Option, ...]:
    """The options of a dataclass instance, its values being the defaults; none of None."""
    if values is None:
        return ()
    helps = _helps(values.__class__)
    hints = _hints(values.__class__)
    return tuple(
        Option(
            name=prefix + field.name,
            default=spell(getattr(values, field.name), field),
            allowed=_allowed(hints[field.name], field),
            help=helps[field.name],
            alias=prefix + field.metadata["alias"] if "alias" in field.metadata else None,
        )
        for field in dataclasses.fields(values)
        if field.name in helps
    )


def spell(value: object, field: dataclasses.Field[Any]) -> object:
    """A value as people write it: the word that stands for it, where there is one."""
    for word, meaning in field.metadata.get("words", {}).items():
        if value == meaning:
            return str(word)
    return value


def replaced(values: T, changes: Mapping[str, object], prefix: str) -> T:
    """The dataclass instance with fields changed; strings are converted by the field's type.

    The keys are field names without the prefix, which is for messages only. UserError: a value that the type does not
    allow.
    """
    instance: Any = values
    hints = _hints(instance.__class__)
    fields = {field.name: field for field in dataclasses.fields(instance)}
    converted = {name: convert(prefix + name, value, hints[name], fields[name]) for name, value in changes.items()}
    changed: T = dataclasses.replace(instance, **converted)
    return changed


def convert(name: str, value: object, hint: Any, field: dataclasses.Field[Any]) -> object:
    """A value for a field of this type, from text or from a plain value. UserError: seen, and what is allowed."""
    words = field.metadata.get("words", {})
    if isinstance(value, str) and value.strip() in words:
        return words[value.strip()]
    for kind in _kinds(hint):
        try:
            found = _to(kind, value)
        except ValueError:
            continue
        word = spell(found, field)
        if word is found or word == "off":  # 0 is off in any language; elsewhere it would silently mean the word
            return found
        raise UserError(
            f'{name}={value} would mean "{word}". Write {name}={word} for that; otherwise give another value.'
        )
    size = " of a size that can be meant" if {int, float} & set(_kinds(hint)) else ""
    raise UserError(f"{name}={str(value)[:60]}: it must be {_allowed(hint, field)}{size}.")


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


YES = ("true", "yes", "on", "1")
SPELT: dict[Any, dict[str, object]] = {
    bool: {word: word in YES for word in (*YES, "false", "no", "off", "0")},
    type(None): {"none": None},
}
"""Types with few values, and how people write those."""


def _to(kind: Any, value: object) -> object:
    """ValueError where the value is not of that kind."""
    text = value.strip() if isinstance(value, str) else str(value)
    if typing.get_origin(kind) is Literal or kind in SPELT:
        choices = SPELT.get(kind) or {str(choice): choice for choice in typing.get_args(kind)}
        spelt = text.lower() if kind in SPELT else text
        if spelt not in choices:
            raise ValueError(text)
        return choices[spelt]
    if kind in (int, float):
        number: float = kind(text)
        if not abs(number) <= (MAX_WHOLE if kind is int else MAX_NUMBER):  # NaN is not below it either
            raise ValueError(text)
        return number
    assert kind is str, f"no conversion for {kind}"
    return value if isinstance(value, str) else str(value)


def _allowed(hint: Any, field: dataclasses.Field[Any]) -> str:
    words = field.metadata.get("words", {})
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
    kinds = [
        ", ".join(map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else names[kind]
        for kind in _kinds(hint)
        if kind is not type(None) or None not in words.values()
    ]
    return " or ".join(kinds + [f'"{word}"' for word in words])


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Field name -> its type."""
    return typing.get_type_hints(kind)


@functools.cache
def _helps(kind: type) -> dict[str, str]:
    """Field name -> the string under it in the source, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    helps = {}
    for pair in itertools.pairwise(body.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                helps[name] = " ".join(text.split())
    return helps
