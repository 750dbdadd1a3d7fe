"""The quick tests under every Python at hand, with the newest, the pinned and the oldest allowed versions.

python tools/matrix.py                                    # every python3.11 to python3.14 that is installed
python tools/matrix.py --versions oldest --python python3.11
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
VERSIONS = ("newest", "pinned", "oldest")
TESTS = (
    "tests/test_architecture.py",
    "tests/test_methods.py",
    "tests/losses",
    "tests/prompts",
    "tests/data",
    "tests/test_artifact.py",
)


def oldest() -> str:
    """Every lower bound of pyproject.toml as a pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    found = (re.match(r"([\w.-]+)>=([\w.]+)", bound) for bound in bounds)
    return "".join(f"{one[1]}=={one[2]}\n" for one in found if one)


def run(python: str, versions: str) -> bool:
    """Install in an empty environment and test; what went wrong has been printed by then."""
    with tempfile.TemporaryDirectory() as place:
        pins = Path(place) / "pins.txt"
        pins.write_text(oldest() if versions == "oldest" else "", encoding="utf-8")
        constraint = ROOT / "constraints.txt" if versions == "pinned" else pins
        own = Path(place) / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        steps = (
            [python, "-m", "venv", str(Path(place) / "env")],
            [
                str(own),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--constraint",
                str(constraint),
                "--editable",
                f"{ROOT}[dev]",
            ],
            [str(own), "-m", "pytest", "-q", "-m", "not slow", *TESTS],
        )
        return all(subprocess.run(step, cwd=ROOT, check=False).returncode == 0 for step in steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="an interpreter; may be given several times")
    parser.add_argument("--versions", action="append", choices=VERSIONS)
    asked = parser.parse_args()
    pythons = asked.python or [one for one in PYTHONS if shutil.which(one)]
    if not pythons:
        sys.exit(f"none of {', '.join(PYTHONS)} is installed. Name one: --python python3")
    results = {
        (python, versions): run(python, versions) for python in pythons for versions in asked.versions or ("pinned",)
    }
    for (python, versions), good in results.items():
        print(f"{python} with the {versions} versions: {'passed' if good else 'FAILED'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
