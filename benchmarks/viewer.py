"""How long viewers take to open: from the request of the file until the images are shown, in Chromium with software WebGL.

The arguments are the pages to open; without any, those of all experiments in ``results`` are opened.
"""

import sys
import time
from pathlib import Path

import pandas as pd
from browser import CHROMIUM, DRIVER, opened
from harness import save

RESULTS = Path(__file__).parents[1] / "results"
REPEATS = 5


def seconds_to_open(path: Path) -> float:
    """Seconds until a page is ready, in a fresh browser; its start is not counted."""
    begun = time.perf_counter()

    def started() -> None:
        nonlocal begun
        begun = time.perf_counter()

    with opened(path, started) as page:
        page.wait_for("document.body.dataset.ready === 'true'")
        return time.perf_counter() - begun


if __name__ == "__main__":
    pages = [Path(name).resolve() for name in sys.argv[1:]] or sorted(RESULTS.glob("*/viewers/*.html"))
    if not (CHROMIUM and DRIVER and pages):
        print("viewer: left out, found no chromium, no chromedriver or no viewers in results")
        sys.exit()
    rows = []
    for page in pages:
        seconds = pd.Series([seconds_to_open(page) for _ in range(REPEATS)])
        facts = {"seconds": seconds.median(), "fastest": seconds.min(), "slowest": seconds.max()}
        rows.append({"way": f"{page.parent.parent.name}/{page.name}", **facts, "megabytes": page.stat().st_size / 1e6})
    save("viewer", pd.DataFrame(rows))
