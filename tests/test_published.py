"""What docs/ publishes comes from the records that are packed beside it."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "docs" / "records").glob("*.zip"))


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "tools" / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_published_records_and_each_has_its_page() -> None:
    assert RECORDS
    for path in RECORDS:
        for ending in ("html", "md"):
            assert (ROOT / "docs" / "reports" / f"{path.stem}.{ending}").is_file(), (
                f"{path.name}: tools/publish.py report"
            )


def test_the_marked_tables_are_the_reports(publish: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert page.count("<!-- from ") == page.count("<!-- /from -->") > 0
    assert publish.filled(page) == page, "python tools/publish.py tables"


def test_a_section_is_what_stands_below_its_headings(publish: ModuleType) -> None:
    text = "# Page\n\n## A\n\n### One\n\nx\n\n## B\n\nintro\n\n### One\n\ny\n\n### Two\n\nz\n"
    assert publish.section(text, "A / One") == "x"
    assert publish.section(text, "B / One") == "y"
    assert publish.section(text, "B") == "intro"
    with pytest.raises(SystemExit, match="no heading 'Three'"):
        publish.section(text, "B / Three")


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_published_report_is_what_its_records_give(publish: ModuleType, path: Path, tmp_path: Path) -> None:
    made = publish.report(path.stem, tmp_path)
    assert made.read_text() == (ROOT / "docs" / "reports" / made.name).read_text(), "tools/publish.py report"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_packed_cells_are_whole_and_name_no_place(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        cells = {name.removesuffix("result.json") for name in names if name.endswith("/result.json")}
        assert cells
        for cell in cells:
            assert {f"{cell}predictions.npz", f"{cell}cell.json"} <= names
        for cell in sorted(cells)[::50]:
            for kept in ("result.json", "cell.json"):
                text = archive.read(cell + kept).decode()
                assert not re.search(r"/(tmp|home|root)/", text), f"{cell}{kept} names a place of one machine"
