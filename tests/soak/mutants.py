"""`python -m tests.soak.mutants`: one small fault at a time in losses, prompts, splits, sampling and statistics; do the tests see it?

Each fault (another operator, a number that is one more, a condition turned round) is put into a copy of the package, and the tests of
that part run in a fork of this process. What they do not see is a survivor.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from tests.soak.survivors import EXPLAINED

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "records" / "mutants.json"
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "losses": (
        ("losses/*.py",),
        ("tests/losses", "tests/engine/test_gradients.py", "tests/engine/test_several.py", "tests/test_methods.py"),
    ),
    "prompts": (
        ("prompts/*.py",),
        ("tests/prompts", "tests/test_artifact.py", "tests/test_beyond.py"),
    ),
    "splits and sampling": (
        ("data/splits.py", "engine/sampling.py"),
        ("tests/data/test_splits.py", "tests/cli/test_leaks.py"),
    ),
    "statistics": (
        ("report/bootstrap.py", "report/judgement.py", "report/comparison.py"),
        ("tests/report/test_bootstrap.py", "tests/report/test_judgement.py", "tests/report/test_comparison.py"),
    ),
}
"""Name -> files of the package, and the tests that should see their faults: first those files that speak of the module, then all."""
LONGEST = 10
"""Times as long as without a fault (and at least a minute): a fault that makes the tests of a part longer is seen."""
UNKNOWN = 3600
"""Seconds that the tests may take where that is not known yet."""
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(number of the node in the order of `ast.walk`, what is done to it), of code alone: no docstrings, no annotations, no messages."""
    apart = {id(node) for one in ast.walk(tree) for node in _left_out(one)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in apart:
            continue
        if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OTHER:
            yield number, "operator"
        elif isinstance(node, ast.BoolOp):
            yield number, "and, or"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
            yield number, "comparison"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield number, "number"
        elif isinstance(node, ast.If | ast.IfExp):
            yield number, "condition"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield number, "sign"


def _left_out(node: ast.AST) -> list[ast.AST]:
    """Everything below an annotation, a raised error, an assertion or a default value of shapes."""
    below: list[ast.AST | None] = []
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        below.append(node)
    elif isinstance(node, ast.AnnAssign | ast.arg):
        below.append(node.annotation)
    elif isinstance(node, ast.FunctionDef):
        below.append(node.returns)
    return [one for root in below if root is not None for one in ast.walk(root)]


def changed(tree: ast.Module, number: int, kind: str) -> tuple[str, str]:
    """(the module with one fault, the line before -> after)."""
    tree = copy.deepcopy(tree)
    node: Any = list(ast.walk(tree))[number]
    before = ast.unparse(node.test if kind == "condition" else node)
    if kind in ("operator", "and, or"):
        node.op = OTHER[type(node.op)]()
    elif kind == "comparison":
        node.ops[0] = OTHER[type(node.ops[0])]()
    elif kind == "number":
        node.value += 1
    elif kind == "condition":
        node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
    else:
        node.op = ast.UAdd()
    after = ast.unparse(node.test if kind == "condition" else node)
    return ast.unparse(ast.fix_missing_locations(tree)), f"{before} -> {after}"


def seen(source: Path, tests: tuple[str, ...], seconds: float = UNKNOWN) -> bool:
    """Whether some test fails with the package in `source`, in a fork of this process, or does not end in `seconds`."""
    child = os.fork()
    if not child:
        os.chdir(ROOT)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(int(seconds))
        sys.path.insert(0, str(source))
        os.environ["PYTHONPATH"] = str(source)
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests])
        os._exit(int(code))
    return os.waitpid(child, 0)[1] != 0


def near(path: Path, tests: tuple[str, ...]) -> tuple[str, ...]:
    """The files among the tests that speak of a module."""
    files = [
        one
        for place in tests
        for one in ([ROOT / place] if place.endswith(".py") else (ROOT / place).glob("test_*.py"))
    ]
    spoken = f"{path.parent.name}.{path.stem}"
    return tuple(str(one.relative_to(ROOT)) for one in sorted(files) if spoken in one.read_text(encoding="utf-8"))


def run(each: int, seed: int, only: list[str]) -> None:
    """Write the record, after each fault: `each` faults of each part (or of `only` some), drawn with the seed; other rows are kept."""
    for name, source, longest in _parts(only):
        found = [one for one in _known() if (one["part"], one["seed"]) != (name, seed)]
        trees = _trees(source, name)
        every = [(path, *fault) for path, tree in trees.items() for fault in faults(tree)]
        began = time.monotonic()
        survivors: list[dict[str, object]] = []
        part: dict[str, Any] = {"part": name, "seed": seed, "date": date.today().isoformat()}
        part |= {"possible": len(every), "tried": 0, "survivors": survivors}
        for path, number, kind in random.Random(f"{seed} {name}").sample(every, min(each, len(every))):
            line = getattr(list(ast.walk(trees[path]))[number], "lineno", 0)
            code, what = changed(trees[path], number, kind)
            if not _sees(source, path, code, name, longest):
                survivors.append({"file": str(path.relative_to(source)), "line": line, "fault": what})
            part |= {"tried": part["tried"] + 1, "seconds": round(time.monotonic() - began, 1)}
            _keep([*found, part])  # a run that is stopped keeps it
        print(json.dumps(part), flush=True)


def again(only: list[str]) -> None:
    """Try what was not seen once more, and note in the record whether it is seen today. SystemExit: the line is no longer there."""
    found = _known()
    for name, source, longest in _parts(
        [one["part"] for one in found if one["survivors"] and one["part"] in (only or PARTS)]
    ):
        trees = _trees(source, name)
        for lost in (lost for one in found if one["part"] == name for lost in one["survivors"]):
            path = source / lost["file"]
            codes = [changed(trees[path], *fault) for fault in faults(trees[path])]
            lines = [getattr(list(ast.walk(trees[path]))[number], "lineno", 0) for number, _ in faults(trees[path])]
            same = [
                (abs(line - lost["line"]), code) for line, (code, what) in zip(lines, codes) if what == lost["fault"]
            ]
            if not same:
                raise SystemExit(f"{lost['file']} has no {lost['fault']} any more: take it out of {RECORD}.")
            nearest = min(same)[0]  # several of one line look alike: all of them have to be seen
            lost["seen_since"] = all(_sees(source, path, code, name, longest) for away, code in same if away == nearest)
            print(json.dumps(lost), flush=True)
            _keep(found)


def _known() -> list[dict[str, Any]]:
    return list(json.loads(RECORD.read_text(encoding="utf-8"))["parts"]) if RECORD.is_file() else []


def _keep(parts: list[dict[str, Any]]) -> None:
    parts = sorted(parts, key=lambda one: (list(PARTS).index(one["part"]), one["seed"]))
    RECORD.write_text(json.dumps({"parts": parts}, indent=1) + "\n", encoding="utf-8")


def _parts(only: list[str]) -> Iterator[tuple[str, Path, float]]:
    """Each part, a copy of the package that the forks import, and the seconds after which its tests count as hanging."""
    import torch  # before the forks, which then need not load it

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        shutil.copytree(ROOT / "src" / "vlprompt", source / "vlprompt", ignore=shutil.ignore_patterns("__pycache__"))
        for name, (_, tests) in PARTS.items():
            if only and name not in only:
                continue
            assert "vlprompt" not in sys.modules, (
                "the forks would have the package from its own place, without the fault"
            )
            began = time.monotonic()
            assert not seen(source, tests), f"the tests of {name} fail without any fault"
            yield name, source, max(60.0, LONGEST * (time.monotonic() - began))


def _trees(source: Path, name: str) -> dict[Path, ast.Module]:
    files = sorted(path for pattern in PARTS[name][0] for path in (source / "vlprompt").glob(pattern))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def _sees(source: Path, path: Path, code: str, name: str, longest: float) -> bool:
    """Whether the tests of a part see other code in a file of the copy, which is put back."""
    whole, tests = path.read_bytes(), PARTS[name][1]
    path.write_text(code, encoding="utf-8")
    own = near(path, tests)
    found = bool(own and seen(source, own, longest)) or seen(source, tests, longest)
    path.write_bytes(whole)
    return found


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a part of docs/reliability.md."""
    rows = []
    for one in record["parts"]:
        lost = len(one["survivors"])
        since = sum(bool(fault.get("seen_since")) for fault in one["survivors"])
        cells = (
            one["part"],
            one["seed"],
            one["date"],
            f"{one['possible']:,}",
            one["tried"],
            one["tried"] - lost,
            since,
        )
        rows.append(f"| {' | '.join(map(str, cells))} | {lost - since} |")
    told = [
        textwrap.fill(
            f"- `{one['file']}`, `{one['fault']}`: {EXPLAINED.get((one['file'], one['fault'], part['seed']), 'open.')}",
            118,
            subsequent_indent="  ",
            break_long_words=False,
        )
        for part in record["parts"]
        for one in part["survivors"]
    ]
    return [
        "## Small faults",
        "",
        "`python -m tests.soak.mutants` puts one small fault at a time into a copy of the package: another operator, a number",
        "that is one more, a condition turned round. The tests of that part should fail. What was not seen was tried again.",
        "",
        "| part | seed | run on | possible faults | tried | seen by the tests | seen since | not seen |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        *(["What was not seen at first, and why:", "", *dict.fromkeys(told), ""] if told else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=40, help="Faults of each part.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], choices=list(PARTS))
    parser.add_argument("--again", action="store_true", help="Try once more what was not seen.")
    given = parser.parse_args()
    if given.again:
        again(given.only)
        return
    run(given.each, given.seed, given.only)


if __name__ == "__main__":
    main()
