"""How the `produce` function is launched on AWS."""

import asyncio
import functools
import json
from typing import Any

from shared.errors import Unavailable
from shared.metrics import SUCCESSION, Metrics
from shared.records import StreamKey
from shared.settings import Settings
from shared.spans import Role, Spans
from shared.takeover import Launch


def lambda_launch(settings: Settings) -> Launch:
    """Launches the `produce` function; Lambda keeps the event until that has run."""

    @functools.cache
    def client() -> Any:
        # Made at the first launch: most processes of `stream` and `sweep` never come to one.
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "lambda",
            region_name=settings.region,
            config=Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard"}),
        )

    def invoke(event: bytes) -> None:
        client().invoke(
            FunctionName=settings.produce_function, InvocationType="Event", Payload=event
        )

    async def launch(key: StreamKey) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        event = json.dumps({"tenant": key.tenant, "stream": key.stream}).encode()
        try:
            await asyncio.to_thread(invoke, event)
        except (BotoCoreError, ClientError) as error:
            raise Unavailable("The stream's producer could not be started.") from error

    return launch


def counted(launch: Launch, metrics: Metrics, spans: Spans) -> Launch:
    """The same, of which metrics are told, and a span."""

    async def launching(key: StreamKey) -> None:
        failed = True
        try:
            with spans.span("launch", Role.PRODUCER, **key.names):
                await launch(key)
            failed = False
        finally:
            figures = {"Launches": 1, "LaunchFailures": int(failed)}
            metrics.tell(SUCCESSION, figures, **key.names)

    return launching
