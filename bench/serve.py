"""One server process: `python -m bench.serve stream|bare|api|page|floor FD ENDPOINT`.

It serves on an open socket. The functions' apps are those that Lambda runs, with the bench's model
beside the others and a counting store; `GET /counts` tells what was counted and begins anew. `bare`
is the `stream` function with nothing but the log behind it, `page` the page before `api`.
"""

import socket
import sys
from dataclasses import asdict, replace

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bench import floor
from bench.bare import Bare
from bench.client import KEY
from bench.counting import Counting, Counts
from bench.model import Stamped
from functions import api, stream
from functions.wiring import Services, dynamodb, providers
from local import page
from shared.models import Models
from shared.records import StreamKey
from shared.settings import Settings


def main(role: str, fd: str, endpoint: str) -> None:
    settings = Settings(dynamodb_endpoint=endpoint)
    models = Models({**providers(settings), "bench": Stamped()})
    app = floor.build(models) if role == "floor" else _function(role, settings, models)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fd))])


def _function(role: str, settings: Settings, models: Models) -> ASGIApp:
    store = Counting(dynamodb(settings))
    services = Services.on(store, settings, models, launch=_launch)
    if role == "bare":
        services = replace(services, lifecycle=Bare.of(services))
    app = stream.build(services) if role in ("stream", "bare") else api.build(services)
    if role == "page":
        return page.beside(app, api.endpoints(services), page.build(KEY, settings.offered_models))

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/counts":
            counts, store.counts = store.counts, Counts()
            await JSONResponse(asdict(counts))(scope, receive, send)
        else:
            await app(scope, receive, send)

    return counted


async def _launch(_: StreamKey) -> None:
    raise NotImplementedError("the bench starts no answer through `api`")


if __name__ == "__main__":
    main(*sys.argv[1:])
