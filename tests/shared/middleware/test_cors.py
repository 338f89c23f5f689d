"""Which pages may call: the table of every case, what browsers read of it, and a real browser."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import tenants
from shared.audit.trail import Audit
from shared.authority import Authority
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.identity import Identity, keys, tickets
from shared.identity.keys import Key
from shared.middleware import cors, stack
from shared.middleware.authentication import Authentication
from shared.middleware.cors import Cors, OriginPolicy, Origins
from shared.middleware.problems import Problems
from shared.origins import ORIGIN_CHARS_MAX, parse_origin
from shared.tenants import Policy, Tenants
from tests.functions.conftest import serving
from tests.model_store import ModelStore

A, B, BOTH = "https://a.example", "https://b.example", "http://localhost:5173"
OWN, OWN_BEHIND_TLS = "http://sluice.test", "https://sluice.test"
LISTS = {"a": {A, BOTH}, "b": {B, BOTH}, "none": set[str]()}
#: What no list here holds, however near it comes.
STRANGERS = (
    *("null", "", "*", "https://*.example", "HTTPS://A.EXAMPLE", f"{A}/", f"{A}:443", f"{A}:8443"),
    *("http://a.example", "https://sub.a.example", f"{A}.evil.example", "https://evil.example"),
    *(f"{A}, {B}", "a.example", "https://ä.example", f"{OWN}:8080", "https://" + "x" * 5000),
)


@dataclass
class Lists:
    """The same lists without a store; what they were asked."""

    asked: list[str] = field(default_factory=list)
    down: bool = False

    async def anywhere(self, origin: str) -> bool:
        self._ask(origin)
        return any(origin in origins for origins in LISTS.values())

    async def allowed(self, tenant: str, origin: str) -> bool:
        self._ask(origin)
        return origin in LISTS[tenant]

    def _ask(self, origin: str) -> None:
        self.asked.append(origin)
        if self.down:
            raise Unavailable


class Doing:
    """An app that keeps what it was made to do."""

    def __init__(self, response: Response | Exception | None = None) -> None:
        self.response = response or Response("done", headers={"stream-id": "s1"})
        self.done: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.done.append(scope["method"])
        if isinstance(self.response, Exception):
            raise self.response
        await self.response(scope, receive, send)


def add_tenant(store: ModelStore, name: str, *origins: str) -> None:
    writes = tenants.adding(name, Policy(origins=origins), 0)
    for write in [*writes, *keys.adding(name, Key(tenant=name, id=name))]:
        store.write_now(write)


@pytest.fixture
def store() -> ModelStore:
    """The tenants of `LISTS`; the key of each is its name."""
    store = ModelStore()
    for name, origins in LISTS.items():
        add_tenant(store, name, *origins)
    return store


@pytest.fixture
def authority(store: ModelStore) -> Authority:
    return Authority(store, Tenants(store))


def guarded(app: ASGIApp, authority: Authority, origins: Origins | None = None) -> ASGIApp:
    origins = origins or authority.tenants
    return Cors(Problems(Authentication(OriginPolicy(app, origins), authority)), origins)


async def ask(
    app: ASGIApp, method: str = "GET", path: str = "/x", **headers: str | None
) -> httpx.Response:
    """A request; a header's name has `_` for `-`, and None leaves it out."""
    sent = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in headers.items()
        if value is not None
    ]
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://sluice.test") as client:
        return await client.request(method, path, headers=sent)


async def preflight(
    app: ASGIApp, origin: str, path: str = "/x", names: str | None = None
) -> httpx.Response:
    return await ask(
        app,
        "OPTIONS",
        path,
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers=names,
    )


def shared_with(response: httpx.Response, origin: str | None) -> bool:
    """The CORS check of the Fetch standard, for a request without cookies."""
    told = response.headers.get("access-control-allow-origin")
    return told is not None and told in ("*", origin)


def vary(response: httpx.Response) -> list[str]:
    return [name.strip().lower() for name in response.headers.get("vary", "").split(",")]


def expected(origin: str | None, key: str | None, method: str) -> tuple[int, bool, bool]:
    """The policy once more, in other words: the status, who may read it, whether it was done."""
    listed = {o for origins in LISTS.values() for o in origins}
    if method == "PREFLIGHT" and origin is not None:
        return (204, True, False) if origin in listed else (403, False, False)
    if key not in LISTS:
        return 401, origin in listed, False
    if origin in (None, OWN, OWN_BEHIND_TLS):
        return 200, False, True
    return (200, True, True) if origin in LISTS[key] else (403, False, False)


METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PREFLIGHT")
ORIGINS = (None, A, B, BOTH, OWN, OWN_BEHIND_TLS, *STRANGERS)
KEYS = (None, "wrong", *LISTS)
NEVER_SENT = {"access-control-allow-credentials", "access-control-allow-private-network"}


@pytest.mark.parametrize(("key", "method"), list(product(KEYS, METHODS)))
async def test_the_table(
    store: ModelStore, authority: Authority, key: str | None, method: str
) -> None:
    for origin in ORIGINS:
        app = Doing()
        answer = await ask(
            stack(app, authority, Audit(store)),
            method.replace("PREFLIGHT", "OPTIONS"),
            origin=origin,
            authorization=key and f"Bearer {key}",
            access_control_request_method="POST" if method == "PREFLIGHT" else None,
        )
        seen = (answer.status_code, shared_with(answer, origin), bool(app.done))
        assert (origin, *seen) == (origin, *expected(origin, key, method))
        assert vary(answer).count("origin") == 1
        granted = {k: v for k, v in answer.headers.items() if k.startswith("access-control")}
        assert bool(granted) == seen[1]
        assert "*" not in str(granted)
        assert not granted.keys() & NEVER_SENT
        if answer.status_code == 403 and method != "HEAD":
            assert answer.json()["type"] == "urn:sluice:problem:origin-not-allowed"


async def test_what_a_preflight_grants(authority: Authority) -> None:
    answer = await preflight(guarded(Doing(), authority), A)
    assert answer.headers["access-control-max-age"] == "7200"
    assert set(answer.headers["access-control-allow-methods"].split(", ")) == set(cors.METHODS)
    assert "access-control-allow-headers" not in answer.headers
    assert vary(answer) == [
        *("origin", "access-control-request-method", "access-control-request-headers")
    ]
    assert answer.content == b""


#: What OpenAI's SDK for JavaScript sends from a browser, as Chromium and as Firefox ask for it.
SDK = (
    "authorization,content-type,openai-beta,openai-organization,openai-project,x-stainless-arch,"
    "x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,"
    "x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)


@pytest.mark.parametrize(
    "names", ["authorization", SDK, SDK + ",user-agent", "idempotency-key, prefer"]
)
async def test_a_page_of_a_listed_origin_may_send_what_it_asks_to(
    authority: Authority, names: str
) -> None:
    app = guarded(Doing(), authority)
    granted = await preflight(app, A, names=names)
    assert granted.status_code == 204
    assert granted.headers["access-control-allow-headers"] == names
    refused = await preflight(app, "https://evil.example", names=names)
    assert (refused.status_code, names in str(refused.headers)) == (403, False)


@pytest.mark.parametrize(
    "names", ["*", "authorization, *", "a b", "a,,b", ",", "a:b", "a;b", "é", "x" * 4097]
)
async def test_what_is_no_list_of_headers_is_granted_nothing(
    authority: Authority, names: str
) -> None:
    refused = await preflight(guarded(Doing(), authority), A, names=names)
    assert refused.status_code == 400
    assert "access-control-allow-headers" not in refused.headers
    assert refused.json()["field"] == "Access-Control-Request-Headers"


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/streams/none/cancel", "/x?after=3"])
async def test_a_preflight_needs_no_key_on_any_path(authority: Authority, path: str) -> None:
    assert (await preflight(guarded(Doing(), authority), B, path)).status_code == 204


async def test_only_options_is_a_preflight(authority: Authority) -> None:
    app = guarded(Doing(), authority)
    answer = await ask(app, "POST", origin=A, access_control_request_method="POST")
    assert answer.status_code == 401


async def test_a_refused_preflight_varies_as_a_granted_one_does(authority: Authority) -> None:
    app = guarded(Doing(), authority)
    refused, granted = await preflight(app, "https://evil.example"), await preflight(app, A)
    assert vary(refused) == vary(granted)


async def test_what_a_page_may_read(authority: Authority) -> None:
    answer = await ask(guarded(Doing(), authority), origin=A, authorization="Bearer a")
    names = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"stream-id", "location", "retry-after", "ratelimit", "request-id"} <= set(names)


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        # The browser's word is taken, also where an edge has changed the host,
        ("same-origin", "https://cdn.example", 200),
        ("same-origin", OWN, 200),
        # and also against the host: http://x and https://x are two origins.
        ("same-site", OWN, 403),
        ("cross-site", OWN, 403),
        ("none", OWN, 403),
        ("cross-site", A, 200),
        ("same-origin", "null", 403),
        (None, "null", 403),
    ],
)
async def test_who_is_of_our_own_origin(
    authority: Authority, site: str | None, origin: str, status: int
) -> None:
    answer = await ask(
        guarded(Doing(), authority),
        "POST",
        origin=origin,
        sec_fetch_site=site,
        authorization="Bearer a",
    )
    assert answer.status_code == status


async def test_an_empty_host_is_nobodys(authority: Authority) -> None:
    app = guarded(Doing(), authority)
    answer = await ask(app, origin="https://", host="", authorization="Bearer a")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ([], "Origin"),
        (["Accept"], "Accept, Origin"),
        (["accept, ORIGIN"], "accept, ORIGIN"),
        (["Accept", "Prefer"], "Accept, Prefer, Origin"),
        (["*"], "*"),
        ([""], "Origin"),
    ],
)
async def test_vary_is_added_to(authority: Authority, said: list[str], then: str) -> None:
    response = Response()
    response.raw_headers.extend((b"vary", value.encode()) for value in said)
    answer = await ask(guarded(Doing(response), authority), authorization="Bearer a")
    assert answer.headers.get_list("vary") == [then]


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound(), 404), (Unavailable(), 503), (ValueError(), 500)]
)
async def test_a_page_can_read_what_went_wrong(
    authority: Authority, error: Exception, status: int
) -> None:
    app = guarded(Doing(error), authority)
    answer = await ask(app, "POST", origin=A, authorization="Bearer a")
    assert (answer.status_code, shared_with(answer, A)) == (status, True)
    other = await ask(app, "POST", authorization="Bearer a")
    assert (other.status_code, shared_with(other, A)) == (status, False)


async def test_an_open_path_is_for_all_listed_origins(authority: Authority) -> None:
    app = guarded(Doing(), authority)
    for origin in (A, B, "https://evil.example"):
        answer = await ask(app, path="/healthz", origin=origin)
        assert (answer.status_code, shared_with(answer, origin)) == (200, origin in (A, B))


async def test_without_the_inner_part_no_answer_to_a_tenant_is_shared(authority: Authority) -> None:
    app = Cors(Authentication(Doing(), authority), authority.tenants)
    assert not shared_with(await ask(app, origin=A, authorization="Bearer a"), A)


async def test_nothing_is_done_while_the_lists_cannot_be_read(authority: Authority) -> None:
    doing, lists = Doing(), Lists(down=True)
    app = guarded(doing, authority, lists)
    assert (await preflight(app, A)).status_code == 503
    assert (await ask(app, "POST", origin=A, authorization="Bearer a")).status_code == 503
    unknown = await ask(app, origin=A)
    assert (unknown.status_code, shared_with(unknown, A)) == (401, False)
    assert not doing.done
    assert (await ask(app, authorization="Bearer a")).status_code == 200


@pytest.mark.parametrize("origin", [None, "null", "", "https://" + "x" * 260, OWN])
async def test_what_needs_no_list_asks_none(authority: Authority, origin: str | None) -> None:
    lists = Lists()
    app = guarded(Doing(), authority, lists)
    await ask(app, "POST", origin=origin, authorization="Bearer a")
    if origin != OWN:
        await ask(app, "POST", origin=origin)
        await preflight(app, origin or "")
    assert not lists.asked


async def test_a_list_is_asked_once_for_a_request(authority: Authority) -> None:
    lists = Lists()
    app = guarded(Doing(), authority, lists)
    for sent in (ask(app, origin=A, authorization="Bearer a"), ask(app, origin=A)):
        await sent
    await preflight(app, A)
    assert lists.asked == [A, A, A]


async def test_a_stream_is_not_held_back(authority: Authority) -> None:
    shown = asyncio.Event()
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await shown.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body") == b"one":
            shown.set()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers = [(b"origin", A.encode()), (b"authorization", b"Bearer a")]
    scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": headers}
    async with asyncio.timeout(5):
        await guarded(app, authority)(scope, receive, send)
    assert [message.get("body") for message in sent] == [None, b"one", b"two"]
    assert Headers(scope=sent[0])["access-control-allow-origin"] == A


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await Cors(OriginPolicy(app, Lists()), Lists())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


WRITTEN = {
    "https://app.example.com": "https://app.example.com",
    "HTTPS://App.Example.COM": "https://app.example.com",
    "https://app.example.com:443": "https://app.example.com",
    "http://app.example.com:80": "http://app.example.com",
    "http://app.example.com:443": "http://app.example.com:443",
    "http://localhost:5173": "http://localhost:5173",
    "http://localhost:05173": "http://localhost:5173",
    "https://my_app--preview-7.example.com": "https://my_app--preview-7.example.com",
    "http://127.0.0.1:8787": "http://127.0.0.1:8787",
    "http://[::1]:5173": "http://[::1]:5173",
    "http://[0:0::0001]:80": "http://[::1]",
    "http://[2001:DB8::1:0:0:1]": "http://[2001:db8::1:0:0:1]",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://BÜCHER.example": "https://xn--bcher-kva.example",
    "https://straße.example": "https://xn--strae-oqa.example",
    "https://例え。テスト": "https://xn--r8jz45g.xn--zckzah",
    "https://ΒΌΛΟΣ.example": "https://xn--nxasmq6b.example",
    "http://１２７.0.0.1": "http://127.0.0.1",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
}
REFUSED = (
    *(
        "",
        " ",
        "*",
        "null",
        "https://",
        "app.example.com",
        "//app.example.com",
        "https:app.example",
    ),
    *("ftp://a.example", "file://", "ws://a.example", "chrome-extension://abcdef", "data:x"),
    *("https://*.example.com", "https://*", "https://a.example/", "https://a.example/x"),
    *("https://a.example?x", "https://a.example#x", "https://u@a.example", "https://u:p@a.example"),
    *(" https://a.example", "https://a.example ", "https://a.example\n", "https://a b.example"),
    *(
        "https://a.example:",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:x",
    ),
    *("https://a.example:٤٤٣", "https://a..example", "https://.a.example", "https://a.example."),
    *("https://127.1", "https://0x7f.0.0.1", "https://2130706433", "https://1.2.3.256"),
    *("https://01.2.3.4", "https://a.1", "https://[::1", "https://[1::2::3]", "https://[::1%eth0]"),
    *("http://[::ffff:1.2.3.4]", "http://[::ffff:102:304]", "https://a%2eexample", "https://ſ:x"),
    *(
        "httpſ://a.example",
        f"https://{'x' * 64}.example",
        f"https://{'x.' * 127}x",
        "https://\u3000",
    ),
    *("https://a.example,https://b.example", "https://a\\b.example", "https://\ud800.example"),
)


@pytest.mark.parametrize(("text", "origin"), WRITTEN.items())
def test_an_origin_is_written_as_browsers_send_it(text: str, origin: str) -> None:
    assert parse_origin(text) == origin
    assert parse_origin(origin) == origin


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_origin(text, "origins[2]")
    assert refused.value.extensions["field"] == "origins[2]"


def test_an_origin_has_a_bound() -> None:
    longest = f"https://{'.'.join(['x' * 61] * 4)}.xxxxx:65535"
    assert len(longest) == ORIGIN_CHARS_MAX
    assert parse_origin(longest) == longest
    with pytest.raises(InvalidRequest, match="allowed are 1 to 267"):
        parse_origin(longest + "0")


@pytest.fixture(scope="module")
def node() -> Iterator[subprocess.Popen[str]]:
    """The WHATWG standard's URL parser, in Node: it gets a text a line, and says its origin."""
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    code = """
    require("readline").createInterface({input: process.stdin}).on("line", (line) => {
        let origin = null;
        try { origin = new URL(JSON.parse(line)).origin; } catch {}
        console.log(JSON.stringify(origin));
    });"""
    with subprocess.Popen(
        ["node", "-e", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def origin_by(node: subprocess.Popen[str], text: str) -> str | None:
    assert node.stdin
    assert node.stdout
    node.stdin.write(json.dumps(text) + "\n")
    node.stdin.flush()
    origin: str | None = json.loads(node.stdout.readline())
    return origin


LABELS = st.text(st.sampled_from("aZ09-_.xnäßΣσς例。１②é\u0301"), min_size=1, max_size=9)
HOSTS = LABELS | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")
PORTS = st.just("") | st.integers(0, 70_000).map(lambda port: f":{port}")
TEXTS = st.builds(
    "".join, st.tuples(st.sampled_from(["http://", "https://", "HTTPS://"]), HOSTS, PORTS)
)


@pytest.mark.e2e
@settings(deadline=None)
@given(text=TEXTS | st.sampled_from([*WRITTEN, *REFUSED]) | st.text(max_size=30))
def test_no_browser_writes_an_origin_otherwise(node: subprocess.Popen[str], text: str) -> None:
    """What is taken is in the browser's words, or nothing that a browser could go to."""
    try:
        origin = parse_origin(text)
    except InvalidRequest:
        return
    assert origin_by(node, text) in (origin, None)
    assert parse_origin(origin) == origin


@pytest.mark.e2e
@pytest.mark.parametrize(("text", "origin"), WRITTEN.items())
def test_browsers_write_the_examples_so(
    node: subprocess.Popen[str], text: str, origin: str
) -> None:
    assert origin_by(node, text) == origin


PAGE = """<script>
const {api, ticket} = INPUT, results = {};
const post = (url, key, more) => fetch(api + url, {
    method: "POST", body: "{}", ...more,
    headers: {Authorization: "Bearer " + key, "Content-Type": "application/json",
              "Idempotency-Key": "1", Prefer: "respond-async",
              "OpenAI-Beta": "x", "X-Stainless-OS": "Unknown"},
}).then(r => [r.status, r.headers.get("Stream-Id")], () => "unreadable");
(async () => {
    results.own = await post("/own", "page");
    results.again = await post("/own", "page");
    results.other = await post("/other", "b");
    results.unknown = await post("/unknown", "wrong");
    results.cookies = await post("/cookies", "page", {credentials: "include"});
    results.simple = await fetch(api + "/simple?ticket=" + ticket, {method: "POST", body: "{}"})
        .then(r => r.status, () => "unreadable");
    results.events = await new Promise(resolve => {
        const source = new EventSource(api + "/events?ticket=" + ticket);
        source.onmessage = e => { source.close(); resolve(e.data); };
        source.onerror = () => { source.close(); resolve("unreadable"); };
    });
    await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
</script>"""


class Pages:
    """A server of a page that calls another server, and tells how that went."""

    def __init__(self) -> None:
        self.page = ""
        self.results: asyncio.Future[dict[str, object]] = asyncio.Future()
        routes = [Route("/", self._show), Route("/results", self._hear, methods=["POST"])]
        self.app = Starlette(routes=routes)

    async def _show(self, _: Request) -> Response:
        return HTMLResponse(self.page)

    async def _hear(self, request: Request) -> Response:
        self.results.set_result(await request.json())
        return Response()


async def browse(url: str, pages: Pages, profile: Path) -> dict[str, object]:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
    browser = await asyncio.create_subprocess_exec(
        *("chromium", *flags, f"--user-data-dir={profile}", url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            return await pages.results
    finally:
        browser.terminate()
        await browser.wait()


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_chromium_sees_it_so(
    store: ModelStore, authority: Authority, host: str, tmp_path: Path
) -> None:
    """A page of 127.0.0.1 may call for the tenant `page`; the same of localhost is a stranger."""
    reached: list[str] = []
    done: list[str] = []

    async def doing(scope: Scope, receive: Receive, send: Send) -> None:
        done.append(scope["path"])
        headers = {"stream-id": "s1", "content-type": "text/event-stream"}
        await Response("data: hello\n\n", headers=headers)(scope, receive, send)

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(f"{scope['method']} {scope['path']}")
        await stack(doing, authority, Audit(store))(scope, receive, send)

    pages = Pages()
    async with serving(counting) as api, serving(pages.app) as origin:
        add_tenant(store, "page", origin)
        given = {"api": api, "ticket": await ticket_of("page", authority)}
        pages.page = PAGE.replace("INPUT", json.dumps(given))
        results = await browse(origin.replace("127.0.0.1", host), pages, tmp_path)
    unread = dict.fromkeys(results, "unreadable")
    if host == "localhost":
        assert results == unread
        # What needs no preflight was sent all the same, and was refused.
        assert {"POST /simple", "GET /events"} <= set(reached)
        assert not {"POST /own", "POST /other"} & set(reached)
        assert not done
        return
    assert results == {
        **unread,
        "own": [200, "s1"],
        "again": [200, "s1"],
        "unknown": [401, None],
        "simple": 200,
        "events": "hello",
    }
    assert reached.count("OPTIONS /own") == 1
    assert done == ["/own", "/own", "/simple", "/events"]


async def ticket_of(name: str, authority: Authority) -> str:
    tenant = await authority.tenants.get(name)
    assert tenant
    identity = Identity(name, credential=f"key:{name}")
    return tickets.issue(tenant.secret, identity, "s1", purpose="read", expires_at=2**40)
