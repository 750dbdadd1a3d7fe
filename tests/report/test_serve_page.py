"""The page of `vlprompt demo`, in a browser, against the command itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlprompt import PromptedCLIP

pytest.importorskip("fastapi")


def until(wanted: Callable[[], Any], what: str) -> Any:
    """What `wanted` gives once it gives something."""
    for _ in range(600):
        if found := wanted():
            return found
        time.sleep(0.1)
    raise AssertionError(what)


@pytest.mark.slow
def test_pictures_are_dropped_classes_edited_and_heat_maps_shown(browser: Any, clip_dir: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog"]).save(tmp_path / "prompt")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    opened = tmp_path / "opened"  # what the command opens in the browser, whose stand-in writes it down
    (tmp_path / "browser").write_text(f"#!/bin/sh\necho $1 > {opened}\n", encoding="utf-8")
    (tmp_path / "browser").chmod(0o755)
    command = [sys.executable, "-m", "vlprompt", "demo", str(tmp_path / "prompt")]
    env = {**os.environ, "BROWSER": str(tmp_path / "browser")}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)

    def look(script: str, *given: object) -> Any:
        return browser.execute_script(f"return {script}", *given)

    def names() -> list[str]:
        found: list[str] = look("[...document.querySelectorAll('.rows .name')].map(one => one.textContent)")
        return sorted(found)

    def picture() -> list[int]:
        """The size of what is shown in place of the picture, once it is loaded."""
        found: list[int] = look(
            "(one => one && one.complete && !document.querySelector('.busy') ? [one.naturalWidth, one.naturalHeight] : [])"
            "(document.querySelector('.view img'))"
        )
        return found

    def shows_error(words: str) -> None:
        until(lambda: words in (look("document.querySelector('.error')?.textContent") or ""), f"not said: {words}")

    try:
        address = until(lambda: opened.is_file() and opened.read_text(encoding="utf-8").strip(), "no browser is opened")
        browser.get(address)
        classes = browser.find_element(By.ID, "classes")
        until(lambda: classes.get_attribute("value") == "cat\ndog", "the classes are not shown")
        assert "hand-written words: “a photo of a …”" in browser.find_element(By.ID, "about").text
        browser.find_element(By.ID, "files").send_keys(str(tmp_path / "red.png"))
        until(lambda: names() == ["cat", "dog"], "no answer is shown")
        shares = look("[...document.querySelectorAll('.rows button')].map(one => one.innerText)")
        assert all(one.count(" %") == 2 for one in shares), "learned next to hand-written"
        assert picture() == [40, 30]

        browser.find_element(By.CSS_SELECTOR, ".rows button").send_keys(Keys.ENTER)  # by keyboard
        until(lambda: picture() == [512, 384], "no heat map is shown")
        learned = look("document.querySelector('.view img').src")
        assert "speaks for" in look("document.querySelector('.note').textContent")
        browser.find_element(By.CSS_SELECTOR, "[data-look=hand]").click()
        until(lambda: picture() and look("document.querySelector('.view img').src") != learned, "nothing by hand")
        browser.find_element(By.CSS_SELECTOR, "[data-look=picture]").click()
        until(lambda: picture() == [40, 30], "the picture does not come back")

        classes.clear()
        classes.send_keys("tree\nhouse\nbird")
        until(lambda: names() == ["bird", "house", "tree"], "other classes are not asked")
        classes.clear()
        classes.send_keys("tree")
        shows_error("Give 2 to 1000 different class names")
        browser.find_element(By.ID, "reset").click()
        until(lambda: names() == ["cat", "dog"], "the list does not come back")
        browser.find_element(By.CSS_SELECTOR, "[aria-label='Remove red.png']").click()
        assert not look("document.querySelector('.card')")
        browser.find_element(By.ID, "files").send_keys(str(tmp_path / "notes.png"))
        shows_error("This picture cannot be read")
        browser.set_window_size(500, 900)
        assert look("document.documentElement.scrollWidth <= innerWidth"), "it does not fit a narrow window"
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode in (0, 130)
    assert "Traceback" not in said
    assert address in said
    browser.find_element(By.ID, "files").send_keys(str(tmp_path / "red.png"))
    shows_error("The server does not answer")
