"""The command `vlprompt`. Nothing heavy is imported here, so `--help` answers at once."""

from __future__ import annotations

import copy
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vlprompt import __version__
from vlprompt.cli import clusters, console, data, export, failures, options
from vlprompt.cli.options import option
from vlprompt.errors import INTERRUPTED, UserError

MAX_DIGITS = 18
"""Of a whole number in an argument: what fits 64 bits."""

app = typer.Typer(
    name="vlprompt",
    help="Learn prompts for CLIP from a few images per class.\n\n"
    "Start with `vlprompt quickstart`; for your own images: `vlprompt train --data my_photos --out runs/mine`, then "
    "`vlprompt predict runs/mine picture.jpg`. Words such as shots, view or zero-shot: docs/glossary.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    *("quickstart", "train", "tune", "pretrain", "eval", "predict", "segment", "explain", "head", "methods", "recipes"),
    *("convert", "models", "bench", "compare", "report", "reproduce", "serve", "demo", "push", "pull", "env", "verify"),
)
"""As the help lists them; each is a function of its name in the module of its name, or in another one."""
ELSEWHERE = {"eval": "evaluate", "demo": "serve", "push": "hub", "pull": "hub"}
for name in COMMANDS:
    module = importlib.import_module(f"vlprompt.cli.{ELSEWHERE.get(name, name)}")
    options.command(app, name)(getattr(module, name))
app.add_typer(data.app, name="data")
app.add_typer(export.app, name="export")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"vlprompt {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, option("--debug", "Show the traceback of an error. May stand anywhere.")] = False,
    data_root: Annotated[
        str | None, option("--data-root DIR", "Where the papers' data sets lie. May stand anywhere.", "$VLPROMPT_DATA")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    failures.DEBUG.set(debug)
    if data_root:
        context.with_resource(options.known(data_root))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code."""
    shared, own = _apart([_at_home(one) for one in arguments])
    failures.COMMAND.set(tuple(arguments))
    failures.SAID.set(False)
    try:
        _require_plain(arguments)
        _say_which_counts(own)
        _with_command(own[:1])(args=shared + own, prog_name="vlprompt")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return failures.report(KeyboardInterrupt()) if code == INTERRUPTED and not failures.SAID.get() else code
    except (KeyboardInterrupt, UserError) as stop:
        return failures.report(stop)
    return 0


def _with_command(name: Sequence[str]) -> typer.Typer:
    """The app with the command of this name alone, where there is one: reading the options of all of them takes a quarter of a second."""
    named = [command for command in app.registered_commands if [command.name] == list(name)]
    if not named:
        return app
    one = copy.copy(app)
    one.registered_commands, one.registered_groups = named, []
    return one


def _require_plain(arguments: Sequence[str]) -> None:
    """UserError for numbers that no option can mean, and for bytes that are not text."""
    for one in arguments:
        value = one.rpartition("=")[2].strip().lstrip("+-")
        if value.isdecimal() and len(value) > MAX_DIGITS:
            raise UserError(f"{one[:40]}...: a number of {len(value)} digits. Allowed: at most {MAX_DIGITS}.")
        try:
            one.encode()
        except UnicodeEncodeError:
            raise UserError(f"{one!r} is not UTF-8 text. Rename the file or folder, or give another name.") from None


def _at_home(one: str) -> str:
    """An argument whose path begins at home, which the shell leaves as it is in ``--out=~/x`` and between quotes."""
    name, equals, value = one.partition("=") if one.startswith("--") else ("", "", one)
    return f"{name}{equals}{os.path.expanduser(value)}" if value.startswith("~") else one


def _say_which_counts(arguments: Sequence[str]) -> None:
    """Says of an option that means one thing and is given twice that the last one counts."""
    names = [one.partition("=")[0] for one in arguments if one.startswith("--")]
    if not (twice := {name for name in names if names.count(name) > 1} - {"--"}):
        return
    command: Any = typer.main.get_command(app)
    for word in arguments:
        command = getattr(command, "commands", {}).get(word, command)
    once = [
        name for one in command.params if not one.multiple and not getattr(one, "is_flag", False) for name in one.opts
    ]
    for name in sorted(twice & set(once)):
        console.warn(f"{name} is given twice. The last one counts.")


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that may stand anywhere, and the rest."""
    shared: list[str] = []
    own: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        if one == "--debug" or one.startswith("--data-root="):
            shared.append(one)
        elif one == "--data-root" and rest:
            shared += [one, rest.pop(0)]
        else:
            own.append(one)
    return shared, own


def main() -> None:
    """The entry point of `vlprompt` and of `python -m vlprompt`."""
    # Read by OpenMP when torch is imported. Threads that wait by spinning take the processor from those they wait for
    # as soon as another program runs: an epoch of the quickstart then takes half a minute instead of a second.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.survive_encodings()
    failures.heed_interrupts()
    code = run(sys.argv[1:])
    if code != INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to say
    clusters.end(code)
    sys.exit(code)
