"""Chromium without a screen, for the tests of pages; they skip where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
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


def printed_pages(page: Path) -> int:
    """Return on how many pages a file is printed."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    printed = page.with_suffix(".pdf")
    subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--print-to-pdf={printed}",
         f"--user-data-dir={page.parent / 'profile'}", page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return len(re.findall(rb"/Type /Page\b", printed.read_bytes()))
