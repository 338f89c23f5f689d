"""What a page's main thread does, as Chromium's own trace tells it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page


@dataclass
class Work:
    """Known once the trace has ended. Times are of the processor, in ms: what else is at work on
    the machine does not stretch them. The first second is counted in none of it.
    """

    longest_task: int = 0
    all_tasks: int = 0
    paints: int = 0


@contextmanager
def traced(page: Page) -> Iterator[Work]:
    """Trace the page while the block runs."""
    browser = page.context.browser
    assert browser
    work = Work()
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    try:
        yield work
    finally:
        events = json.loads(browser.stop_tracing())["traceEvents"]
    mine = list(_of_main_thread(events))
    tasks = [event["tdur"] for event in mine if event["name"].endswith("::RunTask")]
    assert tasks
    work.longest_task = max(tasks) // 1000
    work.all_tasks = sum(tasks) // 1000
    work.paints = sum(event["name"] == "Paint" for event in mine)


def _of_main_thread(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Its events that took time, from a second after the first one on."""
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    timed = [e for e in events if "tdur" in e and (e["pid"], e["tid"]) in threads]
    first = min(event["ts"] for event in timed)
    return (event for event in timed if event["ts"] > first + 1_000_000)
