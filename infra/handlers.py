"""What CloudFormation calls at a deployment: the page's files, and the edge's secret.

The text of this file is in the template. Lambda calls again where an answer was lost.
"""

import hashlib
import io
import json
import mimetypes
import re
import time
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError
from botocore.session import Session

# A function runs no longer (`infra/custom.py`).
RUN = timedelta(minutes=2)
# Until IAM knows everywhere what a role that has just been made may do.
WAITS_S = (1, 2, 4, 8, 16)
HASHED = re.compile(r"-[A-Z0-9]{8}\.")
Work = Callable[[], dict[str, str] | None]


def secret(event: dict[str, Any], _context: object) -> None:
    """Tell a secret, however often it is asked for; its digest may be seen by everyone."""

    def tell() -> dict[str, str]:
        if event["RequestType"] == "Delete":
            return {}
        kept: Any = Session().create_client("secretsmanager")
        told = kept.get_secret_value(SecretId=event["ResourceProperties"]["Kept"])["SecretString"]
        return {"Secret": told, "Digest": hashlib.sha256(told.encode()).hexdigest()}

    _answer(event, tell)


def page(event: dict[str, Any], _context: object) -> None:
    """Have a bucket hold a zip archive's files and the page's configuration; at the end nothing."""

    def publish() -> None:
        asked = event["ResourceProperties"]
        s3: Any = Session().create_client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=asked["Bucket"])
        held = [item for each in pages for item in each.get("Contents", [])]
        files = {} if event["RequestType"] == "Delete" else _files(s3, asked)
        # What names the others comes last.
        for name in sorted(files, key=lambda name: name.endswith(".html")):
            _put(s3, asked["Bucket"], name, files[name])
        for name in _unwanted(held, files):
            s3.delete_object(Bucket=asked["Bucket"], Key=name)

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


def _unwanted(held: list[dict[str, Any]], files: dict[str, bytes]) -> list[str]:
    """What goes of all that a bucket held before."""
    others = [item for item in held if item["Key"] not in files]
    last = next((item for item in held if item["Key"] == "index.html"), None)
    if last and files:
        digest = hashlib.md5(files["index.html"], usedforsecurity=False).hexdigest()
        if last["ETag"] == f'"{digest}"':
            # The same page once more, for an answer was lost, or with another configuration.
            return []
        # A page that is open may still ask for what came with the last `index.html`: it stays, and
        # goes with the next release.
        others = [item for item in others if item["LastModified"] < last["LastModified"] - RUN]
    return [item["Key"] for item in others]


def _answer(event: dict[str, Any], work: Work) -> None:
    told = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    told["PhysicalResourceId"] = event.get("PhysicalResourceId", event["LogicalResourceId"])
    try:
        data = _patiently(work) or {}
        told |= {"Status": "SUCCESS", "Data": data, "NoEcho": bool(data)}
    except Exception as error:  # noqa: BLE001 - CloudFormation waits for an answer
        told |= {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:400]}
    # S3 signed the address without a type of content.
    body, headers = json.dumps(told).encode(), {"Content-Type": ""}
    asked = urllib.request.Request(event["ResponseURL"], body, headers, method="PUT")  # noqa: S310
    urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310 - an address of AWS's own


def _patiently(work: Work) -> dict[str, str] | None:
    for wait_s in WAITS_S:
        try:
            return work()
        except ClientError as error:
            if not error.response["Error"]["Code"].startswith("AccessDenied"):
                raise
            time.sleep(wait_s)
    return work()
