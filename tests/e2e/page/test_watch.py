"""That the other tests here would see what goes wrong."""

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.local_run import LocalRun
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e

ELSEWHERE = "http://127.0.0.1:9/x.png"
POLICY = "<meta http-equiv=Content-Security-Policy content=\"img-src 'self'\">"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("console.error('broken')", "console: broken"),
        ("setTimeout(() => { throw new Error('broken') })", "script: broken"),
        ("Promise.reject(new Error('broken'))", "script: broken"),
        ("alert('stolen')", "dialog: stolen"),
        (f"fetch('{ELSEWHERE}').catch(() => 0)", f"request: GET {ELSEWHERE}"),
        (f"new Image().src = '{ELSEWHERE}'", f"request: GET {ELSEWHERE}"),
        (f"navigator.sendBeacon('{ELSEWHERE}')", f"request: POST {ELSEWHERE}"),
    ],
)
def test_what_goes_wrong_is_seen(script: str, found: str, chromium: Browser, run: LocalRun) -> None:
    with chromium.new_context(base_url=run.url) as context:
        page, watch = context.new_page(), Watch(context, run.url)
        page.goto("/config.json")
        page.evaluate(f"() => {{ {script} }}")
        wait_for(page, watch, found)
        watch.allow("broken|stolen|127.0.0.1:9/|favicon.ico")
        assert watch.found == []


def test_what_a_policy_held_back_has_gone_nowhere(context: BrowserContext, run: LocalRun) -> None:
    page, watch = context.new_page(), Watch(context, run.url)
    page.goto("/config.json")
    page.set_content(f"{POLICY}<img src={ELSEWHERE}>")
    wait_for(page, watch, "console: Loading the image")
    assert not any(seen.startswith("request: ") for seen in watch.found)


def test_what_is_well_leaves_nothing(page: Page, watch: Watch) -> None:
    page.goto("/")
    page.evaluate("fetch('/config.json').then(reply => reply.json())")
    page.wait_for_timeout(100)
    assert watch.found == []


def wait_for(page: Page, watch: Watch, found: str) -> None:
    """Return once it was seen: events come some time after what caused them."""
    for _ in range(100):
        if any(seen.startswith(found) for seen in watch.found):
            return
        page.wait_for_timeout(50)
    raise AssertionError(watch.found)
