"""The page, as a deployment has it: files behind the functions' own addresses."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.middleware.authorization import Endpoint

#: Where `web/build.mjs` puts the page.
WEB = Path(__file__).resolve().parent.parent / "web"
#: What esbuild puts into a name whose content never changes: eight of base 32.
_HASHED = re.compile(r"-[A-Z2-7]{8}\.\w+$")
_NOT_BUILT = (
    "The page is not built yet. Run `scripts/dev`, or `node web/build.mjs` and start again.\n"
)


def beside(app: ASGIApp, endpoints: Iterable[Endpoint], page: ASGIApp) -> ASGIApp:
    """The app at the addresses that begin as its endpoints do, and the page at all others."""
    roots = {_root(endpoint.path) for endpoint in endpoints}

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if _root(scope["path"]) in roots else page)(scope, receive, send)

    return either


def _root(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path


def build(key: str, models: Sequence[str], web: Path = WEB) -> ASGIApp:
    """The page in `web/dist`, with the headers in `web/headers.json`, and what it asks first:
    `/config.json`, with the key that it is to use and what models it offers.
    """
    config = {"local": True, "key": key, "models": models, "bodyHash": False}
    dist, listed = web / "dist", web / "headers.json"
    headers: dict[str, str] = json.loads(listed.read_text()) if listed.is_file() else {}

    async def configuration(_: Request) -> Response:
        return JSONResponse(config, headers={"cache-control": "no-cache"})

    built = (dist / "index.html").is_file()
    files = _Files(dist, headers) if built else PlainTextResponse(_NOT_BUILT, 404)
    return Starlette(routes=[Route("/config.json", configuration), Mount("/", files)])


class _Files(StaticFiles):
    """Files that a browser asks for anew, but where the name changes with the content."""

    def __init__(self, directory: Path, headers: Mapping[str, str]) -> None:
        super().__init__(directory=directory, html=True)
        self._headers = headers

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        hashed = _HASHED.search(str(full_path))
        for_ever = "public, max-age=31536000, immutable"
        response.headers["cache-control"] = for_ever if hashed else "no-cache"
        response.headers.update(self._headers)
        return response
