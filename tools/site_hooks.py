"""What the site changes in a page: a link out of docs/ becomes the file's path, and a report's link goes to its HTML page."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?:src|tools|examples|tests|benchmarks|[A-Z]+)[^)\s]*)\)")
REPORT = re.compile(r"\((reports/(?!pretraining)[\w-]+)\.md\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = OUTSIDE.sub(lambda found: f"{found[1]} (`{found[2].replace('../', '')}` in the repository)", markdown)
    return REPORT.sub(r"(\1.html)", markdown)
