"""Chromium sees each compressed event when it is sent, and not when more have come."""

import pytest
from playwright.sync_api import Page

from tests.e2e.local_run import HEADERS, LocalRun

pytestmark = pytest.mark.e2e

#: After its first words the model is silent, so that nothing more comes which could push those out.
SILENT = "demo?tokens=20&rate=0&silence_after=10&silence=8"

WITH_FETCH = """async ([path, authorization]) => {
  const reply = await fetch(path, { headers: { authorization } });
  const text = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  while (!seen.includes("event: chunk")) seen += (await text.read()).value;
  text.cancel();
}"""
WITH_EVENT_SOURCE = """([path]) => new Promise((resolve) => {
  const source = new EventSource(path);
  source.addEventListener("chunk", () => resolve(source.close()));
})"""


@pytest.mark.parametrize("script", [WITH_FETCH, WITH_EVENT_SOURCE], ids=["fetch", "EventSource"])
def test_each_event_is_read_when_it_is_sent(script: str, page: Page, run: LocalRun) -> None:
    page.goto("/")
    stream = run.begin(SILENT)
    ticket = run.client.post(f"/v1/streams/{stream}/ticket").json()["ticket"]
    with page.expect_response("**/events?*") as answered:
        page.evaluate(
            script, [f"/v1/streams/{stream}/events?ticket={ticket}", HEADERS["Authorization"]]
        )
    status = run.client.get(f"/v1/streams/{stream}").json()["status"]
    assert answered.value.headers["content-encoding"] == "gzip"
    assert status == "open"
