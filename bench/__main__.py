"""`scripts/bench [section …] [--quick] [--json FILE]`: measures, and prints the table."""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import clients, cold, compression, cost, cpu, followers, limits, redaction, relay
from bench.parts import Bench, bench
from bench.rows import Row, render

SECTIONS: dict[str, Callable[[Bench], Coroutine[Any, Any, list[Row]]]] = {
    "relay": relay.measure,
    "cpu": cpu.measure,
    "cold": cold.measure,
    "cost": cost.measure,
    "limits": limits.measure,
    "redaction": redaction.measure,
    "followers": followers.measure,
    "compression": compression.measure,
    "clients": clients.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    rows: list[Row] = []
    with bench(quick=options.quick) as given:
        for name in options.sections or SECTIONS:
            print(name, file=sys.stderr, flush=True)
            rows += asyncio.run(SECTIONS[name](given))
    print(render(rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": _machine(), "rows": _raw(rows)}, indent=2))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="only show that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, unrounded")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return options


def _machine() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }


def _raw(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [{**asdict(row), "ratio": row.ratio} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
