"""What is read from files that others wrote: a value, or a `UserError` that names the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlprompt import reading
from vlprompt.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    name: str
    count: int
    share: float
    kind: Literal["one", "two"] = "one"
    shots: int | None = None
    names: Sequence[str] = ()
    per_class: Mapping[str, float] = field(default_factory=dict)


GOOD = {"name": "a", "count": 3, "share": 1, "kind": "two", "names": ["x"], "per_class": {"x": 1.5}, "more": [1]}


def test_a_good_file_is_a_value() -> None:
    assert reading.typed(Sheet, GOOD, "f") == Sheet(
        name="a", count=3, share=1, kind="two", names=("x",), per_class={"x": 1.5}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 3),
        ("name", None),
        ("count", True),
        ("count", 2.0),
        ("count", 10**30),
        ("share", "1"),
        ("share", float("nan")),
        ("share", True),
        ("kind", "three"),
        ("kind", ["one"]),
        ("shots", {}),
        ("names", "x"),
        ("names", [1]),
        ("per_class", {"x": None}),
        ("per_class", [["x", 1]]),
    ],
)
def test_another_type_is_named(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"f: {name} is .*, not "):
        reading.typed(Sheet, GOOD | {name: value}, "f")


def test_what_lacks_is_named() -> None:
    with pytest.raises(UserError, match="it lacks name, share"):
        reading.typed(Sheet, {"count": 1}, "f")


BAD_JSON = {
    "cut": b'{"a": 1',
    "empty": b"",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "less deep": b"[" * 80 + b"]" * 80,
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "1e999": b'{"a": 1e999}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"a": "\\ud800"}',
    "half a surrogate as a name": b'{"\\uDFFF": 1}',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"facts\.json"):
        reading.json_object(path)


def test_other_json_than_an_object(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(UserError, match="holds a list, not a JSON object"):
        reading.json_object(tmp_path / "f.json")


def test_no_more_than_a_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"a": "x" * 100}), encoding="utf-8")
    with pytest.raises(UserError, match="more than 50 bytes"):
        reading.text(tmp_path / "f.json", most=50)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}')
    assert reading.json_object(tmp_path / "f.json") == {"a": "\U0001f600"}


@pytest.mark.parametrize("content", ["a = ", "a = " + "[" * 5000, "a = " + "9" * 5000, "[a]\n[a]"])
def test_bad_toml_is_named(content: str) -> None:
    with pytest.raises(UserError, match="the file is damaged or no TOML"):
        reading.toml_value(content, "the file")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_user_error(content: bytes) -> None:
    for read in (reading.json_value, lambda given, where: reading.toml_value(given.decode("latin-1"), where)):
        try:
            read(content, "f")
        except UserError:
            continue


@pytest.mark.parametrize("number", ["nan", "-inf", "inf", "1e999", "9" * 5000])
def test_toml_has_finite_numbers_as_json(number: str) -> None:
    with pytest.raises(UserError, match="damaged or no TOML"):
        reading.toml_value(f"a = {number}", "f")
    assert reading.toml_value("a = 1.5e3", "f") == {"a": 1500.0}
