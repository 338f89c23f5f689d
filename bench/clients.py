"""What a browser loads: the client and the page, bundled, minified and compressed."""

import gzip
import subprocess
from pathlib import Path

from bench.parts import ROOT, Bench
from bench.rows import Row

MODULES = ROOT / "node_modules"
DIST = ROOT / "web/dist"


async def measure(_: Bench) -> list[Row]:
    client = _gzipped(ROOT / "clients/browser/src/index.ts")
    parser = _gzipped(MODULES / "eventsource-parser/dist/index.js")
    return [
        *_page(client),
        Row("clients", "browser client, gzip", client, "bytes", "its SSE parser alone", parser),
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


def _gzipped(entry: Path) -> int:
    """The size of an entry's bundle, as a server sends it."""
    bundled = subprocess.run(
        [MODULES / ".bin/esbuild", entry, "--bundle", "--minify", "--format=esm"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return len(gzip.compress(bundled, 9))
