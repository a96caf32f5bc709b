"""Chromium without a screen, for the tests of pages; they skip where there is none."""

from __future__ import annotations

import shutil
from typing import Any

import pytest


def chromium(*logs: str) -> Any:
    """Return a started browser that keeps these logs, for example ``"browser"`` (the console)."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in (
        "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
