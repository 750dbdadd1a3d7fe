"""A headless Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NEEDED = "VLPROMPT_NEED_BROWSER"
"""Set where the tests of the page must not be skipped."""
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A driver with a window of 1400 x 1000 and the console's log; skips with the reason where nothing drives a browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for path in map(shutil.which, names) if path), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        reason = "no chromium and chromedriver on this machine: the report's page is not tried in a browser"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_window_size(1400, 1000)
    yield started
    started.quit()
