"""The page's files, as the local run serves them."""

import json
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from local import page
from shared.middleware.authorization import Endpoint

POLICY = {"Content-Security-Policy": "default-src 'none'"}
ASSET = "app-ABCDEF23.js"
MODELS = ("openai/gpt", "demo")


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A page that is built, with a secret beside it."""
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "index.html").write_text("<title>Sluice</title>")
    (dist / ASSET).write_text("work()")
    (dist / "favicon.svg").write_text("<svg/>")
    (tmp_path / "headers.json").write_text(json.dumps(POLICY))
    return tmp_path


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_the_document_is_asked_for_anew_and_has_the_headers(web: Path) -> None:
    async with client(page.build("demo", MODELS, web)) as browser:
        got = await browser.get("/")
        assert (got.status_code, got.text) == (200, "<title>Sluice</title>")
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        assert got.headers["cache-control"] == "no-cache"
        assert got.headers.items() >= {(n.lower(), v) for n, v in POLICY.items()}
        known = {"if-none-match": got.headers["etag"]}
        again = await browser.get("/", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "no-cache"
        (web / "dist" / "index.html").write_text("<title>Another</title>")
        assert (await browser.get("/", headers=known)).text == "<title>Another</title>"


async def test_what_has_a_hash_in_its_name_is_kept_for_ever(web: Path) -> None:
    async with client(page.build("demo", MODELS, web)) as browser:
        asset, icon = await browser.get(f"/{ASSET}"), await browser.get("/favicon.svg")
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert asset.headers["content-type"].startswith("text/javascript")
    assert icon.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", f"/{ASSET}", "/config.json"])
async def test_a_head_is_a_get_without_its_body(path: str, web: Path) -> None:
    async with client(page.build("demo", MODELS, web)) as browser:
        head, get = await browser.head(path), await browser.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


async def test_what_the_page_asks_first(web: Path) -> None:
    async with client(page.build("demo", MODELS, web)) as browser:
        told = (await browser.get("/config.json")).json()
    assert told == {"local": True, "key": "demo", "models": [*MODELS], "bodyHash": False}


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        f"/{ASSET}/more",
        "/../headers.json",
        "/..%2fheaders.json",
        "/%2e%2e/headers.json",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/..%5cheaders.json",
        "/%00",
        "/" + 300 * "x",
    ],
)
async def test_nothing_else_is_there(path: str, web: Path) -> None:
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "headers": [],
    }
    statuses: list[int] = []

    async def send(message: dict[str, int]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    await page.build("demo", MODELS, web)(scope, _receive, send)  # type: ignore[arg-type]
    assert statuses == [404]


async def test_a_link_does_not_lead_out(web: Path) -> None:
    (web / "dist" / "link.json").symlink_to(web / "headers.json")
    async with client(page.build("demo", MODELS, web)) as browser:
        assert (await browser.get("/link.json")).status_code == 404


async def test_nothing_can_be_sent_to_it(web: Path) -> None:
    async with client(page.build("demo", MODELS, web)) as browser:
        assert (await browser.post("/")).status_code == 405


async def test_where_it_is_not_built_it_says_how(tmp_path: Path) -> None:
    async with client(page.build("demo", MODELS, tmp_path)) as browser:
        got = await browser.get("/")
    assert got.status_code == 404
    assert "scripts/dev" in got.text


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/", "page"),
        ("/v1", "app"),
        ("/v1/nowhere", "app"),
        ("/v10/streams", "page"),
        ("/healthz", "app"),
        ("/x/v1/streams", "page"),
    ],
)
async def test_which_addresses_are_the_page_s(path: str, served: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("app")

    async def files(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("page")

    async def nothing(_: object) -> None:
        raise AssertionError

    seen: list[str] = []
    endpoints = [
        Endpoint("GET", "/v1/streams/{stream}", None, nothing),  # type: ignore[arg-type]
        Endpoint("GET", "/healthz", None, nothing),  # type: ignore[arg-type]
    ]
    await page.beside(app, endpoints, files)({"path": path}, _receive, nothing)
    assert seen == [served]


async def _receive() -> dict[str, str]:
    return {"type": "http.disconnect"}
