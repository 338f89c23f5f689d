"""`sluice cost`: what answers cost on AWS, foreseen by the design or counted by CloudWatch.

The price of the model is never in it: that is between you and its provider.
"""

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from local import prices
from local.terminal import note, show_json, show_table
from shared.pacing import Pacer, Pacing

MONTH_S = 30 * 86_400
#: A token of English, and the record around a chunk's text, in bytes.
TOKEN_BYTES = 4
RECORD_BYTES = 160
#: What an answer writes beside its chunks, in write units: the transactions of its start and its
#: end, with the quotas, the audit and the indexes in them.
FIXED_WRU = 26
#: And what it writes more where it waits for `produce`: the epoch, the launch, the polls' entries.
ASYNC_WRU = 21
#: Read units: an answer's own, with what is remembered of its tenant; a poll's; a follower's look.
ANSWER_RRU = 3
POLL_RRU = 1.5
LOOK_RRU = 0.5
#: How long a request to `api` takes, in s.
POLL_S = 0.05
#: One event on the wire, beside its text.
EVENT_BYTES = 50
#: What is logged of an answer and its production, of a connection, of a poll, of a stream that
#: `produce` takes with what its client polls, and by Lambda of each invocation.
ANSWER_LOG_BYTES = 1450
CONNECTION_LOG_BYTES = 750
POLL_LOG_BYTES = 400
ASYNC_LOG_BYTES = 1500
LAMBDA_LOG_BYTES = 400
#: A sweep each minute: the shards of the index of open streams, within a second.
SWEEP_RRU = 10
#: What watches a stack with one model (docs/decisions/observability.md): metrics of the functions
#: where everything happens, those that an alarm looks at, and the edge's.
METRICS = 85
ALARM_METRICS = 43
EDGE_METRICS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked in a month. `polled` is the share of answers whose client polls, `followers`
    how many others follow each answer on connections of their own.
    """

    answers: int
    tokens: int = 500
    tokens_s: float = 50.0
    first_token_s: float = 0.8
    memory_mb: int = 256
    polled: float = 0.0
    followers: float = 0.0
    retention_days: int = 30
    edge: bool = True

    @property
    def answer_s(self) -> float:
        return self.first_token_s + self.tokens / self.tokens_s


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is billed: how much of it, and what that costs."""

    what: str
    amount: float
    unit: str
    usd: float


def chunks(load: Load, pacing: Pacing | None = None) -> list[int]:
    """The sizes of an answer's chunks, in bytes of text, by the pacing that the producer has."""
    pacer, held, sizes = Pacer(pacing or Pacing()), 0, list[int]()
    for number in range(load.tokens):
        now = load.first_token_s + number / load.tokens_s
        held += TOKEN_BYTES
        if now >= pacer.due("") or number == load.tokens - 1:
            pacer.wrote(now)
            sizes.append(held)
            held = 0
    return sizes


def answer_wru(load: Load) -> float:
    """The write units of an answer whose client streams."""
    return FIXED_WRU + sum(math.ceil((size + RECORD_BYTES) / 1024) for size in chunks(load))


def foreseen(load: Load) -> list[Line]:
    """A month's bill for a load, beside what is `standing`."""
    sizes = chunks(load)
    gap_s = load.answer_s / max(len(sizes), 1)
    polls = load.answers * load.polled * math.ceil(load.answer_s / max(gap_s, 0.25))
    followers = load.answers * load.followers
    looks = followers * 2 * len(sizes)
    wru = load.answers * (answer_wru(load) + load.polled * ASYNC_WRU)
    rru = load.answers * ANSWER_RRU + polls * POLL_RRU + looks * LOOK_RRU
    gb = load.memory_mb / 1024
    seconds = (load.answers + followers) * load.answer_s
    requests = load.answers * (1 + load.polled) + followers + polls
    text = load.tokens * TOKEN_BYTES
    sent = (load.answers + followers) * (text + len(sizes) * EVENT_BYTES)
    stored = load.answers * (text + len(sizes) * RECORD_BYTES + 6 * 1024)
    lines = [
        line("Lambda: answers and followers", seconds * gb, "GB-s", prices.LAMBDA_GB_S),
        line("Lambda: polls", polls * POLL_S * gb, "GB-s", prices.LAMBDA_GB_S),
        line("Lambda: requests", requests, "", prices.LAMBDA_REQUEST),
        line("DynamoDB: writes", wru, "WRU", prices.WRU),
        line("DynamoDB: reads", rru, "RRU", prices.RRU),
        line(
            f"DynamoDB: storage for {load.retention_days} days",
            stored * load.retention_days / 30 / 1e9,
            "GB",
            prices.STORED_GB_MONTH,
        ),
        line("CloudWatch: logs", logged(load, polls) / 1e9, "GB", prices.LOGS_GB),
    ]
    if load.edge:
        lines += [
            line("CloudFront: requests", requests, "", prices.EDGE_REQUEST),
            line("CloudFront: to the internet", sent / 1e9, "GB", prices.EDGE_GB),
        ]
    return lines


def logged(load: Load, polls: float) -> float:
    """The bytes that a load with so many polls has in the log."""
    waiting = load.answers * load.polled
    connections = load.answers - waiting + load.answers * load.followers
    invocations = connections + 2 * waiting + polls
    return (
        load.answers * ANSWER_LOG_BYTES
        + connections * CONNECTION_LOG_BYTES
        + waiting * ASYNC_LOG_BYTES
        + polls * POLL_LOG_BYTES
        + invocations * LAMBDA_LOG_BYTES
    )


def standing(*, edge: bool = True) -> list[Line]:
    """What a month costs whatever is asked. The metrics of the functions are those of a stack in
    which all of them are told each hour.
    """
    minutes = MONTH_S / 60
    lines = [
        line("Lambda: the sweep, each minute", minutes * 0.2 * 0.25, "GB-s", prices.LAMBDA_GB_S),
        line("DynamoDB: reads of the sweep", minutes * SWEEP_RRU, "RRU", prices.RRU),
        line("CloudWatch: metrics, at most", METRICS, "", prices.METRIC_MONTH),
        line("CloudWatch: metrics in alarms", ALARM_METRICS, "", prices.ALARM_METRIC_MONTH),
        line("CloudWatch: the dashboard", 1, "", prices.DASHBOARD_MONTH),
        line("CloudWatch: the ranking of tenants", 1, "", prices.RULE_MONTH),
        line("KMS: the key of the alarms", 1, "", prices.KEY_MONTH),
    ]
    if edge:
        lines += [
            line("CloudFront: metrics", EDGE_METRICS, "", prices.METRIC_MONTH),
            line("Secrets Manager: the edge's secret", 1, "", prices.SECRET_MONTH),
        ]
    return lines


def line(what: str, amount: float, unit: str, usd: float) -> Line:
    return Line(what, amount, unit, amount * usd)


def cost(options: Namespace) -> int:
    """The command."""
    if options.stack:
        from local import billed

        lines, more = billed.lines(options), None
        said = f"{options.stack} over the last {options.days} days, as CloudWatch counted it"
    else:
        load = Load(
            answers=options.answers,
            tokens=options.tokens,
            tokens_s=options.rate,
            first_token_s=options.ttft,
            memory_mb=options.memory,
            polled=options.polled,
            followers=options.followers,
        )
        of_answers, always = foreseen(load), standing()
        lines = [*of_answers, *always]
        each = f"{load.tokens:,} tokens in {load.answer_s:.1f} s"
        said = f"A month of {load.answers:,} answers, each {each}"
        more = (
            f"That is {_usd(of_answers) / load.answers * 1000:.3f} USD for 1,000 answers, and "
            f"{_usd(always):.2f} whatever is asked."
        )
    if options.json:
        told = [asdict(one) for one in lines]
        show_json({"prices": prices.AS_OF, "lines": told, "usd": _usd(lines)})
        return 0
    print(f"{said}.\nPrices of us-east-1, {prices.AS_OF}; the model's own is not counted.\n")
    show_table(("", "amount", "", "USD"), _rows(lines))
    if more:
        note(more)
    return 0


def _usd(lines: Sequence[Line]) -> float:
    return sum(line.usd for line in lines)


def _rows(lines: Sequence[Line]) -> list[tuple[str, str, str, str]]:
    total = f"{_usd(lines):,.2f}"
    texts = [(one.what, _amount(one.amount), one.unit, f"{one.usd:,.2f}") for one in lines]
    width = max(len(row[1]) for row in texts)
    money = max(len(total), *(len(row[3]) for row in texts))
    return [
        *((what, amount.rjust(width), unit, usd.rjust(money)) for what, amount, unit, usd in texts),
        ("all", "".rjust(width), "", total.rjust(money)),
    ]


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
