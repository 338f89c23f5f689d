"""A page whose readers have keys of their own, as a deployment's."""

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.local_run import LocalRun
from tests.e2e.page.chat import Chat
from tests.e2e.page.watch import Watch

pytestmark = pytest.mark.e2e

CONFIG = {"local": False, "key": None, "models": ["demo"], "bodyHash": False}


@pytest.fixture
def closed(page: Page, run: LocalRun, watch: Watch) -> Chat:
    """The page with the configuration of a deployment, which has no key for everybody."""
    watch.allow("401")
    page.route("**/config.json", lambda route: route.fulfill(json=CONFIG))
    page.goto("/")
    return Chat(page, run)


def sign_in(chat: Chat, key: str, *, remember: bool = False) -> None:
    dialog = chat.page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill(key)
    dialog.get_by_label("Remember on this device").set_checked(remember)
    with chat.page.expect_navigation():
        dialog.get_by_role("button", name="Sign in").click()


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(closed: Chat) -> None:
    expect(closed.page.get_by_role("dialog")).to_contain_text("You need a key")
    sign_in(closed, "demo")
    closed.ask("May I?")
    closed.comes_to("Complete")
    assert closed.page.evaluate("localStorage.length") == 0
    expect(closed.button("Kill the producer")).to_have_count(0)


def test_a_wrong_key_is_told_and_another_asked_for(closed: Chat) -> None:
    sign_in(closed, "not-a-key")
    expect(closed.page.get_by_role("dialog")).to_contain_text("not valid")
    sign_in(closed, "demo")
    closed.ask("And now?")
    closed.comes_to("Complete")


def test_a_remembered_key_is_there_in_another_tab_until_signed_out(
    closed: Chat, run: LocalRun
) -> None:
    sign_in(closed, "demo", remember=True)
    other = closed.page.context.new_page()
    other.route("**/config.json", lambda route: route.fulfill(json=CONFIG))
    tab = Chat(other, run)
    tab.open()
    tab.ask("Do you know me?")
    tab.comes_to("Complete")
    with other.expect_navigation(wait_until="load"):
        tab.button("Sign out").click()
    expect(other.get_by_role("dialog")).to_contain_text("You need a key")
    assert other.evaluate("localStorage.length + sessionStorage.length") == 0
