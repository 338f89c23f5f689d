"""The pulse of an answer: how its model speaks and its chunks come, measured for the metrics."""

import asyncio
import math

#: How many values a sample keeps: beyond, every second one of them.
KEPT_MAX = 1024


class Pulse:
    """Of one producer. Times are the event loop's, in seconds; what it tells is in ms."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._asked: float | None = None
        self._first_heard: float | None = None
        self._last_heard = 0.0
        self._first_chars = self._chars = 0
        self._shown: float | None = None
        self._waited_ms: float | None = None
        self.gaps = Sample()

    def asked(self) -> None:
        """The model is asked."""
        self._asked = self._now()

    def heard(self, chars: int) -> None:
        """A delta is there, of so many characters."""
        self._last_heard = self._now()
        self._chars += chars
        if self._first_heard is None:
            self._first_heard, self._first_chars = self._last_heard, chars

    @property
    def waited_s(self) -> float | None:
        """From asking the model to its first delta, where there was one."""
        if self._asked is None or self._first_heard is None:
            return None
        return self._first_heard - self._asked

    def showed(self, age_ms: float) -> None:
        """A chunk is durable, and shown, of a stream that is so old."""
        if self._waited_ms is None:
            self._waited_ms = age_ms
        now = self._now()
        if self._shown is not None:
            self.gaps.add((now - self._shown) * 1000)
        self._shown = now

    def rested(self) -> None:
        """There was a pause: what comes next is no late chunk."""
        self._shown = None

    def figures(self, output_tokens: int, *, begins: bool) -> dict[str, float]:
        """What there is to tell, of so many tokens; and whether the stream `begins` with them."""
        found: dict[str, float] = {}
        if self.gaps:
            found["GapP50"] = self.gaps.quantile(0.5)
            found["GapP99"] = self.gaps.quantile(0.99)
            found["GapDeviation"] = self.gaps.deviation
        if begins and self._waited_ms is not None:
            found["TimeToFirstChunk"] = self._waited_ms
        if self._first_heard is not None and (waited_s := self.waited_s) is not None:
            found["TimeToFirstToken"] = waited_s * 1000
            spoke_s = self._last_heard - self._first_heard
            if spoke_s > 0 and output_tokens:
                # The first delta took none of this time.
                rest = 1 - self._first_chars / self._chars
                found["TokensPerSecond"] = output_tokens * rest / spoke_s
        return found


class Sample:
    """Values, as many as there may be: their quantiles by some that are evenly spread over all, the
    rest exactly.
    """

    def __init__(self) -> None:
        self.largest = -math.inf
        self._count = 0
        self._mean = self._squares = 0.0
        self._kept: list[float] = []
        self._every = 1

    def __bool__(self) -> bool:
        return bool(self._count)

    def add(self, value: float) -> None:
        self.largest = max(self.largest, value)
        if self._count % self._every == 0:
            self._kept.append(value)
            if len(self._kept) > KEPT_MAX:
                self._kept = self._kept[::2]
                self._every *= 2
        # Welford's: a sum of squares would lose what a long answer adds.
        self._count += 1
        off = value - self._mean
        self._mean += off / self._count
        self._squares += off * (value - self._mean)

    @property
    def deviation(self) -> float:
        """The standard deviation of what there is: at least one value."""
        return math.sqrt(self._squares / self._count)

    def quantile(self, part: float) -> float:
        """The least value that so great a part of them does not exceed; there is at least one."""
        return sorted(self._kept)[max(math.ceil(part * len(self._kept)) - 1, 0)]
