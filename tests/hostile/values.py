"""Values that a file can hold in place of the right one: of other types, sizes and meanings."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

DEEP: Any = []
for _ in range(70):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 10**6, 10**12, 2**63, 10**30, -(10**30)),
    *(0.5, -0.5, 1e39, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "x",
        "=1+1",
        "-",
        "1",
        "\x00",
        "\x1b[31m",
        "\ud800",
        "../..",
        "/",
        "a" * 5000,
        "9" * 5000,
        "coop",
        "auto",
    ),
    *([], {}, [1], ["x"], [[]], [None], {"x": 1}, {"": None}, {"x": {"y": []}}, [1, 2, 3, 4], DEEP),
)
ANY = st.recursive(
    st.one_of(st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=30)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, *before: str | int) -> Iterator[tuple[str | int, ...]]:
    """The way to every value within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*before, key)
        yield from places(one, *before, key)


def put(value: Any, way: tuple[str | int, ...], new: Any) -> Any:
    """A copy with another value at a place."""
    out = copy.deepcopy(value)
    inner = out
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = new
    return out


def written(value: Any) -> bytes:
    """JSON as a careless or hostile program writes it: NaN, half surrogates and all."""
    return json.dumps(value).encode()


def torn(data: bytes, stream: random.Random) -> bytes:
    """Damage of one kind: bits, a cut, a piece twice, zeros, another file's head."""
    out = bytearray(data)
    kind, place = stream.randrange(6), stream.randrange(max(1, len(out)))
    if kind == 0:
        for _ in range(stream.choice((1, 1, 8, 64))):
            out[stream.randrange(len(out))] ^= 1 << stream.randrange(8)
    elif kind == 1:
        del out[place:]
    elif kind == 2:
        out[place:place] = out[place : place + stream.choice((1, 100, 5000))]
    elif kind == 3:
        length = stream.choice((1, 8, 300))
        out[place : place + length] = bytes(len(out[place : place + length]))
    elif kind == 4:
        out[place : place + 8] = stream.randbytes(8)
    else:
        del out[place : place + stream.choice((1, 16, 400))]
    return bytes(out)
