"""What CloudFormation calls at a deployment: the page's files, and the edge's secret.

The text of this file is in the template, which has room for 4096 characters of it.
"""

import hashlib
import io
import json
import mimetypes
import re
import secrets
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from botocore.session import Session

# A function runs no longer (`infra/custom.py`).
RUN = timedelta(minutes=2)
HASHED = re.compile(r"-[A-Z0-9]{8}\.")


def secret(event: dict[str, Any], _context: object) -> None:
    """Draw a secret; its digest may be seen by everyone."""

    def draw() -> dict[str, str]:
        drawn = secrets.token_urlsafe(32)
        return {"Secret": drawn, "Digest": hashlib.sha256(drawn.encode()).hexdigest()}

    _answer(event, draw)


def page(event: dict[str, Any], _context: object) -> None:
    """Have a bucket hold a zip archive's files and the page's configuration; at the end nothing."""

    def publish() -> None:
        asked = event["ResourceProperties"]
        s3: Any = Session().create_client("s3")
        bucket, kept = asked["Bucket"], set[str]()
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        listed = (item for each in pages for item in each.get("Contents", []))
        held = {item["Key"]: item["LastModified"] for item in listed}
        if event["RequestType"] != "Delete":
            files = _files(s3, asked)
            # What names the others comes last.
            for name in sorted(files, key=lambda name: name.endswith(".html")):
                _put(s3, bucket, name, files[name])
            kept = set(files)
        for name in _unwanted(held, kept):
            s3.delete_object(Bucket=bucket, Key=name)

    _answer(event, publish)


def _files(s3: Any, asked: dict[str, str]) -> dict[str, bytes]:
    held = s3.get_object(Bucket=asked["AssetBucket"], Key=asked["AssetKey"])["Body"].read()
    with zipfile.ZipFile(io.BytesIO(held)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name: archive.read(name) for name in names} | {
            "config.json": asked["Config"].encode()
        }


def _put(s3: Any, bucket: str, name: str, content: bytes) -> None:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    hashed = HASHED.search(name)
    s3.put_object(
        Bucket=bucket,
        Key=name,
        Body=content,
        ContentType=f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
        CacheControl="public, max-age=31536000, immutable" if hashed else "no-cache",
    )


def _unwanted(held: dict[str, datetime], kept: set[str]) -> list[str]:
    """What goes of all that a bucket held before, by when it was put there."""
    # A page that is open may still ask for what came with the last `index.html`: it stays, and goes
    # with the next release.
    last = held.get("index.html")
    since = last - RUN if last and kept else None
    return [name for name, at in held.items() if name not in kept and not (since and at >= since)]


def _answer(event: dict[str, Any], work: Callable[[], dict[str, str] | None]) -> None:
    told = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    told["PhysicalResourceId"] = event.get("PhysicalResourceId", event["LogicalResourceId"])
    try:
        data = work() or {}
        told |= {"Status": "SUCCESS", "Data": data, "NoEcho": bool(data)}
    except Exception as error:  # noqa: BLE001 - CloudFormation waits for an answer
        told |= {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:400]}
    # S3 signed the address without a type of content.
    body, headers = json.dumps(told).encode(), {"Content-Type": ""}
    asked = urllib.request.Request(event["ResponseURL"], body, headers, method="PUT")  # noqa: S310
    urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310 - an address of AWS's own
