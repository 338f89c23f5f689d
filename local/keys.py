"""`sluice key`: what a tenant's programs show with each request."""

import sys
import time
from argparse import Namespace
from dataclasses import replace

from local.errors import Failed
from local.lookup import known
from local.moments import shown as moment
from local.terminal import Cell, note, show_json, show_table
from local.where import Place, run
from shared.administration import Administration
from shared.errors import NotFound
from shared.identity.keys import DEFAULT_SCOPES, KEY_CHARS_MAX, Key, Keys, id_of, new_key
from shared.identity.tokens import is_token
from shared.tenants import is_tenant

#: A key is stored after one round of SHA-256 only, so it must not be one that can be guessed.
KEY_CHARS_MIN = 16


def add(options: Namespace) -> int:
    key = options.key or new_key()[0]
    check(options.tenant, key)
    about = Key(
        tenant=options.tenant,
        id=id_of(key),
        scopes=options.scope or DEFAULT_SCOPES,
        user=options.user,
        label=options.label,
        created_at=int(time.time()),
        valid_until=options.expires // 1000 if options.expires else None,
    )

    async def work(place: Place) -> int:
        administration = Administration(place.store)
        if held := await Keys(place.store).find(key):
            _compare(held, about)
        else:
            try:
                await administration.add_key(key, about)
            except NotFound:
                await administration.add_tenant(about.tenant, {})
                note(f"There was no tenant {about.tenant}: it is made with the defaults.")
                await administration.add_key(key, about)
        _tell(about)
        print(key)
        return 0

    return run(options, work, make=True)


def listed(options: Namespace) -> int:
    async def work(place: Place) -> int:
        tenant = await known(place, options.tenant)
        keys = await Keys(place.store).of(tenant.name)
        if options.json:
            show_json({"keys": [_encode(key) for key in keys]})
        elif keys:
            columns = ("id", "label", "scopes", "user", "made", "expires", "state")
            show_table(columns, [_row(key) for key in keys])
        else:
            print(f"The tenant {tenant.name} has no key: `sluice key add {tenant.name}` makes one.")
        return 0

    return run(options, work)


def revoke(options: Namespace) -> int:
    # As the audit names it, too.
    key_id = options.id.removeprefix("key:")

    async def work(place: Place) -> int:
        tenant = await known(place, options.tenant)
        await Administration(place.store).revoke_key(tenant.name, key_id)
        print(f"The key {key_id} of the tenant {tenant.name} is revoked: everywhere within 30 s.")
        return 0

    return run(options, work)


def check(tenant: str, key: str) -> None:
    """Raises `Failed` for a tenant's name or a key that no request could use."""
    if not is_tenant(tenant):
        raise Failed(
            "a tenant's name has 1 to 63 of a-z, 0-9 and the hyphen, and does not begin with one"
        )
    sound = key.isascii() and key.isprintable() and " " not in key
    if not (sound and KEY_CHARS_MIN <= len(key) <= KEY_CHARS_MAX):
        raise Failed(
            f"a key has {KEY_CHARS_MIN} to {KEY_CHARS_MAX} printable ASCII characters and no space"
        )
    if is_token(key):
        raise Failed("a key with two dots would be taken for a JSON Web Token")


def is_good(key: Key) -> bool:
    return _state(key) == "active"


def _compare(held: Key, about: Key) -> None:
    """Giving a key twice is well, where it is the same."""
    if held.tenant != about.tenant:
        raise Failed("this key is another tenant's already")
    if not is_good(held):
        raise Failed(f"this key is {_state(held)}: take another one")
    if replace(held, created_at=about.created_at) != about:
        raise Failed("the tenant has this key already, but with another scope, user, end or label")


def _tell(about: Key) -> None:
    """All but the key itself, which stands alone on standard output."""
    parts = [f"id {about.id}", f"scopes {_scopes(about)}"]
    if about.user is not None:
        parts.append(f"user {about.user}")
    if about.valid_until is not None:
        parts.append(f"until {moment(about.valid_until * 1000)}")
    print(
        f"A key of the tenant {about.tenant} ({'; '.join(parts)}); it is not shown again:",
        file=sys.stderr,
    )


def _row(key: Key) -> tuple[Cell, ...]:
    expires = moment(key.valid_until * 1000) if key.valid_until else "never"
    made = moment(key.created_at * 1000) if key.created_at else None
    return (key.id, key.label, _scopes(key), key.user, made, expires, _state(key))


def _encode(key: Key) -> dict[str, object]:
    """A key as JSON shows it; times are in ms since 1970."""

    def ms(seconds: int | None) -> int | None:
        return seconds * 1000 if seconds else None

    return {
        "id": key.id,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "user": key.user,
        "created_at": ms(key.created_at),
        "expires_at": ms(key.valid_until),
        "revoked_at": ms(key.revoked_at),
        "state": _state(key),
    }


def _scopes(key: Key) -> str:
    return ", ".join(sorted(key.scopes))


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    over = key.valid_until is not None and key.valid_until <= time.time()
    return "expired" if over else "active"
