"""Metrics: what is measured, under which names; and whom to tell of it.

Whoever measures tells one line at the end of something: an answer, a connection, a request; never
for a chunk. A line carries figures, dimensions that divide them, and properties, which only say
whose it was. What becomes of it is the sink's: on Lambda a line of the log that CloudWatch makes
metrics of (`functions.emf`), in the local run what `GET /metrics` shows.

A dimension has few values, as each of them is paid for: a model that nobody named in the settings
is `other`. A tenant is a property. No line holds a text, a secret or who the user is.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from shared.logger import logger

Unit = Literal["Count", "Milliseconds", "Count/Second"]
#: The value of a dimension that does not apply, and of one that is not told apart.
NONE, OTHER = "none", "other"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. A line leaves out a count that is 0, and what was not there to be measured."""

    name: str
    unit: Unit
    about: str


@dataclass(frozen=True, slots=True)
class Line:
    """What is told together. Each of `by` is a set of dimensions that divides its figures anew."""

    name: str
    by: tuple[tuple[str, ...], ...]
    metrics: tuple[Metric, ...]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All of them, once each."""
        return tuple(dict.fromkeys(name for names in self.by for name in names))


_BY_FUNCTION = (("function",),)
_BY_MODEL = (("function",), ("model", "variant"))

ANSWER = Line(
    "answer",
    _BY_MODEL,
    (
        Metric("AnswersCompleted", "Count", "Answers that came to their end"),
        Metric("AnswersCancelled", "Count", "Answers that somebody cancelled"),
        Metric("AnswersFailed", "Count", "Answers that failed, with what text there was kept"),
        Metric("AnswerTime", "Milliseconds", "From its start to its end"),
        Metric("InputTokens", "Count", "Tokens of the prompts, as settled"),
        Metric("OutputTokens", "Count", "Tokens of the answers, as settled"),
    ),
)
#: Beside an answer that failed.
FAILURE = Line(
    "failure", (("problem",),), (Metric("Failures", "Count", "Failed answers, by their problem"),)
)
PRODUCTION = Line(
    "production",
    _BY_MODEL,
    (
        Metric("TimeToFirstToken", "Milliseconds", "From asking the model to its first delta"),
        Metric("TimeToFirstChunk", "Milliseconds", "From the start of an answer to its first text"),
        Metric("TokensPerSecond", "Count/Second", "As the model says them, after its first delta"),
        Metric("GapP50", "Milliseconds", "Median time between two chunks of one producer"),
        Metric("GapP99", "Milliseconds", "The same, as 99 of 100 are at most"),
        Metric("GapDeviation", "Milliseconds", "Its standard deviation: the root of the variance"),
    ),
)
SUCCESSION = Line(
    "succession",
    _BY_FUNCTION,
    (
        Metric("TakenOver", "Count", "Producers that were found dead, of whom another takes over"),
        Metric("HandedOver", "Count", "Producers that left in time, so that another goes on"),
        Metric("Launches", "Count", "Producers that were asked for"),
        Metric("LaunchFailures", "Count", "Of these, those that could not be asked for"),
    ),
)
CONNECTION = Line(
    "connection",
    _BY_FUNCTION,
    (
        Metric("Connections", "Count", "Clients that were streamed to"),
        Metric("Resumed", "Count", "Of these, those that went on behind what they had seen"),
        Metric("Interrupted", "Count", "Of these, those whose client left before the end"),
        Metric("ConnectionTime", "Milliseconds", "How long a client was connected"),
        Metric("LagP50", "Milliseconds", "From a record's writing to its sending: the median"),
        Metric("LagMax", "Milliseconds", "The same, the longest of a connection"),
    ),
)
POLLING = Line(
    "polling",
    _BY_FUNCTION,
    (
        Metric("PollSessions", "Count", "Clients that polled a stream"),
        Metric("Polls", "Count", "How often they did"),
    ),
)
PROBLEM = Line(
    "problem",
    (("function", "problem"),),
    (Metric("Problems", "Count", "Requests that were answered with a problem"),),
)
REFUSAL = Line(
    "refusal", (("limit",),), (Metric("Refusals", "Count", "Requests that a limit refused"),)
)
REDACTION = Line(
    "redaction",
    (("detector",),),
    (Metric("Redactions", "Count", "Values that were redacted, or ended an answer"),),
)
BREAKER = Line(
    "breaker",
    (("model", "state"),),
    (Metric("BreakerChanges", "Count", "Breakers that opened or closed"),),
)
SWEEP = Line(
    "sweep",
    _BY_FUNCTION,
    (
        Metric("SweepLookedAt", "Count", "Open streams that a sweep has looked at"),
        Metric("SweepTakenOver", "Count", "Of these, those that it had taken over"),
        Metric("SweepParked", "Count", "Of these, those that nobody waits for any more"),
        Metric("SweepClosed", "Count", "Of these, those that it closed"),
        Metric("SweepErased", "Count", "Erasures that a sweep has finished"),
        Metric("SweepFailed", "Count", "What a sweep could not do"),
    ),
)

LINES = (
    *(ANSWER, FAILURE, PRODUCTION, SUCCESSION, CONNECTION, POLLING),
    *(PROBLEM, REFUSAL, REDACTION, BREAKER, SWEEP),
)

#: Takes a line: its figures by their names, its dimensions, its properties. May raise.
Sink = Callable[[Line, Mapping[str, float], Mapping[str, str], Mapping[str, str]], None]


class Metrics:
    """Whom to tell. `models` are the names that are told apart, without their queries."""

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        function: str = NONE,
        models: Collection[str] = frozenset(),
    ) -> None:
        self._sink = sink
        self._function = function
        self._models = models

    def tell(self, line: Line, figures: Mapping[str, float], /, **about: str | None) -> None:
        """Tell one line. `about` are its dimensions, and properties. It never raises: what was
        measured goes on as it would without.
        """
        if self._sink is None:
            return
        try:
            told = {name: value for name, value in figures.items() if value or name not in _COUNTS}
            if not told:
                return
            known = {name: value for name, value in about.items() if value}
            dimensions = {name: self._dimension(name, known) for name in line.dimensions}
            properties = {name: known[name] for name in known if name not in dimensions}
            self._sink(line, told, dimensions, properties)
        except Exception as error:  # noqa: BLE001 - whatever a sink does
            logger.error("a metric was lost", extra={"error": type(error).__name__})

    def _dimension(self, name: str, about: Mapping[str, str]) -> str:
        if name == "function":
            return self._function
        value = about.get(name, NONE)
        if name != "model":
            return value
        model = value.partition("?")[0]
        return model if model in self._models else OTHER


#: Tells nobody.
SILENT = Metrics()

_COUNTS = frozenset(m.name for line in LINES for m in line.metrics if m.unit == "Count")
