"""What docs/ publishes comes from the records that are packed beside it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "docs" / "records").glob("*.tar.xz"))
NAMES = [path.name.removesuffix(".tar.xz") for path in RECORDS]


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "tools" / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_published_records_and_each_has_its_tables() -> None:
    assert NAMES
    for name in NAMES:
        assert (ROOT / "docs" / "reports" / f"{name}.md").is_file(), f"{name}: tools/publish.py report"


def test_the_marked_tables_are_the_reports(publish: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page.count("<!-- from ") == page.count("<!-- /from -->") > 0
    assert publish.filled(page) == page, "python -m tools.publish tables"


def test_a_section_is_what_stands_below_its_headings(publish: ModuleType) -> None:
    text = "# Page\n\n## A\n\n### One\n\nx\n\n## B\n\nintro\n\n### One\n\ny\n\n### Two\n\nz\n"
    assert publish.section(text, "A / One") == "x"
    assert publish.section(text, "B / One") == "y"
    assert publish.section(text, "B") == "intro"
    with pytest.raises(SystemExit, match="no heading 'Three'"):
        publish.section(text, "B / Three")


def test_packed_records_come_back_as_they_were(
    publish: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    cell = tmp_path / "runs" / "few-shot" / "seed1"
    cell.mkdir(parents=True)
    (cell / "result.json").write_text('{"top1": 50.0}', encoding="utf-8")
    (cell / "prompt.safetensors").write_bytes(b"left out")
    np.savez_compressed(cell / "predictions.npz", label=np.arange(5), predicted=np.ones(5, dtype=np.int64))

    first = publish.pack("one", tmp_path / "runs").read_bytes()
    publish.unpack("one", tmp_path / "back")
    back = tmp_path / "back" / "few-shot" / "seed1"
    assert sorted(path.name for path in back.iterdir()) == ["predictions.npz", "result.json"]
    assert (back / "result.json").read_text(encoding="utf-8") == '{"top1": 50.0}'
    with np.load(cell / "predictions.npz") as before, np.load(back / "predictions.npz") as after:
        assert {name: before[name].tolist() for name in before} == {name: after[name].tolist() for name in after}
    assert publish.pack("one", tmp_path / "back").read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_published_report_is_what_its_records_give(publish: ModuleType, name: str, tmp_path: Path) -> None:
    made = publish.report(name, tmp_path, tmp_path)
    assert made.read_text(encoding="utf-8") == (ROOT / "docs" / "reports" / made.name).read_text(encoding="utf-8"), (
        "python -m tools.publish report"
    )


@pytest.mark.parametrize("path", RECORDS, ids=NAMES)
def test_packed_cells_are_whole_and_name_no_place(path: Path) -> None:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        names = {one.name for one in members}
        cells = {name.removesuffix("result.json") for name in names if name.endswith("/result.json")}
        assert cells
        assert all(f"{cell}predictions.npz" in names for cell in cells)
        for member in members:
            if member.name.endswith(".json"):
                content = archive.extractfile(member)
                assert content is not None
                text = content.read().decode()
                assert not re.search(r"/(tmp|home|root|work)/", text), f"{member.name} names a place of one machine"


def test_the_tables_of_plpp_are_what_its_records_give(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "docs" / "records" / "ablation" / "plpp.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    before = (ROOT / "docs" / "plpp.md").read_text(encoding="utf-8")
    page = tmp_path / "plpp.md"
    page.write_text(re.sub(r"^\|.*\n", "", before, flags=re.MULTILINE), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.plpp_ablation.page", tmp_path, page]
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)

    def tables(text: str) -> list[str]:
        return re.findall(r"<!-- (?:main|seeds|shots|heads|speed):begin -->.*?:end -->", text, re.DOTALL)

    assert len(tables(before)) == 5
    assert tables(page.read_text(encoding="utf-8")) == tables(before), (
        "python -m benchmarks.plpp_ablation.page DIR docs/plpp.md"
    )
