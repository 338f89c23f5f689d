"""Whose trace a request is a part of, and how a stream keeps it."""

import io
import json
import logging
import re

import pytest

from shared import trace
from shared.logger import logger

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GOOD = f"00-{ID}-{PARENT}-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.mark.parametrize(
    "header", [GOOD, f"00-{ID}-{PARENT}-00", f" {GOOD} ", f"cc-{ID}-{PARENT}-01-more"]
)
def test_a_good_traceparent_is_gone_on_with(header: str) -> None:
    assert trace.of_request({"traceparent": header, "x-amzn-trace-id": XRAY}) == ID


@pytest.mark.parametrize(
    "header",
    [
        "",
        ID,
        GOOD.upper(),
        f"ff-{ID}-{PARENT}-01",
        f"00-{ID}-{PARENT}-01-more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID[1:]}-{PARENT}-01",
        f"{GOOD}\n",
        f"{GOOD}, {GOOD}",
    ],
)
def test_of_a_bad_one_nothing_is_taken(header: str) -> None:
    headers = {"traceparent": header}
    assert re.fullmatch("[0-9a-f]{32}", made := trace.of_request(headers))
    assert made not in (ID, trace.of_request(headers))
    assert (
        trace.of_request(headers | {"x-amzn-trace-id": XRAY}) == "5759e988bd862e3fe1be46a994272793"
    )


@pytest.mark.parametrize("header", ["Root=1-5759e988-bd862e", "Parent=1", f"Root=1-{ID}", "x" * 9])
def test_of_what_is_no_root_neither(header: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", trace.of_request({"x-amzn-trace-id": header}))


async def test_a_streams_own_is_told_meanwhile_and_then_the_request_s_again() -> None:
    assert trace.kept() == trace.names() == {}
    with trace.of_stream({"trace": ID}):
        assert line()["trace_id"] == ID
    assert "trace_id" not in line()
    trace.begin("a" * 32)
    with trace.of_stream({"trace": ID}):
        assert (trace.names(), trace.kept()) == ({"trace_id": ID}, {"trace": ID})
    # One of an earlier version.
    with trace.of_stream({}):
        assert line()["trace_id"] == "a" * 32


def line() -> dict[str, str]:
    """What a line says that is logged now."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logger.registered_formatter)
    logger._logger.addHandler(handler)
    try:
        logger.warning("x")
    finally:
        logger._logger.removeHandler(handler)
    found: dict[str, str] = json.loads(written.getvalue())
    return found
