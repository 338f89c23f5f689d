"""The page in Debian's Chromium.

These tests are plain functions: Playwright's synchronous API keeps an event loop running in their
thread, until the last of them is over.
"""

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.local_run import LocalRun
from tests.e2e.page.watch import Watch

_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_REPORT] = report
    return report


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser, started once."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, run: LocalRun) -> Iterator[BrowserContext]:
    """A browser that has never been here before, where `/` is the page of the local run."""
    context = chromium.new_context(base_url=run.url)
    yield context
    context.close()


@pytest.fixture
def watch(
    context: BrowserContext, run: LocalRun, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Watch]:
    """What the browser complains of, which fails the test at its end, but for what it allows.

    Where a test fails, each of its tabs is kept as a picture.
    """
    watch = Watch(context, run.url)
    yield watch
    report = request.node.stash.get(_REPORT, None)
    if watch.found or (report and report.failed):
        for number, tab in enumerate(context.pages):
            picture = tmp_path / f"tab-{number}.png"
            tab.screenshot(path=picture)
            print(f"{tab.url} looked like {picture}")
    assert not watch.found, "\n".join(watch.found)


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Page:
    """An empty tab."""
    return context.new_page()
