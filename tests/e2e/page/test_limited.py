"""The page of a tenant that has asked too often."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.local_run import SLUICE, LocalRun, body
from tests.e2e.page.chat import QUICK, Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e

#: So one comes back every 15 s.
STARTS = 4


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[LocalRun]:
    """A run whose tenant may start this often a minute."""
    file = str(tmp_path / "dev.db")
    with LocalRun("--db", file) as run:
        assert run.stop() == 0  # the tenant is there now
        limit = f"limits.starts_per_minute={STARTS}"
        subprocess.run([SLUICE, "tenant", "set", "demo", limit, "--db", file], check=True)
        run.start()
        yield run


def use_up(run: LocalRun) -> None:
    """Start until that is refused."""
    while run.client.post("/v1/streams", json=body(QUICK)).status_code != 429:
        pass


def test_a_limit_says_until_when_and_the_answer_comes_by_itself(
    strict: LocalRun, chromium: Browser
) -> None:
    with chromium.new_context(base_url=strict.url) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        watch = Watch(context, strict.url)
        watch.allow("429")
        chat = Chat(context.new_page(), strict)
        chat.open()
        use_up(strict)
        chat.ask("One too many", QUICK)
        chat.comes_to("Limited for [0-9]+ s")
        state = chat.page.locator("#state")
        expect(state).to_contain_text(
            f"The limit of {STARTS} questions a minute is reached. It goes on by itself."
        )
        expect(chat.page.locator("#quota")).to_contain_text(
            re.compile("Questions a minute.*0 left")
        )
        chat.comes_to("Complete")
        chat.is_whole()
        assert watch.found == []
