"""What every exchange has in common."""

import pytest
from sluice_client.machine import Reply

NOON = "Fri, 27 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("120", "", 120),
        ("Fri, 27 Nov 2026 12:01:30 GMT", NOON, 90),
        ("Fri, 27 Nov 2026 11:00:00 GMT", NOON, 0),
        ("Friday, 27-Nov-26 12:01:30 GMT", NOON, 90),
        ("Fri, 27 Nov 2026 12:01:30 GMT", "", None),
        ("Fri, 27 Nov 2026 12:01:30 GMT", "today", None),
        ("Fri, 27 Nov 2026 12:01:30", NOON, None),
        ("soon", NOON, None),
        ("-1", NOON, None),
        ("", NOON, None),
    ],
)
def test_when_to_come_again_is_said_in_seconds_or_by_the_servers_clock(
    retry_after: str, date: str, seconds: float | None
) -> None:
    headers = {"retry-after": retry_after, "date": date}
    assert Reply(503, headers, b"").retry_after_s == seconds
