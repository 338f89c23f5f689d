"""What a browser loads: the client and the page, bundled, minified and compressed; and how soon
it shows something of the page.
"""

import gzip
import shutil
import subprocess
from pathlib import Path
from statistics import median

from playwright.async_api import Browser, async_playwright

from bench.parts import ROOT, Bench, server
from bench.rows import Row

MODULES = ROOT / "node_modules"
DIST = ROOT / "web/dist"


#: A line of JSON, which the page's server has, too: a browser shows no document sooner.
FLOOR = "config.json"
FIRST_PAINT = """() => new Promise((resolve) =>
  new PerformanceObserver((list) => {
    for (const { name, startTime } of list.getEntries()) {
      if (name === "first-contentful-paint") resolve(startTime);
    }
  }).observe({ type: "paint", buffered: true }))"""


async def measure(bench: Bench) -> list[Row]:
    client = _gzipped(ROOT / "clients/browser/src/index.ts")
    parser = _gzipped(MODULES / "eventsource-parser/dist/index.js")
    return [
        *_page(client),
        Row("clients", "browser client, gzip", client, "bytes", "its SSE parser alone", parser),
        *await _first_paint(bench),
    ]


def _page(client: int) -> list[Row]:
    subprocess.run(["node", ROOT / "web/build.mjs"], cwd=ROOT, check=True)
    sizes = {
        kind: sum(len(gzip.compress(file.read_bytes(), 9)) for file in DIST.glob(f"*.{kind}"))
        for kind in ("js", "css", "html")
    }
    whole = sum(sizes.values())
    return [
        Row("clients", "page, all of it, gzip", whole, "bytes", "its client alone", client),
        Row("clients", "page, scripts, gzip", sizes["js"], "bytes"),
        Row("clients", "page, styles, gzip", sizes["css"], "bytes"),
    ]


async def _first_paint(bench: Bench) -> list[Row]:
    path = shutil.which("chromium")
    if path is None:
        bench.say("there is no Chromium here: the first paint is left out")
        return []
    rounds = 2 if bench.quick else 11
    times: dict[str, list[float]] = {"": [], FLOOR: []}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with server(bench, "page") as serving:
            # One round more: the first waits for the server.
            for number in range(rounds + 1):
                for document, found in times.items():
                    taken = await _load(browser, f"http://127.0.0.1:{serving.port}/{document}")
                    if number:
                        found.append(taken)
        await browser.close()
    page, floor = (median(found) for found in times.values())
    what = "page, first contentful paint, nothing cached, median"
    return [Row("clients", what, page, "ms", "a line of text of its server", floor)]


async def _load(browser: Browser, url: str) -> float:
    """From the navigation to the first paint, in ms, of a browser that was never there."""
    context = await browser.new_context()
    tab = await context.new_page()
    await tab.goto(url)
    taken: float = await tab.evaluate(FIRST_PAINT)
    await context.close()
    return taken


def _gzipped(entry: Path) -> int:
    """The size of an entry's bundle, as a server sends it."""
    bundled = subprocess.run(
        [MODULES / ".bin/esbuild", entry, "--bundle", "--minify", "--format=esm"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return len(gzip.compress(bundled, 9))
