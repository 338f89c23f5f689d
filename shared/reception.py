"""The reception of an answer: how one client was streamed to, measured for the metrics."""

from collections.abc import Sequence

from shared.log import Log
from shared.pulse import Sample
from shared.records import Record


class Reception:
    """Of one connection, from `after` on. Times are the log's clock, which is the records', too."""

    def __init__(self, log: Log, after: int) -> None:
        self._now_ms = log.now_ms
        self._after = after
        self._began = self._ended = log.now_ms()
        self._lags = Sample()
        self._interrupted = False

    def sent(self, records: Sequence[Record]) -> None:
        """Note how late they are; but for those that were there before the client was."""
        now_ms = self._now_ms()
        for record in records:
            if record.at >= self._began:
                # The writer's clock may be ahead of ours.
                self._lags.add(max(now_ms - record.at, 0))

    def over(self, *, left: bool, ended: bool) -> None:
        """The client `left`, or was let go; where the stream had `ended` it had all of it."""
        self._ended = self._now_ms()
        self._interrupted = left and not ended

    def figures(self) -> dict[str, float]:
        """What there is to tell."""
        found: dict[str, float] = {
            "Connections": 1,
            "Resumed": int(self._after >= 0),
            "Interrupted": int(self._interrupted),
            "ConnectionTime": max(self._ended - self._began, 0),
        }
        if self._lags:
            found |= {"LagP50": self._lags.quantile(0.5), "LagMax": self._lags.largest}
        return found
