"""The table of docs/architecture.md with a line for each file: the first sentence of its docstring.

python tools/files_table.py    # writes it behind its mark
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, PACKAGE = ROOT / "docs" / "architecture.md", ROOT / "src" / "vlprompt"
MARK = "<!-- every file: python tools/files_table.py -->\n"


def rows() -> list[str]:
    """Files by folder; a folder's own line first, with what its `__init__.py` says."""
    lines = ["| file | what it holds |", "| --- | --- |"]
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path)):
        whole = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        sentence = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(whole.split("\n\n")[0].split()))[0]
        name = path.relative_to(PACKAGE).as_posix().removesuffix("__init__.py")
        lines.append(f"| `{name or 'vlprompt/'}` | {sentence} |")
    return lines


def filled(text: str) -> str:
    """The page with the table as it is now, at its end."""
    before, mark, _ = text.partition(MARK)
    return before + mark + "\n" + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
