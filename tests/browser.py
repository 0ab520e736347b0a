"""Headless Chromium for tests of pages: Debian's, with software WebGL, so that no GPU is needed."""

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
)

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1000,700",
]


class Page:
    """An HTML file, opened in Chromium."""

    def __init__(self, driver, path: Path):
        self.driver = driver
        self.path = path
        driver.get(path.as_uri())

    def run(self, script: str):
        """Evaluate a JavaScript expression; waits if it is a promise."""
        answer = self.driver.execute_async_script(
            f"const done = arguments[0]; (async () => ({script}))().then((value) => done([value]), (e) => done(String(e)));"
        )
        assert isinstance(answer, list), answer
        return answer[0]

    def wait_for(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"{condition}: not within {seconds} s\n{self.messages()}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.run(f"window.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(key)}, cancelable: true}}))")

    def picture(self, selector: str) -> np.ndarray:
        """Screenshot of an element and everything above it: ``(rows, columns, 3)``, from 0 to 1."""
        return _pixels(self.driver.find_element("css selector", selector).screenshot_as_png)[..., :3]

    def canvas(self, selector: str) -> np.ndarray:
        """Content of a 2D canvas: ``(rows, columns, 4)``, from 0 to 1."""
        url = self.run(f"document.querySelector({json.dumps(selector)}).toDataURL()")
        return _pixels(base64.b64decode(url.partition(",")[2]))

    def messages(self) -> list[str]:
        """Messages in the console since the last call, including warnings and errors of the browser."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses requested since the last call, except the page itself and data inside it."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        addresses = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in addresses if url != self.path.as_uri() and not url.startswith(("data:", "blob:"))]


@contextmanager
def opened(path: Path, started: Callable[[], object] = lambda: None) -> Iterator[Page]:
    """Open an HTML file, and close the browser at the end; `started` is called before the browser loads the file."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER, env={**os.environ, "SE_OFFLINE": "true"}))
    try:
        driver.set_script_timeout(60)
        started()
        yield Page(driver, path)
    finally:
        driver.quit()


def _pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png), format="png")
