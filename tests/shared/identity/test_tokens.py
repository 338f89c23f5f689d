"""JSON Web Tokens: whose they are, and that nothing but a whole, true, current one is taken."""

import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest, Unauthenticated, Unavailable
from shared.identity import ADMIN, READ, SCOPES, STREAM, Identity
from shared.identity.jwks import FRESH_S, UNKNOWN_S, fetch
from shared.identity.tokens import (
    ALGORITHMS,
    HEADER_CHARS_MAX,
    ISSUER_CHARS_MAX,
    LEEWAY_S,
    TIME_MAX,
    TOKEN_CHARS_MAX,
    USER_CHARS_MAX,
    Issuer,
    Tokens,
    is_token,
)
from tests.clock import Clock
from tests.shared.identity.issuer import AUDIENCE, LocalIssuer, base64url, encode, make_key

ROOT = Path(__file__).parents[3]
NOW = 1_800_000_000
NAME = "https://issuer.example/"
JWKS_URL = "https://issuer.example/keys"
KEYS = {algorithm: make_key(algorithm) for algorithm in ALGORITHMS}
CLAIMS: Mapping[str, Any] = {
    "iss": NAME,
    "aud": AUDIENCE,
    "sub": "ada",
    "iat": NOW,
    "exp": NOW + 300,
}
TRUST = Issuer(NAME, JWKS_URL, AUDIENCE)
EC = KEYS["ES256"]


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a claim that is None is left out."""
    return {name: value for name, value in ({**CLAIMS, **changes}).items() if value is not None}


class Table:
    """What tenants trust, and what issuers show; counts who was asked for."""

    def __init__(self, **trust: Issuer) -> None:
        self.trust = trust
        self.asked: list[str] = []
        self.sets = {JWKS_URL: [key.jwk() for key in KEYS.values()]}

    async def issuers(self, name: str) -> dict[str, Issuer]:
        self.asked.append(name)
        return {tenant: i for tenant, i in self.trust.items() if i.issuer == name}

    async def fetch(self, url: str) -> bytes:
        return json.dumps({"keys": self.sets[url]}).encode()

    def tokens(self) -> Tokens:
        return Tokens(self.issuers, fetch=self.fetch, clock=lambda: 0.0, now=lambda: NOW)


@pytest.fixture
def tokens() -> Tokens:
    return Table(acme=TRUST).tokens()


async def refusal(tokens: Tokens, token: str) -> str:
    """Why a token is refused; nothing of the token itself may be shown."""
    with pytest.raises(Unauthenticated) as refused:
        await tokens.identify(token)
    shown = json.dumps(refused.value.problem())
    assert not any(part in shown for part in token.split(".") if len(part) > 20)
    assert "ada" not in shown
    return refused.value.detail


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_names_its_tenant_and_user(tokens: Tokens, algorithm: str) -> None:
    assert await tokens.identify(KEYS[algorithm].sign(claims())) == Identity(
        tenant="acme",
        user="ada",
        scopes=frozenset({STREAM, READ}),
        credential="jwt:" + hashlib.sha256(NAME.encode()).hexdigest()[:12],
        expires_at=NOW + 300,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_any_changed_bit_is_refused(tokens: Tokens, algorithm: str) -> None:
    token = KEYS[algorithm].sign(claims()).encode()
    await tokens.identify(token.decode())
    for place in range(len(token)):
        for bit in range(8):
            changed = bytearray(token)
            changed[place] ^= 1 << bit
            with pytest.raises(Unauthenticated):
                await tokens.identify(changed.decode("latin-1"))


TOKEN = EC.sign(claims())
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")


@settings(deadline=None)
@given(st.integers(0, len(TOKEN)), st.integers(1, 20), st.text(max_size=20))
async def test_any_other_change_is_refused(place: int, removed: int, inserted: str) -> None:
    changed = TOKEN[:place] + inserted + TOKEN[place + removed :]
    if changed != TOKEN:
        await refusal(Table(acme=TRUST).tokens(), changed)


@settings(deadline=None)
@given(st.text())
async def test_what_is_no_token_is_refused(text: str) -> None:
    await refusal(Table(acme=TRUST).tokens(), text)


async def test_parts_of_two_tokens_make_none(tokens: Tokens) -> None:
    other = EC.sign(claims(sub="bob"), typ="at+jwt").split(".")
    assert (await tokens.identify(".".join(other))).user == "bob"
    for place in range(3):
        mixed = TOKEN.split(".")
        mixed[place] = other[place]
        assert "signature" in await refusal(tokens, ".".join(mixed))


@pytest.mark.parametrize(
    "spelling",
    [
        f"{TOKEN}==",
        f"{TOKEN}=",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{TOKEN}!!!!",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE[:10]}\r\n{SIGNATURE[10:]}",
        f"{HEADER}==.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}=.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.",
        f".{HEADER}.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}..{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.",
    ],
)
async def test_a_token_has_one_spelling(tokens: Tokens, spelling: str) -> None:
    await refusal(tokens, spelling)


async def test_the_standard_alphabet_is_not_base64url(tokens: Tokens) -> None:
    for number in range(100):
        token = EC.sign(claims(jti=str(number)))
        plain = token.replace("-", "+").replace("_", "/")
        if plain != token:
            await refusal(tokens, plain)


# Algorithms and keys.


async def test_no_signature_is_no_token(tokens: Tokens) -> None:
    for name in ("none", "None", "NONE", "nOnE", ""):
        for signature in ("", SIGNATURE):
            header = encode({"alg": name, "typ": "JWT", "kid": "1"})
            assert "algorithm" in await refusal(tokens, f"{header}.{PAYLOAD}.{signature}")


async def test_a_public_key_is_no_secret(tokens: Tokens) -> None:
    """The classic: a server that takes HS256 would take its own public key for the secret."""
    for key in KEYS.values():
        public = key.private.public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(key.jwk()).encode(),
            b"",
        ]
        for secret in secrets:
            for name, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
                signed = f"{encode({'alg': name, 'kid': '1'})}.{PAYLOAD}"
                signature = hmac.digest(secret, signed.encode(), digest)
                assert "algorithm" in await refusal(tokens, f"{signed}.{base64url(signature)}")


@pytest.mark.parametrize(
    "name", ["RS384", "RS512", "PS256", "ES384", "ES256K", "Ed25519", "rs256", 5, ["ES256"], {}]
)
async def test_other_algorithms_are_refused(tokens: Tokens, name: Any) -> None:
    for key in KEYS.values():
        assert "algorithm" in await refusal(tokens, key.sign(claims(), alg=name))


async def test_a_header_without_an_algorithm_is_refused(tokens: Tokens) -> None:
    assert "algorithm" in await refusal(tokens, EC.sign(claims(), alg=None))


async def test_a_key_is_for_its_own_algorithm_only() -> None:
    """A token that says another algorithm than its key's, where the set holds that key alone."""
    for key in KEYS.values():
        table = Table(acme=TRUST)
        table.sets[JWKS_URL] = [key.jwk(alg=None)]
        for name in ALGORITHMS:
            token = key.sign(claims(), alg=name)
            if name == key.algorithm:
                await table.tokens().identify(token)
            else:
                assert "key" in await refusal(table.tokens(), token)


async def test_a_tenant_may_take_fewer_algorithms() -> None:
    table = Table(acme=Issuer(NAME, JWKS_URL, AUDIENCE, algorithms=("EdDSA",)))
    await table.tokens().identify(KEYS["EdDSA"].sign(claims()))
    assert "algorithm" in await refusal(table.tokens(), TOKEN)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_key_of_the_same_name_that_is_not_the_issuers_is_refused(
    tokens: Tokens, algorithm: str
) -> None:
    stranger = make_key(algorithm, "stranger")
    assert "signature" in await refusal(tokens, stranger.sign(claims(), kid="1"))
    assert "key" in await refusal(tokens, stranger.sign(claims()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_keys_that_a_token_brings_along_are_never_used(
    tokens: Tokens, algorithm: str
) -> None:
    stranger = make_key(algorithm, "stranger")
    with LocalIssuer(stranger) as attacker:
        brought = {
            "jwk": stranger.jwk(),
            "jku": attacker.jwks_url,
            "x5u": attacker.jwks_url,
            "x5c": ["AAAA"],
        }
        for kid in ("stranger", "1", None, attacker.jwks_url, "../../dev/null", "' OR 1=1"):
            await refusal(tokens, stranger.sign(claims(), **{**brought, "kid": kid}))
        good = KEYS[algorithm].sign(claims(), jwk=stranger.jwk(), jku=attacker.jwks_url)
        assert (await tokens.identify(good)).user == "ada"
        assert attacker.requests == 0


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False},
        {"kid": 1},
        {"kid": ["1"]},
        {"kid": ""},
        {"kid": "x" * 257},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": ""},
        {"typ": 1},
        {"cty": "JWT", "x5c": ["A" * HEADER_CHARS_MAX]},
    ],
)
async def test_headers_that_are_not_taken(tokens: Tokens, header: dict[str, Any]) -> None:
    await refusal(tokens, EC.sign(claims(), **header))


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+JWT"])
async def test_types_that_are_taken(tokens: Tokens, kind: str | None) -> None:
    assert (await tokens.identify(EC.sign(claims(), typ=kind))).user == "ada"


async def test_a_token_that_names_no_key_needs_a_set_without_a_choice(tokens: Tokens) -> None:
    assert (await tokens.identify(EC.sign(claims(), kid=None))).user == "ada"
    table = Table(acme=TRUST)
    table.sets[JWKS_URL] += [make_key("ES256", "2").jwk()]
    assert "key" in await refusal(table.tokens(), EC.sign(claims(), kid=None))


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"a"', b"{", b"", b"\xff", b"[" * 4000])
async def test_what_is_no_object_is_no_part_of_a_token(tokens: Tokens, raw: bytes) -> None:
    await refusal(tokens, f"{base64url(raw)}.{PAYLOAD}.{SIGNATURE}")
    signed = f"{HEADER}.{base64url(raw)}"
    await refusal(tokens, f"{signed}.{SIGNATURE}")


async def test_the_length_of_a_token_is_bounded(tokens: Tokens) -> None:
    fill = TOKEN_CHARS_MAX * 3 // 4 - len(TOKEN)
    token = EC.sign(claims(fill="x" * fill))
    assert TOKEN_CHARS_MAX - 100 < len(token) <= TOKEN_CHARS_MAX
    await tokens.identify(token)
    assert "longer than 8192" in await refusal(tokens, EC.sign(claims(fill="x" * (fill + 100))))


# Claims.


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp"])
async def test_a_claim_that_must_be_there(tokens: Tokens, name: str) -> None:
    await refusal(tokens, EC.sign(claims(**{name: None})))


@pytest.mark.parametrize("value", [NOW + 1, NOW + 0.5, TIME_MAX])
async def test_a_token_that_is_not_over(tokens: Tokens, value: float) -> None:
    if value > NOW + 0.5:
        assert (await tokens.identify(EC.sign(claims(exp=value)))).expires_at == value
    else:  # it is over in the second that has begun
        assert "expired" in await refusal(tokens, EC.sign(claims(exp=value)))


@pytest.mark.parametrize("value", [NOW, NOW - 1, 0])
async def test_an_expiry_has_no_leeway(tokens: Tokens, value: int) -> None:
    assert "expired" in await refusal(tokens, EC.sign(claims(exp=value)))


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_an_issuers_clock_may_be_ahead_a_little(tokens: Tokens, name: str) -> None:
    await tokens.identify(EC.sign(claims(**{name: NOW + LEEWAY_S})))
    late = EC.sign(claims(**{name: NOW + LEEWAY_S + 1}))
    assert f"not valid yet, by its `{name}`" in await refusal(tokens, late)
    await tokens.identify(EC.sign(claims(iat=None)))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [True, str(NOW + 60), [NOW + 60], {}, -1, TIME_MAX + 1, 10**4000]
    + [float(said) for said in ("inf", "-inf", "nan")],
)
async def test_a_time_is_a_number_in_bounds(tokens: Tokens, name: str, value: Any) -> None:
    assert f"`{name}` must be a time" in await refusal(tokens, EC.sign(claims(**{name: value})))


async def test_a_time_that_is_null_is_no_time(tokens: Tokens) -> None:
    assert "`nbf`" in await refusal(tokens, EC.sign({**CLAIMS, "nbf": None}))


@pytest.mark.parametrize("value", [[AUDIENCE], ["other", AUDIENCE], [5, AUDIENCE]])
async def test_an_audience_may_be_one_of_several(tokens: Tokens, value: Any) -> None:
    assert (await tokens.identify(EC.sign(claims(aud=value)))).tenant == "acme"


@pytest.mark.parametrize(
    "value", ["", "other", AUDIENCE + "/", AUDIENCE.upper(), [], [[AUDIENCE]], {AUDIENCE: 1}, 5]
)
async def test_a_token_for_somebody_else_is_refused(tokens: Tokens, value: Any) -> None:
    assert "audience lead to no tenant" in await refusal(tokens, EC.sign(claims(aud=value)))


@pytest.mark.parametrize("value", ["https://other.example/", NAME.upper(), NAME[:-1]])
async def test_an_issuer_that_nobody_trusts_is_refused(value: str) -> None:
    table = Table(acme=TRUST)
    assert "lead to no tenant" in await refusal(table.tokens(), EC.sign(claims(iss=value)))
    assert table.asked == [value]


@pytest.mark.parametrize(
    "value", [5, [NAME], "", "a b", "ü", "\ud800", "a\n", "x" * (ISSUER_CHARS_MAX + 1)]
)
async def test_what_cannot_be_an_issuer_is_not_looked_up(value: Any) -> None:
    table = Table(acme=TRUST)
    assert "name its issuer" in await refusal(table.tokens(), EC.sign(claims(iss=value)))
    assert table.asked == []


async def test_a_lookup_that_finds_too_much_is_not_believed() -> None:
    async def issuers(_: str) -> dict[str, Issuer]:
        return {"acme": TRUST}

    tokens = Tokens(issuers, fetch=Table().fetch, now=lambda: NOW)
    assert "no tenant" in await refusal(tokens, EC.sign(claims(iss=NAME.upper())))


@pytest.mark.parametrize("value", ["a", "x" * USER_CHARS_MAX, "Ada Lovelace", "愛達@例.jp", "👩"])
async def test_a_user(tokens: Tokens, value: str) -> None:
    assert (await tokens.identify(EC.sign(claims(sub=value)))).user == value


@pytest.mark.parametrize(
    "value",
    ["", "x" * (USER_CHARS_MAX + 1), "a\n", "\0", "\x7f", "\u200b", "\u2028", "\ud800", 5, ["ada"]],
)
async def test_what_is_no_user(tokens: Tokens, value: Any) -> None:
    assert "name its user" in await refusal(tokens, EC.sign(claims(sub=value)))


async def test_another_claim_may_name_the_user() -> None:
    tokens = Table(acme=Issuer(NAME, JWKS_URL, AUDIENCE, user_claim="email")).tokens()
    for sub in ("ada", None):
        found = await tokens.identify(EC.sign(claims(sub=sub, email="bob@acme.example")))
        assert found.user == "bob@acme.example"
    assert "name its user" in await refusal(tokens, TOKEN)


@pytest.mark.parametrize(
    ("said", "scopes"),
    [
        ("read", {READ}),
        ("stream read admin", SCOPES),
        ("openid sluice:stream email sluice/admin", {STREAM, ADMIN}),
        ("openid email", set()),
        ("READ reads other:read read,stream", set()),
        ("", set()),
        (["read", "openid"], {READ}),
        (["sluice:read", 5, None, ["stream"], "read stream"], {READ}),
        ([], set()),
    ],
)
async def test_scopes(tokens: Tokens, said: Any, scopes: set[str]) -> None:
    assert (await tokens.identify(EC.sign(claims(scope=said)))).scopes == scopes


@pytest.mark.parametrize("value", [5, True, {"read": True}])
async def test_what_are_no_scopes(tokens: Tokens, value: Any) -> None:
    assert "scopes" in await refusal(tokens, EC.sign(claims(scope=value)))


async def test_scopes_that_are_null_are_none_at_all(tokens: Tokens) -> None:
    assert "scopes" in await refusal(tokens, EC.sign({**CLAIMS, "scope": None}))


async def test_another_claim_may_hold_the_scopes() -> None:
    tokens = Table(acme=Issuer(NAME, JWKS_URL, AUDIENCE, scope_claim="scp")).tokens()
    found = await tokens.identify(EC.sign(claims(scp=["admin"], scope="read")))
    assert found.scopes == {ADMIN}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS)
CLAIM = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "jti"])
FIELD = st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "cty", "zip"])


@settings(deadline=None)
@given(st.dictionaries(CLAIM, ANY, max_size=3), st.dictionaries(FIELD, ANY, max_size=2))
async def test_a_signed_token_is_taken_or_refused_whatever_it_says(
    said: dict[str, Any], header: dict[str, Any]
) -> None:
    try:
        found = await Table(acme=TRUST).tokens().identify(EC.sign({**CLAIMS, **said}, **header))
    except Unauthenticated:
        return
    assert found.tenant == "acme"
    assert found.user == said.get("sub", "ada")
    assert found.scopes <= SCOPES
    assert found.expires_at is not None
    assert NOW < found.expires_at <= TIME_MAX


# Tenants that share an issuer.


async def test_tenants_are_told_apart_by_audience() -> None:
    table = Table(acme=TRUST, beta=Issuer(NAME, JWKS_URL, "beta"))
    assert (await table.tokens().identify(TOKEN)).tenant == "acme"
    assert (await table.tokens().identify(EC.sign(claims(aud="beta")))).tenant == "beta"
    both = EC.sign(claims(aud=[AUDIENCE, "beta"]))
    assert "more than one tenant" in await refusal(table.tokens(), both)


async def test_tenants_are_told_apart_by_a_claim() -> None:
    shared = Issuer(NAME, JWKS_URL, AUDIENCE, tenant_claim="org")
    tokens = Table(acme=shared, beta=shared).tokens()
    assert (await tokens.identify(EC.sign(claims(org="beta")))).tenant == "beta"
    for value in ("gamma", None, "", ["acme"], True, "ACME"):
        assert "no tenant" in await refusal(tokens, EC.sign(claims(org=value)))


async def test_a_token_of_two_tenants_is_nobodys() -> None:
    tokens = Table(acme=TRUST, beta=TRUST).tokens()
    assert "more than one tenant" in await refusal(tokens, TOKEN)


async def test_a_tenant_that_takes_anothers_issuer_brings_its_own_keys_for_itself_only() -> None:
    forger = make_key("ES256", "forger")
    elsewhere = "https://beta.example/keys"
    table = Table(acme=TRUST, beta=Issuer(NAME, elsewhere, "beta"))
    table.sets[elsewhere] = [forger.jwk()]
    tokens = table.tokens()
    assert (await tokens.identify(forger.sign(claims(aud="beta")))).tenant == "beta"
    assert "key" in await refusal(tokens, forger.sign(claims()))
    assert "signature" in await refusal(tokens, forger.sign(claims(), kid="1"))
    assert (await tokens.identify(TOKEN)).tenant == "acme"


# With a real issuer.


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer(make_key("RS256", "first")) as issuer:
        yield issuer


@pytest.fixture
def real(issuer: LocalIssuer, clock: Clock) -> Tokens:
    table = Table(acme=Issuer(issuer.url, issuer.jwks_url, AUDIENCE))
    return Tokens(table.issuers, fetch=partial(fetch, loopback=True), clock=clock)


async def test_an_issuer_changes_its_keys(real: Tokens, issuer: LocalIssuer, clock: Clock) -> None:
    first = issuer.token()
    assert (await real.identify(first)).tenant == "acme"
    issuer.keys.append(make_key("EdDSA", "second"))
    clock.now += 1
    assert (await real.identify(issuer.token())).tenant == "acme"
    assert (await real.identify(first)).tenant == "acme"
    del issuer.keys[0]
    clock.now += FRESH_S
    assert (await real.identify(issuer.token())).tenant == "acme"
    assert "key" in await refusal(real, first)
    assert issuer.requests == 3


async def test_made_up_keys_do_not_reach_the_issuer_each(
    real: Tokens, issuer: LocalIssuer, clock: Clock
) -> None:
    await real.identify(issuer.token())
    clock.now += UNKNOWN_S
    for number in range(20):
        stranger = make_key("ES256", "stranger")
        assert "key" in await refusal(real, stranger.sign(issuer.claims(), kid=f"{number}"))
    assert issuer.requests == 2


async def test_an_issuer_that_is_down(real: Tokens, issuer: LocalIssuer, clock: Clock) -> None:
    token = issuer.token(exp=int(time.time()) + 100_000)
    await real.identify(token)
    issuer.close()
    clock.now += FRESH_S
    assert (await real.identify(token)).tenant == "acme"
    again = Table(acme=Issuer(issuer.url, issuer.jwks_url, AUDIENCE))
    with pytest.raises(Unavailable):
        await Tokens(again.issuers, fetch=partial(fetch, loopback=True)).identify(token)


# Documents.

DOCUMENT = {"issuer": NAME, "jwks_url": JWKS_URL, "audience": AUDIENCE}


def test_a_document_needs_three_fields_only() -> None:
    assert Issuer.from_document(DOCUMENT) == TRUST


@settings(deadline=None)
@given(
    st.builds(
        Issuer,
        st.text("abc:/.", min_size=1, max_size=ISSUER_CHARS_MAX),
        st.sampled_from([JWKS_URL, "http://localhost:1/keys"]),
        st.text(min_size=1, max_size=512),
        user_claim=st.text(min_size=1, max_size=256),
        scope_claim=st.text(min_size=1, max_size=256),
        tenant_claim=st.text(max_size=256),
        algorithms=st.lists(st.sampled_from(ALGORITHMS), min_size=1, max_size=3).map(tuple),
    )
)
def test_a_document_says_all_of_an_issuer(issuer: Issuer) -> None:
    assert Issuer.from_document(json.loads(json.dumps(issuer.to_document()))) == issuer


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"issuer": None}, "at.issuer"),
        ({"issuer": ""}, "at.issuer"),
        ({"issuer": "x" * 513}, "at.issuer"),
        ({"issuer": "a b"}, "at.issuer"),
        ({"issuer": "ü"}, "at.issuer"),
        ({"jwks_url": "http://issuer.example/keys"}, "at.jwks_url"),
        ({"jwks_url": 5}, "at.jwks_url"),
        ({"audience": ""}, "at.audience"),
        ({"audience": [AUDIENCE]}, "at.audience"),
        ({"user_claim": ""}, "at.user_claim"),
        ({"scope_claim": None}, "at.scope_claim"),
        ({"tenant_claim": "x" * 257}, "at.tenant_claim"),
        ({"algorithms": []}, "at.algorithms"),
        ({"algorithms": ["HS256"]}, "at.algorithms"),
        ({"algorithms": ["none"]}, "at.algorithms"),
        ({"algorithms": "RS256"}, "at.algorithms"),
        ({"secret": "x"}, "at.secret"),
    ],
)
def test_a_document_that_is_not_valid(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Issuer.from_document({**DOCUMENT, **change}, "at")
    assert refused.value.extensions["field"] == field


@pytest.mark.parametrize("name", DOCUMENT)
def test_a_field_that_must_be_there(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Issuer.from_document({n: value for n, value in DOCUMENT.items() if n != name})
    assert refused.value.extensions["field"] == f"issuer.{name}"


def test_what_looks_like_a_token() -> None:
    assert is_token(TOKEN)
    for other in ("", "sk_1c2e3f4a_abc-_", "tk_abc.def", "a.b", "a.b.c.d"):
        assert not is_token(other)


def test_nothing_heavy_is_imported_before_the_first_credential() -> None:
    code = "import shared.identity.tokens, shared.identity.tickets, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not {"jwt", "cryptography", "itsdangerous", "urllib3"} & set(loaded)
