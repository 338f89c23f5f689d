"""The local run: what is several functions on AWS, behind one port."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions import api, stream, wiring
from functions.produce import produce
from functions.sweep import sweep
from functions.wiring import Services
from local import page
from local.errors import Failed
from local.metrics import Figures, with_metrics
from local.producers import Mortal, Producers, on_machines
from shared.administration import Administration
from shared.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from shared.identity import jwks
from shared.logger import logger
from shared.middleware.problems import problem_response
from shared.records import StreamKey
from shared.schema import OPEN_SHARDS
from shared.settings import Settings
from shared.table import Store

HOST = "127.0.0.1"
#: The names of this machine, as browsers send them.
_HERE = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: The tenant of a local run, and its key.
DEMO = "demo"
#: How often what is half done is finished.
SWEEP_S = 20.0
#: How long requests may go on once we are told to stop.
GRACE_S = 2


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """The port, so that nobody else has it while the database starts. Raises `Failed`."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except PermissionError:
            raise Failed(f"port {port} is not ours to take; choose another with --port") from None
        except OSError:
            raise Failed(f"port {port} is taken; choose another with --port") from None
        yield listener


def run(
    listener: socket.socket, settings: Settings, store: Store, ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; what is being produced then goes on with the next run."""
    # The functions' JSON lines are for machines; what went wrong is still said.
    logger.setLevel("WARNING")
    asyncio.run(_run(listener, settings, store, ready))


async def _run(
    listener: socket.socket, settings: Settings, store: Store, ready: Callable[[], None]
) -> None:
    producers, figures = Producers(), Figures()

    async def launch(key: StreamKey) -> None:
        producers.launch(produce(services, key))

    try:
        # An issuer of tokens may run on this machine, as all else does.
        fetch = partial(jwks.fetch, loopback=True)
        services = Services.on(
            Mortal(store),
            settings,
            fetch=fetch,
            launch=launch,
            metrics=figures.metrics(settings),
            spans=wiring.spans(settings, "local"),
        )
        services = replace(services, live=producers)
    except ValueError as error:
        raise Failed(f"a setting is wrong: {error}") from error
    try:
        await Administration(store).ensure(DEMO, DEMO)
    except InvalidRequest as error:
        raise Failed(f"the key `{DEMO}` is another tenant's in this database") from error

    app = with_metrics(served(services, producers), figures)
    config = uvicorn.Config(
        with_request_lines(only_here(app)),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        proxy_headers=False,  # anyone here could say to be any address
        timeout_graceful_shutdown=GRACE_S,
    )
    ready()
    sweeping = asyncio.create_task(_sweep(services))
    try:
        await _Server(config, producers).serve([listener])
    finally:
        sweeping.cancel()
        if left := producers.left:
            goes = "answer goes" if left == 1 else "answers go"
            print(f"{left} {goes} on with the next run.", flush=True)


async def _sweep(services: Services) -> None:
    """What the schedule does on AWS: at once, too, for what the last run has left."""
    with suppress(Unavailable):
        await go_on(services)
    while True:
        try:
            await sweep(services, deadline=asyncio.get_running_loop().time() + SWEEP_S)
        except Exception as error:  # noqa: BLE001 - the next one may do better, as on AWS
            logger.error("a sweep failed", extra={"error": type(error).__name__})
        await asyncio.sleep(SWEEP_S)


async def go_on(services: Services) -> None:
    """Produce what the last run has left vacant: it could ask nobody to, so nobody will come."""
    for shard in range(OPEN_SHARDS):
        async with aclosing(services.log.open_streams(shard)) as keys:
            async for key in keys:
                with suppress(NotFound):  # it was erased meanwhile
                    if (await services.log.tail(key)).vacant:
                        await services.launch(key)


def served(services: Services, producers: Producers) -> ASGIApp:
    """Everything: both functions, what only a local run can do, and the page."""
    answering = [*api.endpoints(services), producers.endpoint]
    functions = one_port(stream.build(services), wiring.app(answering, services))
    endpoints = [*answering, *stream.endpoints(services), *wiring.open_endpoints(services)]
    return page.beside(
        on_machines(functions), endpoints, page.build(DEMO, services.settings.offered_models)
    )


def one_port(streaming: ASGIApp, answering: ASGIApp) -> ASGIApp:
    """Both apps as one, told apart by path as the edge does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (streaming if streams(scope["path"]) else answering)(scope, receive, send)

    return app


def streams(path: str) -> bool:
    return path == "/v1/streams" or path.endswith(("/events", "/export"))


def only_here(app: ASGIApp) -> ASGIApp:
    """The app, for who calls this machine by a name of its own.

    A page can have its own name lead here (DNS rebinding). It would be of our origin then, and
    could use the key of a local run, which everybody knows.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = Headers(scope=scope).getlist("host")
        here = len(hosts) == 1 and _HERE.fullmatch(hosts[0])
        refusal = Forbidden("The local run answers at 127.0.0.1, localhost and [::1] only.")
        await (app if here else problem_response(refusal))(scope, receive, send)

    return checked


def with_request_lines(app: ASGIApp) -> ASGIApp:
    """The app, with a line for people on each request at its end."""

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, noting)
        finally:
            took_ms = round((time.monotonic() - began) * 1000)
            # As it was sent: decoded, a path may hold what steers a terminal.
            path = scope["raw_path"][:200].decode("ascii", "backslashreplace")
            print(f"{scope['method']} {path} {status or '-'} {took_ms} ms", flush=True)

    return telling


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, producers: Producers) -> None:
        super().__init__(config)
        self._producers = producers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # Not uvicorn's own, which raises the signal again at the end: to be stopped is no failure.
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # First, so that the clients which are attached are still told how their streams ended.
        await self._producers.stop()
        await super().shutdown(sockets)
        # Again, for what was started meanwhile.
        await self._producers.stop()
