"""What CloudFormation is answered at a deployment, over HTTP as it asks for it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from infra import handlers
from tests.infra.conftest import Template, of_type

Answers = list[dict[str, Any]]


@pytest.fixture
def answers() -> Iterator[tuple[str, Answers]]:
    """Where an answer is to be sent, and what has been sent there."""
    got: Answers = []

    class Waiting(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            length = int(self.headers["content-length"])
            got.append(json.loads(self.rfile.read(length)) | {"type": self.headers["content-type"]})
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Waiting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()
        thread.join()


def asked(url: str, kind: str = "Create", **more: Any) -> dict[str, Any]:
    ids = {"StackId": "stack", "RequestId": "request", "LogicalResourceId": "EdgeSecret"}
    return {"RequestType": kind, "ResponseURL": url, **ids, **more}


def test_a_secret_is_drawn_and_only_its_digest_is_for_everyone(
    answers: tuple[str, Answers],
) -> None:
    url, got = answers
    handlers.secret(asked(url), None)
    handlers.secret(asked(url, "Update", PhysicalResourceId="EdgeSecret"), None)
    for answer in got:
        assert answer["Status"] == "SUCCESS"
        assert answer["NoEcho"] is True
        # Another one would have the old one deleted.
        assert answer["PhysicalResourceId"] == "EdgeSecret"
        # S3 signed the address without one.
        assert answer["type"] == ""
        secret = answer["Data"]["Secret"]
        assert len(secret) >= 43  # 256 bits
        assert answer["Data"]["Digest"] == hashlib.sha256(secret.encode()).hexdigest()
    assert got[0]["Data"]["Secret"] != got[1]["Data"]["Secret"]


def test_what_goes_wrong_is_answered_and_not_waited_for(answers: tuple[str, Answers]) -> None:
    url, got = answers
    handlers.page(asked(url), None)
    [answer] = got
    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "KeyError: 'ResourceProperties'"


def test_the_template_has_room_for_their_text(template: Template) -> None:
    inlined = [
        function["Properties"]["Code"]["ZipFile"]
        for function in of_type(template, "AWS::Lambda::Function").values()
        if "ZipFile" in function["Properties"]["Code"]
    ]
    assert len(inlined) == 2
    assert all(len(text) <= 4096 for text in inlined)
