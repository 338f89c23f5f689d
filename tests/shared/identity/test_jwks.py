"""Keys of issuers: fetched from a real server within bounds, kept, and found again."""

import asyncio
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from shared.errors import Unauthenticated, Unavailable
from shared.identity import jwks
from shared.identity.jwks import (
    FETCH_BYTES_MAX,
    FRESH_S,
    ISSUERS_MAX,
    KEYS_MAX,
    KID_CHARS_MAX,
    RETRY_S,
    STALE_S,
    UNKNOWN_S,
    Jwks,
    check_url,
    fetch,
    is_public,
    parse,
)
from tests.clock import Clock
from tests.shared.identity.issuer import LocalIssuer, make_key, reply

Answer = Callable[[BaseHTTPRequestHandler], None]
LOCAL = partial(fetch, loopback=True)


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer(make_key("ES256", "old")) as issuer:
        yield issuer


@pytest.fixture
def keys(clock: Clock) -> Jwks:
    return Jwks(LOCAL, clock)


def kids(found: tuple[jwt.PyJWK, ...]) -> list[str | None]:
    return [key.key_id for key in found]


async def test_a_key_is_fetched_once_and_kept(
    keys: Jwks, issuer: LocalIssuer, clock: Clock
) -> None:
    first = await keys.key(issuer.jwks_url, "old", "ES256")
    clock.now += FRESH_S - 1
    assert await keys.key(issuer.jwks_url, "old", "ES256") is first
    assert issuer.requests == 1
    clock.now += 1
    assert (await keys.key(issuer.jwks_url, "old", "ES256")).key_id == "old"
    assert issuer.requests == 2


async def test_many_at_once_share_a_fetch(keys: Jwks, issuer: LocalIssuer) -> None:
    asked = [keys.key(issuer.jwks_url, "old", "ES256") for _ in range(20)]
    assert len(await asyncio.gather(*asked)) == 20
    assert issuer.requests == 1


async def test_who_gives_up_does_not_end_the_fetch_of_the_others(
    keys: Jwks, issuer: LocalIssuer
) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        may_answer.wait(10)
        issuer.show_keys(request)

    issuer.answer = wait
    impatient = asyncio.create_task(keys.key(issuer.jwks_url, "old", "ES256"))
    patient = asyncio.create_task(keys.key(issuer.jwks_url, "old", "ES256"))
    await asyncio.to_thread(asked.wait, 10)
    impatient.cancel()
    await asyncio.wait([impatient])
    may_answer.set()
    assert (await patient).key_id == "old"
    assert issuer.requests == 1


async def test_a_new_key_is_found_at_once_and_an_old_one_goes(
    keys: Jwks, issuer: LocalIssuer, clock: Clock
) -> None:
    await keys.key(issuer.jwks_url, "old", "ES256")
    issuer.keys = [make_key("EdDSA", "new")]
    clock.now += 1
    asked = [keys.key(issuer.jwks_url, "new", "EdDSA") for _ in range(5)]
    assert kids(tuple(await asyncio.gather(*asked))) == ["new"] * 5
    assert issuer.requests == 2
    with pytest.raises(Unauthenticated):
        await keys.key(issuer.jwks_url, "old", "ES256")


async def test_a_storm_of_unknown_keys_costs_one_fetch_in_a_while(
    keys: Jwks, issuer: LocalIssuer, clock: Clock
) -> None:
    async def storm() -> None:
        for number in range(10):
            with pytest.raises(Unauthenticated, match="key is not one"):
                await keys.key(issuer.jwks_url, f"made up {number}", "ES256")

    await storm()
    assert issuer.requests == 1  # these keys are as new as they can be
    clock.now += 1
    await storm()
    clock.now += UNKNOWN_S - 1
    await storm()
    assert issuer.requests == 2
    clock.now += 1
    await storm()
    assert issuer.requests == 3


async def test_keys_outlive_their_server_for_a_day(
    keys: Jwks, issuer: LocalIssuer, clock: Clock
) -> None:
    fetched_at = clock.now
    await keys.key(issuer.jwks_url, "old", "ES256")
    issuer.close()
    for later in (FRESH_S, STALE_S - 1):
        clock.now = fetched_at + later
        assert (await keys.key(issuer.jwks_url, "old", "ES256")).key_id == "old"
        with pytest.raises(Unauthenticated):
            await keys.key(issuer.jwks_url, "new", "ES256")
    clock.now = fetched_at + STALE_S
    with pytest.raises(Unavailable):
        await keys.key(issuer.jwks_url, "old", "ES256")


async def test_a_server_that_fails_is_left_alone_for_a_while(
    keys: Jwks, issuer: LocalIssuer, clock: Clock
) -> None:
    issuer.answer = partial(reply, body=b"{}", status=500)
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await keys.key(issuer.jwks_url, "old", "ES256")
    assert issuer.requests == 1
    assert refused.value.headers == {"Retry-After": str(RETRY_S)}
    issuer.answer = issuer.show_keys
    clock.now += RETRY_S
    assert (await keys.key(issuer.jwks_url, "old", "ES256")).key_id == "old"
    assert issuer.requests == 2


class Drip:
    """Sends a long header, a byte at a time, until the client closes the connection."""

    def __init__(self, issuer: LocalIssuer) -> None:
        self._issuer = issuer
        self.begun, self.gone, self.done = (threading.Event() for _ in range(3))

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            self.begun.set()
            for _ in range(1000):
                self._issuer.closing.wait(0.01)
                request.wfile.write(b"x")
            self.done.set()
        except OSError:
            self.gone.set()


def never(issuer: LocalIssuer, _: BaseHTTPRequestHandler) -> None:
    issuer.closing.wait(60)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(partial(reply, body=b"{}", status=500), id="500"),
        pytest.param(partial(reply, body=b"{}", status=404), id="404"),
        pytest.param(partial(reply, body=b'{"keys": []}', status=201), id="201"),
        pytest.param(partial(reply, body=b'{"keys": [}'), id="broken JSON"),
        pytest.param(partial(reply, body=b"[" * 50_000), id="deep JSON"),
        pytest.param(partial(reply, body=b"\xff\xfe"), id="no text"),
        pytest.param(partial(reply, body=b"[]"), id="no object"),
        pytest.param(partial(reply, body=b'{"keys": {}}'), id="no list"),
        pytest.param(partial(reply, body=b"{}"), id="no keys"),
        pytest.param(partial(reply, body=b"{}", content_length="100"), id="cut off"),
        pytest.param(lambda request: request.wfile.write(b"nonsense\r\n\r\n"), id="no HTTP"),
        pytest.param(lambda _: None, id="hangs up"),
    ],
)
async def test_an_answer_without_keys_is_an_outage(
    keys: Jwks, issuer: LocalIssuer, answer: Answer
) -> None:
    issuer.answer = answer
    with pytest.raises(Unavailable, match="keys of the token's issuer"):
        await keys.key(issuer.jwks_url, "old", "ES256")


async def test_a_redirect_is_not_followed(keys: Jwks, issuer: LocalIssuer) -> None:
    paths: list[str] = []

    def redirect(request: BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        reply(request, b"", 302, location=f"{issuer.url}/elsewhere")

    issuer.answer = redirect
    with pytest.raises(Unavailable):
        await keys.key(issuer.jwks_url, "old", "ES256")
    assert paths == ["/jwks.json"]


async def test_the_size_of_an_answer_is_bounded(issuer: LocalIssuer) -> None:
    issuer.answer = partial(reply, body=b" " * FETCH_BYTES_MAX)
    assert len(await LOCAL(issuer.jwks_url)) == FETCH_BYTES_MAX
    issuer.answer = partial(reply, body=b" " * (FETCH_BYTES_MAX + 1))
    with pytest.raises(Unavailable):
        await LOCAL(issuer.jwks_url)


async def test_an_endless_answer_is_read_to_the_bound_only(issuer: LocalIssuer) -> None:
    cut = threading.Event()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not issuer.closing.is_set():
                request.wfile.write(b" " * 4096)
        except OSError:
            cut.set()

    issuer.answer = endless
    with pytest.raises(Unavailable):
        await LOCAL(issuer.jwks_url)
    assert await asyncio.to_thread(cut.wait, 10)


async def test_a_silent_server_is_given_up(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_S", 0.1)
    issuer.answer = partial(never, issuer)
    with pytest.raises(Unavailable):
        await LOCAL(issuer.jwks_url)


async def test_a_server_that_never_ends_its_header_is_given_up(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, so only a bound on the whole ends it."""
    monkeypatch.setattr(jwks, "FETCH_S", 0.1)
    drip = issuer.answer = Drip(issuer)
    with pytest.raises(Unavailable):
        await LOCAL(issuer.jwks_url)
    assert not drip.done.is_set()


async def test_a_fetch_that_is_given_up_frees_its_thread(issuer: LocalIssuer) -> None:
    drip = issuer.answer = Drip(issuer)
    fetching = asyncio.create_task(LOCAL(issuer.jwks_url))
    assert await asyncio.to_thread(drip.begun.wait, 10)
    fetching.cancel()
    assert await asyncio.to_thread(drip.gone.wait, 10)


async def test_a_request_that_was_given_up_before_it_connected_asks_nothing(
    issuer: LocalIssuer,
) -> None:
    request = jwks._Request(check_url(issuer.jwks_url, loopback=True), public=False)
    request.abandon()
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(request.run)
    assert issuer.requests == 0


async def test_a_query_is_part_of_the_address(issuer: LocalIssuer) -> None:
    paths: list[str] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        issuer.show_keys(request)

    issuer.answer = note
    await LOCAL(f"{issuer.url}/keys?tenant=a%20b")
    await LOCAL(issuer.url)
    assert paths == ["/keys?tenant=a%20b", "/"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that is its own authority, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    ) | dict.fromkeys(("crl_sign", "encipher_only", "decipher_only"), False)
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True
        )
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + pem)
    return path


async def test_https_needs_a_certificate_of_an_authority_and_for_the_host(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with LocalIssuer(tls=context) as issuer:
        with pytest.raises(Unavailable) as refused:
            await LOCAL(issuer.jwks_url)
        assert "certificate verify failed" in str(refused.value.__cause__)
        assert issuer.requests == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert "keys" in json.loads(await LOCAL(issuer.jwks_url))
        with pytest.raises(Unavailable) as refused:
            await LOCAL(issuer.jwks_url.replace("localhost", "127.0.0.2"))
        assert "127.0.0.2" in str(refused.value.__cause__)
        assert issuer.requests == 1


async def test_a_name_that_leads_into_a_private_network_is_asked_nothing(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with LocalIssuer(tls=context) as issuer:
        with pytest.raises(Unavailable) as refused:
            await fetch(issuer.jwks_url)
        assert "not a public address" in str(refused.value.__cause__)
        assert issuer.requests == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("192.0.2.1", False),
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        *((address, False) for address in ("127.0.0.1", "::1", "0.0.0.0", "::")),
        *((address, False) for address in ("10.0.0.1", "172.16.0.1", "192.168.0.1", "fd00::1")),
        *((address, False) for address in ("169.254.169.254", "fe80::1%eth0", "100.64.0.1")),
        *((address, False) for address in ("::ffff:10.0.0.1", "::ffff:127.0.0.1")),
        ("::ffff:8.8.8.8", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_http_is_for_loopback_and_for_who_allows_it(issuer: LocalIssuer) -> None:
    with pytest.raises(Unavailable):
        await fetch(issuer.jwks_url)
    assert issuer.requests == 0
    await LOCAL(issuer.jwks_url)
    assert issuer.requests == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/keys",
        "https://issuer.example:8443/a/b?c=d",
        "https://[2001:db8::1]/keys",
        "http://localhost:8080/keys",
        "http://127.0.0.1/keys",
        "http://[::1]:1/keys",
    ],
)
def test_an_address_of_keys(url: str) -> None:
    assert check_url(url, loopback=True).geturl() == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.example/keys",
        "http://issuer.example/keys",
        "http://localhost.issuer.example/keys",
        "http://169.254.169.254/latest/meta-data",
        "ftp://localhost/keys",
        "file:///etc/passwd",
        "https://",
        "https:///keys",
        "https://user:secret@issuer.example/",
        "https://user@issuer.example/",
        "https://:@issuer.example/",
        "https://issuer.example\\@localhost/",
        "https://issuer.example/keys#part",
        "https://issuer.example:0/",
        "https://issuer.example:65536/",
        "https://issuer.example:x/",
        "https://[issuer.example/",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nx: y",
        "https://ïssuer.example/",
        "https://issuer.example/" + "x" * 2048,
    ],
)
async def test_what_is_no_address_of_keys(url: str) -> None:
    with pytest.raises(Unavailable):
        await Jwks(LOCAL, Clock()).key(url, None, "ES256")
    with pytest.raises(Unavailable) as refused:
        await LOCAL(url)
    assert isinstance(refused.value.__cause__, ValueError)


async def test_a_failure_is_logged_without_what_the_address_may_hide(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Unavailable):
        await Jwks(fetch, Clock()).key("http://issuer.example/secret-4711?key=4711", None, "ES256")
    (record,) = caplog.records
    said = repr(vars(record))
    assert "'host': 'issuer.example', 'error': 'ValueError'" in said
    assert "4711" not in said


async def test_issuers_that_are_kept_are_bounded(clock: Clock) -> None:
    body = json.dumps({"keys": [make_key("ES256").jwk()]}).encode()
    asked: list[str] = []

    def fetching(url: str) -> Awaitable[bytes]:
        asked.append(url)
        return asyncio.sleep(0, body)

    keys = Jwks(fetching, clock)
    for number in range(ISSUERS_MAX + 1):
        await keys.key(f"https://{number}.example/", "1", "ES256")
    assert len(keys._held) == ISSUERS_MAX
    for number in (ISSUERS_MAX, 0):
        await keys.key(f"https://{number}.example/", "1", "ES256")
    assert asked[ISSUERS_MAX + 1 :] == ["https://0.example/"]


# What stands in a set.


def as_set(*members: Any) -> bytes:
    return json.dumps({"keys": members}).encode()


def a_p384_key() -> dict[str, Any]:
    private = ec.generate_private_key(ec.SECP384R1())
    return {"kid": "1", **jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)}


RSA, EC, ED = make_key("RS256"), make_key("ES256"), make_key("EdDSA")


@pytest.mark.parametrize("key", [RSA, EC, ED])
def test_a_key_is_for_one_algorithm(key: Any) -> None:
    bare = key.jwk(alg=None, use=None)
    for said in ({}, {"alg": key.algorithm}, {"use": "sig"}, {"key_ops": ["verify"]}):
        (found,) = parse(as_set({**bare, **said}))
        assert found.algorithm_name == key.algorithm
        assert found.key_id == "1"


@pytest.mark.parametrize("key", [RSA, EC, ED])
@pytest.mark.parametrize(
    "said",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "PS256"},
        {"alg": ""},
        {"alg": ["RS256", "ES256", "EdDSA"]},
        {"use": "enc"},
        {"use": ""},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kty": "oct"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["EC"]},
        {"kty": None},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"crv": "Ed448"},
        {"crv": ["P-256"]},
        {"kid": 1},
        {"kid": "x" * (KID_CHARS_MAX + 1)},
        {"x": "AA", "n": "AA"},
        {"x": "", "n": ""},
        {"x": 5, "n": 5},
        {"x": {}, "n": []},
        {"x": "ü", "n": "ü"},
        {"x": None, "n": None},
    ],
)
def test_a_key_for_something_else_is_skipped(key: Any, said: dict[str, Any]) -> None:
    other = make_key("ES256", "2")
    found = parse(as_set({**key.jwk(), **said}, other.jwk()))
    assert kids(found) == ["2"]


def test_members_that_no_key_of_ours_may_have_are_skipped() -> None:
    ed448_key = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
    off_curve = {**EC.jwk(), "x": EC.jwk()["y"]}
    strange: list[Any] = [None, 1, "key", [], {}, ed448_key, a_p384_key(), off_curve]
    assert kids(parse(as_set(*strange, ED.jwk()))) == ["1"]


def test_an_rsa_key_is_neither_short_nor_endless() -> None:
    short = make_key("RS256", bits=1024)
    endless = {**RSA.jwk(), "n": "_" * 20_000}
    assert parse(as_set(short.jwk(), endless)) == ()


def test_a_private_key_is_read_as_a_public_one() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    member = OKPAlgorithm.to_jwk(private, as_dict=True)
    assert "d" in member
    (found,) = parse(as_set(member))
    assert not hasattr(found.key, "sign")


def test_the_number_of_keys_is_bounded() -> None:
    assert len(parse(as_set(*[EC.jwk()] * KEYS_MAX))) == KEYS_MAX
    with pytest.raises(ValueError, match="at most 64"):
        parse(as_set(*[EC.jwk()] * (KEYS_MAX + 1)))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS)
NAMES = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"])


@settings(deadline=None)
@given(st.sampled_from([RSA, EC, ED]), st.dictionaries(NAMES, JSON, max_size=3))
def test_no_member_breaks_the_reading(key: Any, changes: dict[str, Any]) -> None:
    for found in parse(as_set({**key.jwk(), **changes})):
        assert found.algorithm_name == key.algorithm


# Which key a token is verified with.


async def find(members: list[dict[str, Any]], kid: str | None, algorithm: str) -> jwt.PyJWK:
    keys = Jwks(lambda _: asyncio.sleep(0, as_set(*members)), Clock())
    return await keys.key("https://issuer.example/", kid, algorithm)


async def test_a_key_is_found_by_its_name_and_algorithm() -> None:
    members = [RSA.jwk(), EC.jwk(), ED.jwk(), make_key("ES256", "2").jwk()]
    for key in (RSA, EC, ED):
        assert (await find(members, "1", key.algorithm)).algorithm_name == key.algorithm
    with pytest.raises(Unauthenticated):
        await find(members, "2", "RS256")


async def test_a_token_that_names_no_key_is_taken_where_there_is_no_choice() -> None:
    members = [RSA.jwk(), EC.jwk(kid=None)]
    assert (await find(members, None, "RS256")).key_id == "1"
    assert (await find(members, None, "ES256")).key_id is None
    with pytest.raises(Unauthenticated):
        await find(members, None, "EdDSA")
    with pytest.raises(Unauthenticated):
        await find([*members, make_key("RS256", "2").jwk()], None, "RS256")


async def test_a_key_without_a_name_is_for_tokens_that_name_none() -> None:
    with pytest.raises(Unauthenticated):
        await find([EC.jwk(kid=None)], "1", "ES256")


async def test_two_keys_of_one_name_are_no_key() -> None:
    other = make_key("ES256", "2").jwk(kid="1")
    with pytest.raises(Unauthenticated):
        await find([EC.jwk(), other], "1", "ES256")
