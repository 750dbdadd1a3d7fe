"""The page of `vlprompt serve`, in a browser, against the command itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlprompt import PromptedCLIP

pytest.importorskip("fastapi")


def until(wanted: Any, what: str) -> Any:
    """What `wanted` gives once it gives something."""
    for _ in range(600):
        try:
            if found := wanted():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(what)


@pytest.mark.slow
def test_pictures_are_dropped_classes_edited_and_ctrl_c_stops_it(browser: Any, clip_dir: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog"]).save(tmp_path / "prompt")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"http://localhost:{port}/"
    command = [sys.executable, "-m", "vlprompt", "serve", str(tmp_path / "prompt"), "--port", str(port)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: urllib.request.urlopen(f"{address}health").status == 200, "it does not answer")
        browser.get(address)
        classes = browser.find_element(By.ID, "classes")
        until(lambda: classes.get_attribute("value") == "cat\ndog", "the classes are not shown")

        def names(kind: str) -> set[str]:
            look = "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)"
            return set(browser.execute_script(look, f".{kind} .row span:first-child"))

        browser.find_element(By.ID, "files").send_keys(str(tmp_path / "red.png"))
        until(lambda: names("learned") == names("hand") == {"cat", "dog"}, "no answer is shown")
        classes.clear()
        classes.send_keys("tree\nhouse\nbird")
        browser.find_element(By.TAG_NAME, "h1").click()
        until(lambda: names("learned") == names("hand") == {"tree", "house", "bird"}, "other classes are not asked")
        classes.clear()
        classes.send_keys("tree")
        browser.find_element(By.TAG_NAME, "h1").click()
        look = "return document.querySelector('.error')?.textContent"
        until(lambda: "different class names" in (browser.execute_script(look) or ""), "no error is shown")
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode in (0, 130)
    assert "Traceback" not in said
