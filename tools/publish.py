"""Publish records: pack them into docs/records, make their report in docs/reports, and fill the tables of docs/results.md.

python tools/publish.py pack NAME DIR    # DIR as `vlprompt bench --out DIR` leaves it -> docs/records/NAME.zip
python tools/publish.py report NAME      # docs/records/NAME.zip -> docs/reports/NAME.html and NAME.md, as `vlprompt report` makes them
python tools/publish.py tables           # docs/reports/*.md -> the marked tables of docs/results.md

The zip goes back to where it came from: `unzip docs/records/NAME.zip -d DIR`, then `vlprompt bench --out DIR` goes on with it, and
`vlprompt report DIR` and `vlprompt compare DIR` read it. Prompts are left out: they are learned again where they are needed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT = ("result.json", "predictions.npz", "cell.json")
DATE = (1980, 1, 1, 0, 0, 0)
MARK = re.compile(r"(<!-- from (?P<name>\S+): (?P<heading>.+?) -->\n)(?P<body>.*?)(<!-- /from -->)", re.DOTALL)


def pack(name: str, root: Path) -> Path:
    """All finished cells below a directory in one zip; the same records give the same bytes."""
    target = DOCS / "records" / f"{name}.zip"
    target.parent.mkdir(exist_ok=True)
    cells = sorted(path.parent for path in root.rglob("result.json"))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for cell in cells:
            for path in (cell / kept for kept in KEPT):
                if path.is_file():
                    info = zipfile.ZipInfo(path.relative_to(root).as_posix(), DATE)
                    info.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(info, path.read_bytes())
    print(f"{target}: {len(cells)} cells, {target.stat().st_size / 2**20:.1f} MiB")
    return target


def report(name: str, target: Path = DOCS / "reports") -> Path:
    """The page and the tables of packed records; gives the tables' path."""
    from vlprompt.report.write import MARKDOWN, PAGE, write_report

    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with zipfile.ZipFile(DOCS / "records" / f"{name}.zip") as archive:
            archive.extractall(root)
        write_report(root, title=name)
        shutil.copy(root / PAGE, target / f"{name}.html")
        shutil.copy(root / MARKDOWN, target / f"{name}.md")
    return target / f"{name}.md"


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
        source = (DOCS / "reports" / f"{match['name']}.md").read_text()
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
            page.write_text(filled(page.read_text()))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
