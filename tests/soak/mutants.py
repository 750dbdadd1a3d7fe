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
    "losses": (("losses/*.py",), ("tests/losses", "tests/engine/test_gradients.py", "tests/test_methods.py")),
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
    """Write the record, after each fault: `each` faults of each part, drawn with the seed. only: parts; others' rows are kept."""
    import torch  # before the forks, which then need not load it

    torch.set_num_threads(1)
    known = json.loads(RECORD.read_text(encoding="utf-8"))["parts"] if only else []
    found = [one for one in known if one["part"] not in only]
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        shutil.copytree(ROOT / "src" / "vlprompt", source / "vlprompt", ignore=shutil.ignore_patterns("__pycache__"))
        for name, (patterns, tests) in PARTS.items():
            if only and name not in only:
                continue
            assert "vlprompt" not in sys.modules, (
                "the forks would have the package from its own place, without the fault"
            )
            began = time.monotonic()
            assert not seen(source, tests), f"the tests of {name} fail without any fault"
            longest = max(60.0, LONGEST * (time.monotonic() - began))
            files = sorted(path for pattern in patterns for path in (source / "vlprompt").glob(pattern))
            trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
            every = [(path, *fault) for path, tree in trees.items() for fault in faults(tree)]
            began = time.monotonic()
            survivors: list[dict[str, object]] = []
            part: dict[str, Any] = {
                "part": name,
                "seed": seed,
                "possible": len(every),
                "tried": 0,
                "survivors": survivors,
            }
            found = sorted([*found, part], key=lambda one: list(PARTS).index(one["part"]))
            for path, number, kind in random.Random(f"{seed} {name}").sample(every, min(each, len(every))):
                whole = path.read_bytes()
                line = getattr(list(ast.walk(trees[path]))[number], "lineno", 0)
                code, what = changed(trees[path], number, kind)
                path.write_text(code, encoding="utf-8")
                own = near(path, tests)
                if not (own and seen(source, own, longest)) and not seen(source, tests, longest):
                    survivors.append({"file": str(path.relative_to(source)), "line": line, "fault": what})
                path.write_bytes(whole)
                part |= {"tried": part["tried"] + 1, "seconds": round(time.monotonic() - began, 1)}
                about = {"date": date.today().isoformat(), "parts": found}
                RECORD.write_text(
                    json.dumps(about, indent=1) + "\n", encoding="utf-8"
                )  # a run that is stopped keeps it
            print(json.dumps(part), flush=True)


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a part of docs/reliability.md."""
    rows = []
    for one in record["parts"]:
        lost = len(one["survivors"])
        cells = (one["part"], one["seed"], f"{one['possible']:,}", one["tried"], one["tried"] - lost, lost)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    told = [
        textwrap.fill(
            f"- `{one['file']}`, `{one['fault']}`: {EXPLAINED.get((one['file'], one['fault']), 'open.')}",
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
        "that is one more, a condition turned round. The tests of that part should fail.",
        "",
        f"Run on {record['date']}.",
        "",
        "| part | seed | possible faults | tried | seen by the tests | not seen |",
        "|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        *(["What was not seen, and why:", "", *told, ""] if told else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=40, help="Faults of each part.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], choices=list(PARTS))
    given = parser.parse_args()
    run(given.each, given.seed, given.only)


if __name__ == "__main__":
    main()
