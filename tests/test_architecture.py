"""The rules of docs/architecture.md that a machine can check: who imports whom, how long a file is, how fast help comes."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import files_table

import vlprompt

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vlprompt"
SOURCES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


VALUES = {"errors", "types", "disk", "plain", "reading", "tensors", "records", "pocket"}
MODELS = VALUES | {"towers", "prompts", "losses", "solvers"}
LEARNS = MODELS | {"methods", "artifact", "data", "engine", "head"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "disk": {"errors"},
    "pocket": {"errors"},
    "types": set(),
    "plain": set(),
    "reading": {"errors"},
    "tensors": {"errors", "reading"},
    "records": {"errors", "disk", "reading"},
    "towers": {"errors", "types", "pocket", "reading", "tensors"},
    "prompts": {"errors", "types"},
    "losses": {"errors", "types"},
    "solvers": {"errors", "types"},
    "data": {"errors", "types", "pocket", "disk", "reading"},
    "methods": {"errors", "types", "reading", "pocket", "prompts", "losses", "solvers", "data"},
    "artifact": MODELS | {"methods"},
    "convert": MODELS | {"methods", "artifact"},
    "head": {"errors", "types", "towers", "losses"},
    "engine": MODELS | {"methods", "artifact", "data", "head"},
    "describe": LEARNS,
    "explain": LEARNS | {"describe"},
    "hub": {"errors", "artifact"},
    "module": LEARNS,
    "inputs": {"errors", "types", "data"},
    "classifier": LEARNS | {"hub", "inputs"},
    "serve": LEARNS | {"classifier", "inputs"},
    "bench": LEARNS,
    "verify": LEARNS,
    "report": {"errors", "disk", "plain", "records"},
    "pretrain": LEARNS | {"report"},
    "quickstart": LEARNS | {"bench", "report"},
}
"""Unit -> units that it may import; the command line may import all of them, and nobody may import it."""
FILE_LINES, FUNCTION_LINES = 600, 60
MODULES = 520
"""More than these no list of the command line loads (torch alone brings over 800)."""
HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "tokenizers", "PIL", "safetensors", "huggingface_hub")

# Written in parts, so that this file does not find itself.
FORBIDDEN = re.compile(
    "|".join(
        [rf"(?<![\w.])/{place}/" for place in ("wor" + "k", "roo" + "t", "far" + "m")]
        + [
            "py" + r"pi\.org",
            "python" + "hosted",
            "npm" + r"js\.org",
            "deb" + r"ian\.org/debian",
            "127" + r"\.0\.0\.1:\d",
        ]
    )
)
TEXT = ("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.txt", "*.cff", "*.sh", "*.json", "Makefile", "run")
PLACES = ("src", "tests", "docs", "tools", "benchmarks", "recipes", ".ci")


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of every import of our own, wherever it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the whole name"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "vlprompt" else [base]
        else:
            continue
        for name in names:
            if name.startswith("vlprompt.") and not name.startswith("vlprompt.__"):
                yield node.lineno, name.split(".")[1]


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES:
        unit = unit_of(path)
        if unit in ("__init__", "__main__", "cli"):
            continue
        assert unit in MAY_IMPORT, f"{unit} is new: say in this test what it may import"
        wrong += [
            f"{path.relative_to(ROOT)}:{line} imports {other}"
            for line, other in imports_of(path)
            if other not in MAY_IMPORT[unit] | {unit}
        ]
    assert not wrong, "\n".join(wrong)


def test_the_allowed_imports_have_no_circle() -> None:
    done: set[str] = set()
    left = dict(MAY_IMPORT)
    while left:
        free = [unit for unit, others in left.items() if others <= done]
        assert free, f"a circle among {sorted(left)}"
        done |= set(free)
        left = {unit: others for unit, others in left.items() if unit not in free}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} (line {node.lineno}) has {lines} lines"


def test_a_class_name_is_one_thing() -> None:
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
        values = [node for node in tree(path).body if isinstance(node, ast.Assign)]
        aliases = [node.targets[0] for node in values if not ast.unparse(node.value).startswith("TypeVar(")]
        for name in [] if "cli" in path.parts else aliases:  # the command line's are options
            if isinstance(name, ast.Name) and re.fullmatch("[A-Z][a-z]+.*", name.id):
                found.setdefault(name.id, []).append(str(path.relative_to(PACKAGE)))
    assert len(found) > 300
    assert not {name: places for name, places in found.items() if len(places) > 1}


SHORT = 60
"""Lines. What is shorter and has one importer belongs into that file; a command's module may be short."""


def test_a_short_file_has_several_importers() -> None:
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in SOURCES}
    importers: dict[str, set[Path]] = {name: set() for name in modules}
    for path in [*SOURCES, *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in {node.module, *(f"{node.module}.{one.name}" for one in node.names)} & set(modules):
                    importers[name].add(path)
    alone = [
        name
        for name, path in modules.items()
        if not path.name.startswith("__")
        and "cli" not in path.parts
        and len(path.read_text(encoding="utf-8").splitlines()) < SHORT
        and len(importers[name]) < 2
    ]
    assert not alone, f"fold them into their importers: {alone}"


def test_the_page_has_a_line_for_every_file() -> None:
    text = files_table.PAGE.read_text(encoding="utf-8")
    assert files_table.filled(text) == text, "python tools/files_table.py"


def text_calls_without_encoding(path: Path) -> Iterator[int]:
    """Lines that read or write text in whatever encoding the machine prefers. (Ruff's PLW1514 sees only what it knows to be a Path.)"""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        match node.func, node.args:
            case ast.Attribute(attr="read_text"), _:
                yield node.lineno
            case ast.Attribute(value=value, attr="write_text"), _ if ast.unparse(value) != "disk":
                yield node.lineno
            case ast.Attribute(attr="open"), [ast.Constant(value=str(mode)), *_] if re.fullmatch(r"[rwax]\+?", mode):
                yield node.lineno


def test_text_is_read_and_written_in_a_named_encoding() -> None:
    files = [path for place in ("src", "tests", "tools", "benchmarks") for path in (ROOT / place).rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in text_calls_without_encoding(path)]
    assert not found, found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "no docstring"


def test_names_in_backquotes_are_there() -> None:
    """`vlprompt.a.b` of a docstring or a page is a module, or something in one."""
    lost = []
    for path in [*SOURCES, *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"`(vlprompt(?:\.\w+)+)`", path.read_text(encoding="utf-8")):
            module, _, last = name.rpartition(".")
            try:
                there = hasattr(importlib.import_module(module), last) or importlib.import_module(name)
            except ImportError:
                there = False
            if not there:
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert not lost, lost


def test_every_module_can_be_imported() -> None:
    names = [info.name for info in pkgutil.walk_packages(vlprompt.__path__, "vlprompt.")]
    assert "vlprompt.engine.run" in names
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)


@pytest.mark.parametrize(
    "code",
    [
        "import vlprompt",
        "import vlprompt.cli",
        "import vlprompt.cli; assert vlprompt.cli.run(['data', 'list']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['recipes']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['--help']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['methods']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['methods', '--guide']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['models']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['models', '--json']) == 0",
        "import vlprompt.cli.env as env; env.DRIVERS = (); import vlprompt.cli; assert vlprompt.cli.run(['env']) == 0",
        "import vlprompt.cli; assert vlprompt.cli.run(['train', '--help']) == 0",
    ],
)
def test_the_start_is_light(code: str) -> None:
    check = (
        f"import sys\n{code}\nheavy = [name for name in {HEAVY!r} if name in sys.modules]\nassert not heavy, heavy\n"
        f"assert len(sys.modules) < {MODULES}, len(sys.modules)"
    )
    unmeasured = {
        key: one for key, one in os.environ.items() if not key.startswith("COVERAGE")
    }  # it imports modules too
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, env=unmeasured)
    assert done.returncode == 0, done.stderr


FILL = {
    "Record": {"engine/job.py"},
    "Learned": {"artifact.py", "convert.py", "bench/work.py", "engine/job.py", "module.py", "pretrain/run.py"},
}
"""Value -> the modules that fill it: `engine/job.py` for what is learned, and for what is tested; the others for prompts that are
read, converted, given, pretrained or learned in a loop of the user's."""


def test_what_is_learned_and_tested_is_written_down_in_one_place() -> None:
    for value, modules in FILL.items():
        found = {
            path.relative_to(PACKAGE).as_posix()
            for path in SOURCES
            if f"{value}(" in (text := path.read_text(encoding="utf-8"))
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (value, f"artifact.{value}", f"records.{value}")
        }
        assert found == modules, value


STEPS = {"optimiser_of": {"engine/train.py"}, "take": {"engine/train.py"}, "accumulate": {"engine/train.py"}}
"""What only a loop calls (`engine.optim`, `engine.step`) -> the modules that call it."""


def test_there_is_one_loop() -> None:
    for name, modules in STEPS.items():
        found = {
            path.relative_to(PACKAGE).as_posix()
            for path in SOURCES
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom)
            and name in {one.name for one in node.names}
            and node.module != "itertools"
        }
        assert found == modules, name
    stepping = [
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        if re.search(r"\boptimi[sz]er\.step\(", path.read_text(encoding="utf-8"))
    ]
    assert stepping == ["engine/step.py", "prompts/attest.py"], "attest learns from each test image, at test time"


ONCE = ("--set", "--recipe", "--max-memory", "--jobs", "--resume", "--device", "--cache", "--json")


def test_options_that_commands_share_are_declared_once() -> None:
    for flag in ONCE:
        pattern = re.compile(rf'option\(\s*"{flag}[" ]')
        found = [
            path.name for path in (PACKAGE / "cli").glob("*.py") if pattern.search(path.read_text(encoding="utf-8"))
        ]
        assert found == ["options.py"], f"{flag}: {found}"


KNOW_DEVICES = {"engine/precision.py", "engine/distributed.py", "cli/env.py"}
"""The device of a run, processes with one GPU each, and what `vlprompt env` prints."""


def test_devices_are_known_in_one_place_and_types_are_never_switched_behind_ones_back() -> None:
    wrong = []
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        wrong += [f"{name}: {found}" for found in re.findall(r"autocast|\.half\(|\.bfloat16\(|\.cuda\(", text)]
        if name not in KNOW_DEVICES:
            wrong += [
                f"{name}: {found}" for found in re.findall(r"torch\.cuda|torch\.mps|backends\.mps|backends\.cuda", text)
            ]
    assert not wrong, "\n".join(wrong)


def test_no_place_of_one_machine_is_named() -> None:
    files = {path for place in PLACES for kind in TEXT for path in (ROOT / place).rglob(kind)}
    files |= {path for kind in TEXT for path in ROOT.glob(kind)}
    files = {path for path in files if "__pycache__" not in path.parts and path.name != "LOG.md"}
    assert len(files) > 20
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in sorted(files)
        for number, line in enumerate(path.read_text(errors="replace", encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found, "\n".join(found)


def test_versions_agree() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{vlprompt.__version__}"' in project
    assert f"version: {vlprompt.__version__}\n" in citation
    assert f"## {vlprompt.__version__}" in changes


def test_pictures_are_opened_as_one_of_the_named_formats() -> None:
    """Pillow hands PostScript to another program, under whatever name the file comes."""
    files = [path for place in ("src", "tools", "benchmarks") for path in (ROOT / place).rglob("*.py")]
    for path in files:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                assert any(one.arg == "formats" for one in node.keywords), f"{path}:{node.lineno}"


def test_what_a_test_is_skipped_without_is_installed_for_development() -> None:
    """A package that only some people have is in the extra `dev`, so `make install` brings it and its tests run."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dev = {
        re.split(r"[<>=\[]", one)[0].replace("-", "_")
        for one in tomllib.loads(text)["project"]["optional-dependencies"]["dev"]
    }
    wanted = {
        name.partition(".")[0]: path.name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'importorskip\("([\w.]+)"', path.read_text(encoding="utf-8"))
    }
    assert {name: file for name, file in wanted.items() if name not in dev} == {
        "open_clip": "test_openclip_library.py"  # `make open-clip-test` brings it, apart from all else
    }
