"""`sluice key`."""

import asyncio
import re

import pytest

from shared.administration import Administration
from shared.identity.keys import Key, Keys
from tests.local.conftest import Operator

KEY = "sk_0123456789abcdef"
NEW = re.compile(r"sk_([0-9a-f]{8})_[\w-]{43}")


def find(sluice: Operator, key: str) -> Key:
    found = asyncio.run(Keys(sluice.store).find(key))
    assert found
    return found


def test_a_new_key_is_printed_once_and_alone(sluice: Operator) -> None:
    said = sluice.done("key", "add", "acme")
    match = NEW.fullmatch(said.out.strip())
    assert match
    assert said.err == (
        "There was no tenant acme: it is made with the defaults.\n"
        f"A key of the tenant acme (id {match[1]}; scopes read, stream); it is not shown again:\n"
    )
    key = find(sluice, match[0])
    assert (key.tenant, key.id, set(key.scopes)) == ("acme", match[1], {"read", "stream"})
    assert (key.user, key.valid_until, key.label) == (None, None, "")
    assert match[0] not in str(sluice.store.items)
    again = sluice.done("key", "add", "acme")
    assert again.out != said.out
    assert "There was no tenant" not in again.err


def test_what_a_key_may_do(sluice: Operator) -> None:
    options = ("--scope", "read,admin", "--user", "ann", "--label", "for ann")
    said = sluice.done("key", "add", "acme", *options, "--expires", "2999-01-31")
    assert "scopes admin, read; user ann; until 2999-01-31 00:00)" in said.err
    key = find(sluice, said.out.strip())
    assert (set(key.scopes), key.user, key.label) == ({"read", "admin"}, "ann", "for ann")
    assert key.valid_until
    listed = sluice.done("key", "list", "acme", "--json").json["keys"]
    assert listed == [
        {
            "id": key.id,
            "label": "for ann",
            "scopes": ["admin", "read"],
            "user": "ann",
            "created_at": key.created_at * 1000,
            "expires_at": key.valid_until * 1000,
            "revoked_at": None,
            "state": "active",
        }
    ]


def test_a_key_of_ones_own_may_be_given_again(sluice: Operator) -> None:
    for _ in range(2):
        assert sluice.key("acme", "--key", KEY) == KEY
    before = dict(sluice.store.items)
    other_scope = sluice("key", "add", "acme", "--key", KEY, "--scope", "read")
    assert "with another scope, user, end or label" in other_scope.err
    taken = sluice("key", "add", "other", "--key", KEY)
    assert (taken.code, taken.err) == (1, "sluice: this key is another tenant's already\n")
    assert sluice.store.items == before
    sluice.done("key", "revoke", "acme", find(sluice, KEY).id)
    assert "this key is revoked" in sluice("key", "add", "acme", "--key", KEY).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Acme Inc"], "a tenant's name has 1 to 63 of a-z"),
        (["acme", "--key", "short"], "a key has 16 to 200 printable ASCII"),
        (["acme", "--key", "one two three four"], "and no space"),
        (["acme", "--key", "looks.like.a-token"], "would be taken for a JSON Web Token"),
        (["acme", "--user", ""], "a user has 1 to 128 characters"),
        (["acme", "--user", "a\nb"], "without control characters"),
        (["acme", "--label", "x" * 101], "a label has at most 100 characters"),
    ],
)
def test_what_cannot_be_makes_no_tenant(sluice: Operator, arguments: list[str], said: str) -> None:
    failed = sluice("key", "add", *arguments)
    assert failed.code == 1
    assert said in failed.err
    assert not sluice.store.items


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scope", "write"], "scopes are some of stream,read,admin"),
        (["--scope", ""], "scopes are some of stream,read,admin"),
        (["--expires", "2020-01-01"], "2020-01-01 is over already"),
        (["--expires", "soon"], "a span like 90m"),
    ],
)
def test_misuse_is_code_2(sluice: Operator, arguments: list[str], said: str) -> None:
    failed = sluice("key", "add", "acme", *arguments)
    assert failed.code == 2
    assert said in failed.err


def test_the_list(sluice: Operator) -> None:
    sluice.done("tenant", "add", "acme")
    assert "acme has no key" in sluice.done("key", "list", "acme").out
    ids = [sluice.key("acme", "--label", label).split("_")[1] for label in ("a", "b")]
    over = Key("acme", "0ld", created_at=1, valid_until=2, label="\x1b[31mred")
    asyncio.run(Administration(sluice.store).add_key(KEY, over))
    sluice.done("key", "revoke", "acme", ids[0])
    titles, *rows = sluice.done("key", "list", "acme").rows
    assert titles == ["id", "label", "scopes", "user", "made", "expires", "state"]
    assert rows[0][:2] == ["0ld", r"\x1b[31mred"]
    assert rows[0][-1] == "expired"
    states = {row[0]: row[5:] for row in rows[1:]}
    assert states == {ids[0]: ["never", "revoked"], ids[1]: ["never", "active"]}


def test_revoke(sluice: Operator) -> None:
    key = sluice.key("acme")
    key_id = find(sluice, key).id
    # As the audit names it.
    said = sluice.done("key", "revoke", "acme", f"key:{key_id}")
    assert said.out == f"The key {key_id} of the tenant acme is revoked: everywhere within 30 s.\n"
    assert find(sluice, key).revoked_at
    unknown = sluice("key", "revoke", "acme", "00000000")
    assert unknown.err == "sluice: the tenant acme has no key 00000000\n"
    events = [row[3] for row in sluice.done("audit", "show", "acme").rows[1:]]
    assert events == ["tenant-added", "key-made", "key-revoked"]
