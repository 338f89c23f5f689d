"""`sluice streams`: the newest answers; `pause` and `cancel` steer one of them."""

import time
from argparse import Namespace
from dataclasses import asdict

from sluice_client import Summary

from local.moments import span
from local.service import connected
from local.terminal import Cell, note, show_json, show_table


def streams(options: Namespace) -> int:
    with connected(options) as client:
        found = list(client.streams(options.limit))
    if options.json:
        show_json([asdict(one) for one in found])
        return 0
    now_ms = int(time.time() * 1000)
    columns = ("id", "status", "model", "age", "tokens")
    show_table(columns, [_row(one, now_ms) for one in found], gives_way="model")
    if len(found) == options.limit:
        note(f"There may be more: --limit {options.limit * 5}.")
    return 0


def _row(one: Summary, now_ms: int) -> tuple[Cell, ...]:
    age = span(max(now_ms - one.created_at, 0) // 1000)
    return one.id, one.status, one.model, age, one.usage.output_tokens if one.usage else None


def pause(options: Namespace) -> int:
    with connected(options) as client:
        standing = client.follow(options.id).pause()
    if standing.status == "paused":
        note(f"Paused. It goes on with: sluice resume {options.id}")
    else:
        note(f"It was over already: {standing.status}.")
    return 0


def cancel(options: Namespace) -> int:
    with connected(options) as client:
        standing = client.follow(options.id).cancel()
    if standing is None or standing.status in ("open", "paused", "cancelled"):
        note("Cancelled. What it said is kept.")
    else:
        note(f"It was over already: {standing.status}.")
    return 0
