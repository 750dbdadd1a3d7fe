"""Every page: its commands exist, its Python runs, its lines are short, its English is plain, and the site builds.

A Python block that cannot run has `<!-- no-run: WHY -->` before it. A block of commands after `<!-- run -->` is run.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
from markdown_it import MarkdownIt

from vlprompt import cli, pocket
from vlprompt.cli.methods import listed
from vlprompt.data.papers import catalogue
from vlprompt.methods import recipes
from vlprompt.methods.options import parse_settings
from vlprompt.methods.resolve import every, options, recipe_of, resolve
from vlprompt.types import Schedule

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "reports"]
"""Pages that people write; the reports are made from records."""
GROUPS = {"pocket", "eleven", "ten", "four", "papers"}
STAND_INS = {"my_photos", "other_photos", "my_stamps", "messy", "SET_A", "SET_B", "NAME", "DIR", "A", "B", "M"}
"""Names of data and models that belong to the reader."""
COLUMNS = 120
WORDS = 20
WORST = (
    r"\b(of its own|go(es)? on with|which is said|that which|as ever|by the way of|so that|beside|put up with)\b",
    r"\bthis should not happen\b",
    r"\b(?<!there )(is|are) no (?!longer\b|more\b|\w+er\b)",
)
"""Phrases that sound translated."""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    mark: str
    """`run`, `no-run: WHY`, or empty."""


def blocks(page: Path) -> list[Block]:
    found, mark = [], ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            found.append(Block(page, token.map[0] + 1 if token.map else 0, token.info, token.content, mark))
        if token.type in ("fence", "code_block", "html_block", "paragraph_open"):
            comment = re.fullmatch(r"<!-- ((?:no-)?run.*) -->", token.content.strip())
            mark = comment[1] if comment else ""
    return found


GROUP: Any = typer.main.get_command(cli.app)
ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python"]


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a block: what stands behind `vlprompt`, without comments."""
    if block.language not in ("", "bash", "sh"):
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        found = re.match(r"(?:\S+=\S+ )*(?:\.venv/bin/|torchrun .*?-m )?vlprompt (?P<rest>.*)", line.strip())
        if found:
            yield shlex.split(re.sub(r"\s\.\.\.$", "", found["rest"]), comments=True)


COMMANDS = [
    pytest.param(words, id=f"{block.page.stem}-{' '.join(words)[:60]}") for block in ALL for words in commands(block)
]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command and its options, as the real command line reads them."""
    context = command = None
    shared, own = cli._apart(words)
    command, name, rest = GROUP, "vlprompt", shared + own
    while True:
        context = command.make_context(name, list(rest), parent=context)
        if not hasattr(command, "commands"):
            return context.command_path.partition(" ")[2], context.params
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 90


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_one(words: list[str]) -> None:
    command, given = parsed(words)
    recipe = given.get("recipe") or "auto"
    if command in ("recipes", "reproduce") and given.get("name" if "name" in given else "recipe"):
        recipes.read(given["name" if "name" in given else "recipe"])
    method = given.get("method") or (recipes.read(recipe).method if recipe in recipes.names() else "coop")
    methods = [] if method == "auto" else [method]
    if command == "bench" and given.get("methods") not in (None, "all"):
        methods = given["methods"].split(",")
    for one in methods:
        settings = parse_settings(given.get("set") or given.get("settings") or [])
        ranges = {name: re.split(r"\.\.|,", text) for name, text in settings.items()} if command == "tune" else {}
        for end in (0, -1):  # of a range, both ends are settings
            chosen = {**settings, **{name: values[end] for name, values in ranges.items()}}
            resolve(one, chosen, recipe=recipe_of(one, "few-shot", "", "auto"))
    for one in (given.get("data") or "").split(",") if isinstance(given.get("data"), str) else ():
        known = one in {*pocket.names(), *GROUPS, *STAND_INS} or one.startswith("hub:") or "/" in one
        assert known or catalogue.find(one), f"--data {one}"


def test_a_wrong_command_is_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["train", "my_photos", "--sots", "16"])
    with pytest.raises(Exception, match="No such command"):
        parsed(["trian"])


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.stem}-{block.line}")
def test_python_compiles_and_imports_what_it_names(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for one in node.names:
                importlib.import_module(one.name)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, one.name) or _submodule(node.module, one.name) for one in node.names)


def _submodule(module: str | None, name: str) -> bool:
    return importlib.util.find_spec(f"{module}.{name}") is not None


def test_python_is_marked_as_such() -> None:
    for block in ALL:
        assert block.language or not re.match(r"(from \S+ )?import ", block.text), f"{block.page}:{block.line}"
        assert not block.mark.startswith("no-run") or len(block.mark) > len("no-run: WHY"), "say why"


@pytest.mark.slow
def test_what_can_run_runs_in_order(tmp_path: Path) -> None:
    """Page by page, in a directory of the page: Python in one namespace, commands one by one."""
    ran = 0
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for page in PAGES:
        here = tmp_path / page.stem
        here.mkdir(exist_ok=True)
        steps = []
        for block in (one for one in ALL if one.page == page):
            if block.language == "python" and not block.mark.startswith("no-run"):
                steps.append(block.text)
            elif block.mark == "run":
                steps += [
                    f"from vlprompt import cli\nassert cli.run({words}) == 0, {words}" for words in commands(block)
                ]
        if steps:
            script = here / "page.py"
            script.write_text("\n".join(steps), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, script.name], cwd=here, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page}:\n{done.stderr[-3000:]}"
            ran += len(steps)
    assert ran >= 6


@pytest.mark.slow
def test_the_site_builds_with_no_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path], cwd=ROOT, env=env, check=True
    )
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(
            r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:', text
        ), page
    assert (tmp_path / "search" / "search_index.json").is_file()


@functools.cache
def lines_of_prose(page: Path) -> tuple[tuple[int, str], ...]:
    """Lines outside code, tables, headings and comments."""
    text = page.read_text(encoding="utf-8")
    code = {
        number
        for token in MarkdownIt("commonmark").enable("table").parse(text)
        if token.map and token.type in ("fence", "code_block", "table_open", "html_block", "heading_open")
        for number in range(*token.map)
    }
    return tuple((number + 1, line) for number, line in enumerate(text.splitlines()) if number not in code)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_lines_are_short(page: Path) -> None:
    long = [
        number
        for number, line in lines_of_prose(page)
        if len(line) >= COLUMNS and "http" not in line and "](" not in line
    ]
    assert not long, f"{page.relative_to(ROOT)}: lines {long} have {COLUMNS} columns or more"


def sentences(page: Path) -> list[str]:
    text = "\n".join(line for _, line in lines_of_prose(page))
    text = re.sub(r"`[^`]*`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:-|\d+\.) ", text)
    found = (one for paragraph in paragraphs for one in re.split(r"(?<=[.!?])\s+", paragraph))
    return [one for one in found if len(re.findall(r"[A-Za-z]+", one)) > 2]


def mean_words(page: Path) -> float:
    found = sentences(page)
    return sum(len(one.split()) for one in found) / max(len(found), 1)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_sentences_are_short(page: Path) -> None:
    assert mean_words(page) < WORDS, f"{page.relative_to(ROOT)}: a mean of {mean_words(page):.1f} words a sentence"


def worst(text: str) -> list[str]:
    return [found[0] for phrase in WORST for found in re.finditer(phrase, text, re.IGNORECASE)]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_pages_have_none_of_the_worst_phrases(page: Path) -> None:
    assert not worst("\n".join(line for _, line in lines_of_prose(page)))


def leaves(command: Any, path: str = "vlprompt") -> Iterator[tuple[str, Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves(one, f"{path} {name}")
    yield path, command


@pytest.mark.parametrize(
    ("path", "command"),
    list(leaves(GROUP)),
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_the_help_has_none_of_the_worst_phrases(path: str, command: Any) -> None:
    texts = [command.help, command.epilog, *(getattr(one, "help", None) for one in command.params)]
    assert not worst("\n".join(text for text in texts if text)), path


def test_pages_that_messages_name_are_there() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"(?<!/)\bdocs/([\w/-]+\.md)", path.read_text(encoding="utf-8")):
            named = (ROOT / "docs" / name).is_file() or re.search(
                rf"\w+/\w+:? docs/{name}|PromptKD", path.read_text(encoding="utf-8")
            )
            assert named, f"{path.relative_to(ROOT)} names docs/{name}"


def strings(path: Path) -> Iterator[str]:
    """The texts of a module, values in f-strings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "\0".join(part.value for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def test_the_messages_that_are_explained_are_in_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "\n".join(text for path in (ROOT / "src").rglob("*.py") for text in strings(path))
    quoted = [
        span for row in re.findall(r"^\| (`.*?) \|(?=.*\|.*\|$)", page, re.M) for span in re.findall(r"`([^`]+)`", row)
    ]
    for message in quoted:
        pieces = re.split(r"\.\.\.|'[^']*'|\b(?:[A-Z]|DATA)\b|\(.*\)|<\|\w+\|>|\d+", message)
        longest = max((piece.strip(" ,.:?") for piece in pieces), key=len)
        assert longest in code, f"docs/troubleshooting.md quotes {longest!r}, which is in no message"
    assert len(quoted) > 50


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    lost = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not lost


def test_every_page_is_in_the_site() -> None:
    entered = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    pages = [str(page.relative_to(ROOT / "docs")) for page in WRITTEN if page.is_relative_to(ROOT / "docs")]
    assert sorted(pages) == sorted(entered)


SPANS = sorted(
    {(page.stem, span) for page in WRITTEN for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))}
)


def test_commands_and_options_in_the_text_exist() -> None:
    """`vlprompt X --option` in a sentence or a table: the command has the option. `--option` alone: some command has it."""
    of: dict[str, set[str]] = {
        path: {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
        for path, command in leaves(GROUP)
    }
    known = set().union(*of.values()) | {"--help"}
    for path in (ROOT / "benchmarks").rglob("*.py"):
        known |= set(re.findall(r'"(--[a-z][\w-]+)"', path.read_text(encoding="utf-8")))
    theirs = {
        "--root",
        "--trainer",
        "--config-file",
        "--dataset-config-file",
        "--seed",
        "--output-dir",
        "--eval-only",
        "--transforms",
    }
    theirs |= {
        "--source-domains",
        "--target-domains",
        "--backbone",
        "--head",
        "--no-train",
        "--model-dir",
        "--load-epoch",
    }
    theirs |= {"--nproc-per-node", "--max-restarts", "--rdzv-endpoint", "--address"}
    wrong = []
    for page, span in SPANS:
        words = re.sub(r"[|\\]", " ", span).split()
        asked = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]+(=.*)?", word)}
        if span.startswith("vlprompt "):
            path = max((one for one in of if f"{span} ".startswith(f"{one} ")), key=len)
            named = re.match(r"vlprompt ([a-z][\w-]*)", span)
            missing = asked - of[path] - of["vlprompt"] or (
                named and path == "vlprompt" and asked != {"--debug"} and {named[1]}
            )
        elif span.startswith("--"):
            missing = asked - known - (theirs if page in ("coming-from", "pretraining") else set())
        else:
            missing = None
        if missing:
            wrong.append(f"{page}: `{span}`: {missing}")
    assert not wrong, "\n".join(wrong)


def test_options_of_methods_in_the_text_exist() -> None:
    rows = [one["name"] for one in listed()]
    own = [option for name in every() for option in options(name)]
    known = {f.name for f in dataclasses.fields(Schedule)} | {one.name for one in own} | {one.alias for one in own}
    wrong = [
        f"{page}: {name}"
        for page, span in SPANS
        for name in re.findall(r'--set "?([a-z][\w.]*)=', span)
        if name not in known
    ]
    assert not wrong
    index = (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    assert [name for name in rows if f"{name}.md)" not in index] == []
