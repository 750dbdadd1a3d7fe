"""Publish records: pack them into docs/records, make their report in docs/reports, and fill the tables of docs/results.md.

python -m tools.publish pack NAME DIR    # DIR as `vlprompt bench --out DIR` leaves it -> docs/records/NAME.tar.xz
python -m tools.publish report NAME      # docs/records/NAME.tar.xz -> docs/reports/NAME.html and NAME.md, as `vlprompt report` makes them;
                                         # of `python -m benchmarks.pretraining_study`: docs/reports/NAME.md and docs/images/NAME.png
python -m tools.publish tables           # docs/reports/*.md -> the marked tables of docs/results.md

The archive goes back to where it came from: `tar -xf docs/records/NAME.tar.xz -C DIR`, then `vlprompt bench --out DIR` continues it,
and `vlprompt report DIR` and `vlprompt compare DIR` read it. Prompts are left out: they are learned again where they are needed.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT = ("result.json", "predictions.npz", "cell.json")
STUDY = "study.json"
"""What a pretraining study has apart from its cells."""
MARK = re.compile(r"(<!-- from (?P<name>\S+): (?P<heading>.+?) -->\n)(?P<body>.*?)(<!-- /from -->)", re.DOTALL)


def pack(name: str, root: Path) -> Path:
    """All finished cells below a directory in one archive; the same records give the same bytes."""
    target = DOCS / "records" / f"{name}.tar.xz"
    target.parent.mkdir(exist_ok=True)
    cells = sorted(path.parent for path in root.rglob("result.json"))
    with tarfile.open(target, "w:xz", preset=9) as archive:
        # Like next to like: what cells have in common is stored about once.
        for path in (root / STUDY, *(cell / kept for kept in KEPT for cell in cells)):
            if path.is_file():
                content = _plain(path) if path.suffix == ".npz" else path.read_bytes()
                info = tarfile.TarInfo(path.relative_to(root).as_posix())
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    print(f"{target}: {len(cells)} cells, {target.stat().st_size / 2**20:.1f} MiB")
    return target


def _plain(path: Path) -> bytes:
    """An .npz file without its own compression, which would hide from the archive what files have in common."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as packed, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as plain:
        for one in packed.infolist():
            plain.writestr(zipfile.ZipInfo(one.filename), packed.read(one))
    return buffer.getvalue()


def unpack(name: str, root: Path) -> None:
    """The records below a directory, as they were."""
    with tarfile.open(DOCS / "records" / f"{name}.tar.xz") as archive:
        archive.extractall(root, filter="data")


def report(name: str, target: Path = DOCS / "reports", images: Path = DOCS / "images") -> Path:
    """The page and the tables of packed records; gives the tables' path."""
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        unpack(name, root)
        files = _of_study(root) if (root / STUDY).is_file() else _of_grid(root, name)
        for path in files:
            place = images if path.suffix == ".png" else target
            shutil.copy(path, place / f"{name}{path.suffix}")
    return target / f"{name}.md"


def _of_grid(root: Path, title: str) -> list[Path]:
    from vlprompt.report.write import MARKDOWN, PAGE, write_report

    write_report(root, title=title)
    return [root / PAGE, root / MARKDOWN]


def _of_study(root: Path) -> list[Path]:
    from benchmarks.pretraining_study.study import FIGURE, TABLE, conclude

    conclude(root, json.loads((root / STUDY).read_text(encoding="utf-8")))
    return [root / FIGURE, root / TABLE]


def section(text: str, heading: str) -> str:
    """What stands below a heading of a Markdown text, up to the next one. `A / B` is the heading B below the heading A."""
    *outer, last = heading.split(" / ")
    for one in outer:
        text = _below(text, one, same=True)
    return _below(text, last, same=False).strip("\n")


def _below(text: str, heading: str, *, same: bool) -> str:
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines) if re.fullmatch(rf"#+ {re.escape(heading)}", line)]
    if not found:
        raise SystemExit(f"there is no heading {heading!r}; there are: {[one for one in lines if one.startswith('#')]}")
    start = found[0] + 1
    level = lines[found[0]].index(" ") if same else 99
    ends = (n for n in range(start, len(lines)) if re.match(rf"#{{1,{level}}} ", lines[n]))
    return "\n".join(lines[start : next(ends, len(lines))])


def filled(text: str) -> str:
    """A page with each marked part replaced by the section that its mark names."""

    def one(match: re.Match[str]) -> str:
        source = (DOCS / "reports" / f"{match['name']}.md").read_text(encoding="utf-8")
        return f"{match[1]}\n{section(source, match['heading'])}\n\n{match[5]}"

    return MARK.sub(one, text)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["pack", name, root]:
            pack(name, Path(root))
        case ["report", name]:
            print(report(name))
        case ["tables"]:
            page = DOCS / "results.md"
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
