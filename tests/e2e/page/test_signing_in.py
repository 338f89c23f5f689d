"""A page whose readers have keys of their own, as a deployment's."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.local_run import LocalRun
from tests.e2e.page.chat import QUICK, SLOW, Chat
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
    dialog.get_by_role("button", name="Sign in").click()


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(closed: Chat) -> None:
    expect(closed.page.get_by_role("dialog")).to_contain_text("You need a key")
    sign_in(closed, "demo")
    closed.ask("May I?")
    closed.comes_to("Complete")
    assert closed.page.evaluate("localStorage.length") == 0
    expect(closed.button("Kill the producer")).to_have_count(0)


def test_there_is_no_way_around_the_key(closed: Chat) -> None:
    dialog = closed.page.get_by_role("dialog")
    for _ in range(3):  # a browser lets a page hold back only the first
        closed.page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill("two words")  # no header carries what follows
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_visible()
    sign_in(closed, " demo ")
    closed.ask("May I, now?")
    closed.comes_to("Complete")


def test_a_browser_that_keeps_nothing_asks_once(page: Page, run: LocalRun) -> None:
    page.add_init_script(
        """for (const name of ["sessionStorage", "localStorage"])
          Object.defineProperty(window, name, { get() { throw new DOMException("no"); } });"""
    )
    page.route("**/config.json", lambda route: route.fulfill(json=CONFIG))
    page.goto("/")
    chat = Chat(page, run)
    sign_in(chat, "demo", remember=True)
    chat.ask("Do you forget me?")
    chat.comes_to("Complete")


def test_a_key_that_ends_is_replaced_and_what_was_asked_goes_on(closed: Chat) -> None:
    valid = {"Bearer first": True, "Bearer second": True}

    def door(route: Route) -> None:
        headers = route.request.headers
        if valid.get(headers.get("authorization", "")):
            route.continue_(headers={**headers, "authorization": "Bearer demo"})
        else:
            route.fulfill(status=401, json={"type": "urn:sluice:problem:unauthenticated"})

    closed.page.route("**/v1/**", door)
    sign_in(closed, "first")
    closed.ask("Before", QUICK)
    closed.comes_to("Complete")
    valid["Bearer first"] = False
    closed.ask("Behind", QUICK)
    closed.comes_to("Signed out")
    closed.page.fill("#question", "Half a question")
    closed.button("Enter a key").click()
    sign_in(closed, "second")
    closed.comes_to("Complete")
    expect(closed.page.locator(".question")).to_have_text(["Before", "Behind"])
    expect(closed.page.locator("#question")).to_have_value("Half a question")


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not-begun"])
def test_signing_out_in_mid_answer_leaves_nothing_for_who_comes_next(
    closed: Chat, *, begun: bool
) -> None:
    sign_in(closed, "demo")
    if not begun:
        closed.page.route("**/v1/streams", lambda _: None)  # nobody answers
    closed.ask("A secret", SLOW)
    if begun:
        closed.says_something()
    with closed.page.expect_navigation(wait_until="load"):
        closed.button("Sign out").click()
    expect(closed.page.get_by_role("dialog")).to_contain_text("You need a key")
    assert closed.page.evaluate("localStorage.length + sessionStorage.length") == 0
    sign_in(closed, "demo")
    expect(closed.page.locator("#empty")).to_be_visible()
    expect(closed.turns).to_have_count(0)


def test_who_signs_out_does_so_in_each_tab_that_has_the_key(closed: Chat, run: LocalRun) -> None:
    sign_in(closed, "demo", remember=True)
    closed.ask("A secret", SLOW)
    closed.says_something()
    other = closed.page.context.new_page()
    other.route("**/config.json", lambda route: route.fulfill(json=CONFIG))
    tab = Chat(other, run)
    tab.open()
    tab.button("Sign out").click()
    expect(closed.page.get_by_role("dialog")).to_contain_text("You need a key")
    expect(closed.turns).to_have_count(0)
    assert closed.page.evaluate("localStorage.length + sessionStorage.length") == 0


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
