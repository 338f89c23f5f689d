"""What a browser loads: the client, bundled, minified and compressed."""

import gzip
import subprocess
from pathlib import Path

from bench.parts import ROOT, Bench
from bench.rows import Row

MODULES = ROOT / "node_modules"


async def measure(_: Bench) -> list[Row]:
    client = _gzipped(ROOT / "clients/browser/src/index.ts")
    parser = _gzipped(MODULES / "eventsource-parser/dist/index.js")
    return [
        Row("clients", "browser client, gzip", client, "bytes", "its SSE parser alone", parser),
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
