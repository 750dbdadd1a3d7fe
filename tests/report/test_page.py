"""The page in a browser: it is drawn, computes what Python computes, sorts, filters, and says nothing in the console."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.report import made
from vlprompt.report.contenders import contenders, gather
from vlprompt.report.grid import Missing, ReportGrid, evaluate, make_grid, number
from vlprompt.report.sections import make_sections
from vlprompt.report.text import rows_of
from vlprompt.report.write import write_report

METHODS = ("zero-shot", "linear-probe", "coop", "plpp+coop", "maple")
Read = Callable[..., Any]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four protocols with holes: a run, a whole cell, and a data set of one method are missing."""
    root = tmp_path_factory.mktemp("page") / "bench"
    made.benchmark(root, methods=METHODS, sets=("birds", "food", "cars"), shots=(1, 4, 16), classes=6, images=60)
    shutil.rmtree(root / "few-shot" / "birds-all-4" / "coop" / "seed2")
    shutil.rmtree(root / "few-shot" / "food-all-16" / "maple")
    shutil.rmtree(root / "base-to-novel" / "cars-novel-16" / "plpp+coop")
    write_report(root)
    return root


@pytest.fixture
def read(browser: Any, bench: Path) -> Read:
    """Opens the page anew; a function that runs a script in it and returns what it returns."""
    browser.get((bench / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    return lambda script, *arguments: browser.execute_script(script, *arguments)


TABLES = """
return [...document.querySelectorAll('.part')].map((part) => [...part.querySelectorAll('[data-table]')].map((card) =>
  [card.querySelector('h3').textContent, [...card.querySelectorAll('th')].map((one) => one.textContent),
   [...card.querySelectorAll('tbody tr')].map((row) => [...row.children].map((one) => one.textContent)),
   [...card.querySelectorAll('tbody tr')].map((row) => [...row.children].map((one) => one.classList.contains('best')))]));
"""


def rows(read: Read, section: int = 0, table: int = 0) -> list[list[str]]:
    found: list[list[str]] = read(TABLES)[section][table][2]
    return found


def click(read: Read, selector: str, at: int = 0) -> None:
    read("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, at)


def method_of(read: Read, name: str) -> None:
    read(
        "[...document.querySelectorAll('#methods .chip')].find((one) => one.textContent === arguments[0]).click()", name
    )


def set_of(read: Read, name: str) -> None:
    read("[...document.querySelectorAll('#sets .chip')].find((one) => one.textContent === arguments[0]).click()", name)


def read_grid(root: Path) -> ReportGrid:
    return make_grid(contenders(gather(root)[0])[0])


def test_every_number_of_the_tables_is_the_one_that_python_computes(read: Read, bench: Path) -> None:
    found = read_grid(bench)
    seen = 0
    for section, tables in zip(make_sections(found), read(TABLES), strict=True):
        shown_rows = rows_of(found, section)
        for layout, (title, header, body, _) in zip(section.layouts, tables, strict=True):
            assert (title, header) == (layout.title, ["method", *[one.label for one in layout.columns]])
            assert [row[0] for row in body] == [found.contenders[row].name for row in shown_rows]
            for row, cells in zip(shown_rows, body, strict=True):
                for column, text in zip(layout.columns, cells[1:], strict=True):
                    value = evaluate(found, row, column)
                    if isinstance(value, Missing):
                        wanted = "missing" if value.want == 1 else f"missing ({value.have} of {value.want})"
                    else:
                        wanted = number(value.mean)
                        wanted += "" if value.deviation is None else f"\u00b1{number(value.deviation)}"
                        wanted += "2/3" if value.count == 2 else ""
                    assert text == wanted
                    seen += 1
    assert seen > 150


def test_the_best_of_a_column_is_marked_and_missing_cells_say_so(read: Read) -> None:
    title, _, body, best = read(TABLES)[0][0]
    assert title == "Average of 3 data sets"
    last = [row[-1] for row in body]
    assert last[METHODS.index("maple")] == "missing (2 of 3)"
    means = [float(text.partition("\u00b1")[0]) if "missing" not in text else -1 for text in last]
    assert [row[-1] for row in best] == [mean == max(means) for mean in means]


def test_tables_sort_both_ways_and_back_with_missing_cells_below(read: Read) -> None:
    before = rows(read)
    order = []
    for _ in range(3):
        click(read, ".part [data-table] th:last-child button")
        order.append([row[-1] for row in rows(read)])
    down, up, back = order
    assert back == [row[-1] for row in before]
    for found, sign in ((down, -1), (up, 1)):
        assert "missing" in found[-1]
        means = [sign * float(text.partition("\u00b1")[0]) for text in found[:-1]]
        assert means == sorted(means)
    click(read, ".part [data-table] th:first-child button")
    assert [row[0] for row in rows(read)] == sorted(METHODS)
    assert read("return document.querySelector('.part [data-table] th').getAttribute('aria-sort')") == "ascending"


def test_a_method_can_be_hidden_everywhere(read: Read) -> None:
    lines = "return document.querySelectorAll('.part figure g[data-m=\"2\"]').length"
    assert read(lines) > 4
    method_of(read, "coop")
    assert all("coop" not in [row[0] for row in body] for part in read(TABLES) for _, _, body, _ in part)
    assert read(lines) == 0
    click(read, "#methods .plain")
    assert read(lines) > 4


def test_averages_are_over_the_data_sets_that_are_shown(read: Read, bench: Path) -> None:
    set_of(read, "food")
    title, _, body, _ = read(TABLES)[0][0]
    assert title == "Average of 2 of 3 data sets"
    found = read_grid(bench)
    cells = [
        found.values[METHODS.index("maple"), place, "top1"]
        for place, one in enumerate(found.places)
        if (one.protocol, one.shots) == ("few-shot", 16) and one.dataset != "food"
    ]
    mean = sum(sum(one.values()) / len(one) for one in cells) / len(cells)
    assert body[METHODS.index("maple")][-1].startswith(number(mean)), "nothing is missing any more"
    assert "food" not in read("return document.getElementById('main').innerText").replace("\n", " ").split()
    set_of(read, "cars")
    assert [title for title, *_ in read(TABLES)[0]] == ["birds"]


def test_another_metric_changes_the_tables_and_calibration_error_has_no_h(read: Read) -> None:
    before = rows(read)
    choose = "const one = document.getElementById('metric'); one.value = arguments[0]; one.dispatchEvent(new Event('change'))"
    read(choose, "1")
    assert rows(read) != before
    read(choose, "4")
    parts = read(TABLES)
    assert parts[1][0][1] == ["method", "Base", "Novel"]
    body, best = parts[0][0][2:]
    errors = [float(row[1].partition("\u00b1")[0]) for row in body]
    assert [row[1] for row in best] == [error == min(errors) for error in errors]


def test_figures_of_every_kind_are_drawn(read: Read) -> None:
    titles = read("return [...document.querySelectorAll('figure h3')].map((one) => one.textContent)")
    for title in (
        "Average of 3 data sets",
        "birds",
        "All data sets",
        "OOD average",
        "Recall by class, %",
        "Reliability",
    ):
        assert title in titles
    count = "return document.querySelectorAll(arguments[0]).length"
    assert read(count, "#confusion svg rect[fill='var(--right)']") == 6
    assert read(count, "#reliability svg[role=img]") == len(METHODS)
    assert read(count, "svg.interval") > 10
    for attribute in read("return [...document.querySelectorAll('svg path')].map((one) => one.getAttribute('d'))"):
        assert "NaN" not in attribute
        assert "undefined" not in attribute


def test_classes_can_be_chosen(read: Read) -> None:
    choose = (
        "const one = document.querySelector(`#class-controls [data-view=${arguments[0]}]`);"
        "one.value = arguments[1]; one.dispatchEvent(new Event('change'))"
    )
    read(choose, "method", str(METHODS.index("coop")))
    assert read("return document.querySelector('#confusion h3').textContent") == "Confusions of coop"
    read(choose, "order", "name")
    names = read("return [...document.querySelectorAll('#recall text[text-anchor=end]')].map((one) => one.textContent)")
    classes = [name for name in names if name.startswith("birds")]
    assert classes == sorted(classes)
    assert len(classes) == 6


def test_hovering_shows_the_values(browser: Any, read: Read) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    panel = browser.find_element(By.CSS_SELECTOR, ".part figure svg")
    read("arguments[0].scrollIntoView({block: 'center'})", panel)
    ActionChains(browser).move_to_element(panel).perform()
    tip = browser.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert "4 shots" in tip.text
    assert "plpp+coop" in tip.text
    ActionChains(browser).move_to_element(browser.find_element(By.CSS_SELECTOR, ".words")).perform()
    assert not tip.is_displayed()
    ActionChains(browser).move_to_element(browser.find_element(By.CSS_SELECTOR, "#methods .chip")).perform()
    faded = "return [...document.querySelectorAll('figure [data-m]')].filter((one) => getComputedStyle(one).opacity < 0.5).length"
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert read(faded) > 10


def test_light_and_dark_follow_the_system_and_the_switch(browser: Any, read: Read) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    found = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found.append(read(background))
    light, dark = found
    assert light != dark
    click(read, "#theme")
    assert (read("return document.getElementById('theme').textContent"), read(background)) == ("\u2600 light", light)
    click(read, "#theme")
    assert read(background) == dark
    browser.refresh()
    assert read("return document.documentElement.dataset.theme") == "dark", "the choice is kept"
    click(read, "#theme")
    assert read("return document.getElementById('theme').textContent") == "\u25d0 auto"


@pytest.mark.parametrize("width", [1400, 420])
def test_nothing_sticks_out_on_a_wide_or_a_narrow_screen(browser: Any, read: Read, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.refresh()
    assert read("return document.documentElement.scrollWidth") == width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("kind", ["one run", "no predictions", "nothing measured", "odd names"])
def test_pages_of_little_are_drawn_too(browser: Any, tmp_path: Path, kind: str) -> None:
    from vlprompt.records import write

    changes: dict[str, Any] = {
        "one run": {},
        "no predictions": {"per_class": {"a": 50.0}},
        "nothing measured": {"top1": None},
    }.get(kind, {"dataset": "</script> <i>", "method": "a+b", "protocol": "mine", "shots": None})
    write(tmp_path / "run", made.record(**changes))
    write_report(tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    assert browser.get_log("browser") == []


def test_the_console_stays_empty(browser: Any, read: Read) -> None:
    for name in METHODS:
        method_of(read, name)
    click(read, "#methods .plain")
    for name in ("birds", "food", "cars"):
        set_of(read, name)
    click(read, "#sets .plain")
    for selector in (".part [data-table] th button", "#costs th button", ".differences th button"):
        click(read, selector)
    assert browser.get_log("browser") == []
