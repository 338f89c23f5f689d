"""What CloudFormation is answered at a deployment, over HTTP as it asks for it."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.session import Session
from moto import mock_aws

from infra import handlers
from tests.infra.conftest import Template, of_type

Answers = list[dict[str, Any]]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


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


def test_a_page_that_is_open_finds_its_files_until_the_next_release(
    answers: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = answers
    now = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("moto.s3.models.utcnow", lambda: now)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def release(kind: str, *names: str) -> set[str]:
        """What the bucket holds behind a release of a page with such files."""
        asset = io.BytesIO()
        with zipfile.ZipFile(asset, "w") as archive:
            for name in names:
                archive.writestr(name, name)
        s3.put_object(Bucket="assets", Key="page.zip", Body=asset.getvalue())
        of_page = {"Bucket": "page", "AssetBucket": "assets", "AssetKey": "page.zip"}
        properties = {"ResourceProperties": of_page | {"Config": "{}"}}
        handlers.page(asked(url, kind, **properties), None)
        assert got[-1]["Status"] == "SUCCESS", got
        return {item["Key"] for item in s3.list_objects_v2(Bucket="page").get("Contents", [])}

    with mock_aws():
        s3: Any = Session().create_client("s3")
        for bucket in ("assets", "page"):
            s3.create_bucket(Bucket=bucket)
        always = {"index.html", "config.json", "font-AAAAAAAA.woff2"}
        assert release("Create", *always, "app-AAAAAAAA.js") == always | {"app-AAAAAAAA.js"}
        now += timedelta(days=30)
        both = release("Update", *always, "app-BBBBBBBB.js")
        assert both == always | {"app-AAAAAAAA.js", "app-BBBBBBBB.js"}
        now += timedelta(hours=1)
        both = release("Update", *always, "app-CCCCCCCC.js")
        assert both == always | {"app-BBBBBBBB.js", "app-CCCCCCCC.js"}
        assert release("Delete") == set()


def test_the_template_has_room_for_their_text(template: Template) -> None:
    inlined = [
        function["Properties"]["Code"]["ZipFile"]
        for function in of_type(template, "AWS::Lambda::Function").values()
        if "ZipFile" in function["Properties"]["Code"]
    ]
    assert len(inlined) == 2
    assert all(len(text) <= 4096 for text in inlined)
