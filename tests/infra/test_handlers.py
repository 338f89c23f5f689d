"""What CloudFormation is answered at a deployment, over HTTP as it asks for it."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session
from moto import mock_aws

from infra import handlers

Answers = list[dict[str, Any]]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Waiting(BaseHTTPRequestHandler):
    status = 200

    def __init__(self, got: Answers, *connection: Any) -> None:
        self._got = got
        super().__init__(*connection)

    def do_PUT(self) -> None:
        length = int(self.headers["content-length"])
        answer = json.loads(self.rfile.read(length))
        self._got.append(answer | {"type": self.headers["content-type"]})
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def answers() -> Iterator[tuple[str, Answers]]:
    """Where an answer is to be sent, and what has been sent there."""
    got: Answers = []
    with HTTPServer(("127.0.0.1", 0), partial(Waiting, got)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()
        thread.join()


def asked(url: str, kind: str = "Create", **more: Any) -> dict[str, Any]:
    ids = {"StackId": "stack", "RequestId": "request", "LogicalResourceId": "EdgeSecret"}
    return {"RequestType": kind, "ResponseURL": url, **ids, **more}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield


@pytest.fixture
def secret(aws: None) -> dict[str, Any]:
    """What a request says of a secret that Secrets Manager keeps."""
    secrets: Any = Session().create_client("secretsmanager")
    kept = secrets.create_secret(Name="kept", SecretString="of the edge")
    return {"ResourceProperties": {"Kept": kept["ARN"]}}


def test_a_secret_stays_what_it_is_and_only_its_digest_is_for_everyone(
    answers: tuple[str, Answers], secret: dict[str, Any]
) -> None:
    url, got = answers
    known = {"PhysicalResourceId": "EdgeSecret"}
    for kind, more in (("Create", {}), ("Update", known)):
        for _ in ("asked", "asked again"):
            handlers.secret(asked(url, kind, **secret, **more), None)
    told = "of the edge"
    for answer in got:
        assert answer["Status"] == "SUCCESS"
        assert answer["NoEcho"] is True
        # Another one would have the old one deleted.
        assert answer["PhysicalResourceId"] == "EdgeSecret"
        # S3 signed the address without one.
        assert answer["type"] == ""
        digest = hashlib.sha256(told.encode()).hexdigest()
        assert answer["Data"] == {"Secret": told, "Digest": digest}
    assert len(got) == 4


def test_a_secret_that_has_gone_is_no_reason_to_keep_a_stack(
    answers: tuple[str, Answers], aws: None
) -> None:
    url, got = answers
    gone = {"ResourceProperties": {"Kept": "gone"}, "PhysicalResourceId": "EdgeSecret"}
    for _ in ("asked", "asked again"):
        handlers.secret(asked(url, "Delete", **gone), None)
    assert [answer["Status"] for answer in got] == ["SUCCESS", "SUCCESS"]
    handlers.secret(asked(url, "Update", **gone), None)
    assert got[-1]["Status"] == "FAILED"
    assert got[-1]["Reason"].startswith("ResourceNotFoundException: ")


def test_where_an_answer_is_lost_lambda_asks_again_and_gets_the_same(
    answers: tuple[str, Answers], secret: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = answers
    request = asked(url, "Create", **secret)
    monkeypatch.setattr(Waiting, "status", 503)
    with pytest.raises(HTTPError):
        handlers.secret(request, None)
    monkeypatch.setattr(Waiting, "status", 200)
    handlers.secret(request, None)
    lost, arrived = got
    assert lost == arrived


@pytest.mark.parametrize(
    ("denied", "status"), [(3, "SUCCESS"), (6, "FAILED")], ids=["for a while", "for good"]
)
def test_a_role_that_is_new_is_given_time(
    answers: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch, denied: int, status: str
) -> None:
    url, got = answers
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)

    def work() -> dict[str, str]:
        if len(waited) < denied:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetSecretValue")
        return {"Secret": "of the edge"}

    handlers._answer(asked(url), work)
    assert got[-1]["Status"] == status
    assert len(waited) == min(denied, 5)
    # It answers before its function ends, and before CloudFormation waits no longer.
    assert sum(waited) < handlers.RUN.total_seconds() / 2


def test_what_goes_wrong_is_answered_and_not_waited_for(answers: tuple[str, Answers]) -> None:
    url, got = answers
    handlers.page(asked(url), None)
    [answer] = got
    assert answer["Status"] == "FAILED"
    assert answer["Reason"] == "KeyError: 'ResourceProperties'"


def test_a_page_that_is_open_finds_its_files_until_the_next_release(
    answers: tuple[str, Answers], aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = answers
    now = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("moto.s3.models.utcnow", lambda: now)

    def release(kind: str, *names: str) -> set[str]:
        """What the bucket holds behind a release of a page with such files."""
        asset = io.BytesIO()
        with zipfile.ZipFile(asset, "w") as archive:
            for name in names:
                archive.writestr(name, "".join(names) if name == "index.html" else name)
        s3.put_object(Bucket="assets", Key="page.zip", Body=asset.getvalue())
        of_page = {"Bucket": "page", "AssetBucket": "assets", "AssetKey": "page.zip"}
        properties = {"ResourceProperties": of_page | {"Config": "{}"}}
        handlers.page(asked(url, kind, **properties), None)
        assert got[-1]["Status"] == "SUCCESS", got
        return {item["Key"] for item in s3.list_objects_v2(Bucket="page").get("Contents", [])}

    s3: Any = Session().create_client("s3")
    for bucket in ("assets", "page"):
        s3.create_bucket(Bucket=bucket)
    always = ("index.html", "config.json", "font-AAAAAAAA.woff2")
    assert release("Create", *always, "app-AAAAAAAA.js") == {*always, "app-AAAAAAAA.js"}
    now += timedelta(days=30)
    both = release("Update", *always, "app-BBBBBBBB.js")
    assert both == {*always, "app-AAAAAAAA.js", "app-BBBBBBBB.js"}
    now += timedelta(minutes=5)
    # Where its answer was lost, or where only the configuration is another one.
    assert release("Update", *always, "app-BBBBBBBB.js") == both
    now += timedelta(hours=1)
    both = release("Update", *always, "app-CCCCCCCC.js")
    assert both == {*always, "app-BBBBBBBB.js", "app-CCCCCCCC.js"}
    assert release("Delete") == set()
    assert release("Delete") == set()
