"""`sluice experiment report`: what became of the answers of each variant, by their own records.

What is compared is in the log of every stream, so it is the same for a local run and for a stack:
one read of each answer. Times are those of the writer, before its write.
"""

from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from local import intervals
from local.errors import Failed
from local.intervals import Interval
from local.lookup import known
from local.several import several
from local.terminal import Cell, Progress, counted, note, show_json, show_table
from local.where import Place, run
from shared.errors import NotFound
from shared.log import Log
from shared.pulse import Sample
from shared.records import Kind, Record, Status, StreamKey, Summary
from shared.tenants import Tenant

PAGE = 100
#: The least of each variant that says anything.
FEW = 30

#: What is compared: means, with their unit, and rates, with the status that they count.
MEANS = {"first chunk": " ms", "gap p99": " ms", "tokens/s": ""}
RATES = {"completed": Status.COMPLETED, "cancelled": Status.CANCELLED}
FIGURES = (*MEANS, *RATES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer that is over, and what could be measured of it."""

    variant: str
    status: str
    measured: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """A variant's answers: their number, and the interval of each figure that there is."""

    variant: str
    answers: int
    samples: dict[str, list[float]]
    figures: dict[str, Interval]

    @classmethod
    def of(cls, variant: str, outcomes: Sequence[Outcome]) -> "Result":
        samples = {n: [o.measured[n] for o in outcomes if n in o.measured] for n in MEANS}
        figures = {name: intervals.mean(values) for name, values in samples.items() if values}
        for name, status in RATES.items():
            count = sum(outcome.status == status for outcome in outcomes)
            figures[name] = intervals.rate(count, len(outcomes))
        return cls(variant, len(outcomes), samples, figures)

    def above(self, other: "Result") -> dict[str, Interval]:
        """By how much its figures are above another's."""
        found = {
            name: intervals.mean_difference(self.samples[name], other.samples[name])
            for name in MEANS
            if self.samples[name] and other.samples[name]
        }
        for name in RATES:
            found[name] = intervals.rate_difference(self.figures[name], other.figures[name])
        return found


def outcome(records: Sequence[Record]) -> Outcome | None:
    """What became of a stream; None where it is not over, or is in no experiment."""
    opened, closed = records[0], records[-1]
    variant = opened.body.get("variant")
    if not variant or not closed.closes:
        return None
    measured: dict[str, float] = {}
    texts = [record for record in records if record.kind == Kind.TEXT]
    if texts:
        measured["first chunk"] = texts[0].at - opened.at
        spoke_s = (texts[-1].at - texts[0].at) / 1000
        tokens = (closed.body["usage"] or {}).get("output_tokens", 0)
        if spoke_s > 0 and tokens:
            measured["tokens/s"] = tokens / spoke_s
    gaps = Sample()
    for before, after in pairwise(records):
        # Between others lies a pause, a silence or a takeover.
        if before.kind == after.kind == Kind.TEXT:
            gaps.add(after.at - before.at)
    if gaps:
        measured["gap p99"] = gaps.quantile(0.99)
    return Outcome(variant, closed.body["status"], measured)


def report(options: Namespace) -> int:
    return run(options, lambda place: _report(place, options))


async def _report(place: Place, options: Namespace) -> int:
    tenant = await known(place, options.tenant)
    set_now = tenant.policy.experiment
    name = options.experiment or (set_now.name if set_now else None)
    if name is None:
        raise Failed(f"{tenant.name} has no experiment; name the one that you mean")
    found = await _outcomes(place, tenant.name, options)
    results = _by_variant(tenant, name, found)
    if not results:
        others = ", ".join(sorted({each.variant.partition("/")[0] for each in found}))
        there = f"; there are of {others}" if others else ""
        raise Failed(f"{tenant.name} has no answers of the experiment {name}{there}")
    if options.json:
        show_json({"experiment": name, "variants": _encoded(results)})
    else:
        _show(name, results)
    return 0


def _by_variant(tenant: Tenant, experiment: str, outcomes: Sequence[Outcome]) -> list[Result]:
    """Those of an experiment, in the order in which its variants are set."""
    found: dict[str, list[Outcome]] = {}
    for each in outcomes:
        whose, _, variant = each.variant.partition("/")
        if whose == experiment:
            found.setdefault(variant, []).append(each)
    set_now = tenant.policy.experiment
    order = [variant.name for variant in set_now.variants] if set_now else []
    names = sorted(found, key=lambda v: (order.index(v) if v in order else len(order), v))
    return [Result.of(variant, found[variant]) for variant in names]


async def _outcomes(place: Place, tenant: str, options: Namespace) -> list[Outcome]:
    log = Log(place.store)

    async def read(summary: Summary) -> Outcome | None:
        try:
            return outcome(await log.all_records(StreamKey(tenant, summary.stream)))
        except NotFound:
            return None  # erased since it was listed

    found: list[Outcome] = []
    with Progress() as progress:
        async for each in several(_newest(log, tenant, options), read):
            if each:
                found.append(each)
            progress(counted(len(found), "answer"))
    return found


async def _newest(log: Log, tenant: str, options: Namespace) -> AsyncIterator[Summary]:
    """The streams that are looked at, newest first."""
    left, before = options.limit, None
    while left > 0:
        page, more = await log.summaries(tenant, before=before, limit=min(left, PAGE))
        for summary in page:
            if options.since is not None and summary.created_at < options.since:
                return
            yield summary
        left -= len(page)
        if not (page and more):
            return
        before = page[-1].stream


def _show(name: str, results: Sequence[Result]) -> None:
    print(f"{name}: means and rates, with their 95 % intervals\n")
    columns = ("variant", "answers", *FIGURES)
    few = any(result.answers < FEW for result in results)
    show_table(columns, [_row(result, result.figures) for result in results])
    base, *others = results
    if others:
        print(f"\nAgainst {base.variant}; a difference with * is beyond chance\n")
        show_table(columns, [_row(o, o.above(base), sign="+", sure=not few) for o in others])
    if few:
        note(f"Fewer than {FEW} answers of a variant say little.")


def _row(
    result: Result, figures: dict[str, Interval], *, sign: str = "", sure: bool = False
) -> tuple[Cell, ...]:
    """Of a variant; of its differences, with a `sign`, which are marked where that is `sure`."""
    cells = (_cell(name, figures.get(name), sign, sure) for name in FIGURES)
    return (result.variant, result.answers, *cells)


def _cell(name: str, interval: Interval | None, sign: str, sure: bool) -> Cell:
    if interval is None:
        return None
    times, unit = (100, " %") if name in RATES else (1, MEANS[name])
    bounds = (interval.at, interval.low, interval.high)
    at, low, high = (f"{bound * times:{sign}.1f}" for bound in bounds)
    mark = "*" if sure and interval.excludes_zero else ""
    return f"{at}{unit} [{low}, {high}]{mark}"


def _encoded(results: Sequence[Result]) -> list[dict[str, Any]]:
    def plain(figures: dict[str, Interval]) -> dict[str, Any]:
        return {n: {"at": i.at, "low": i.low, "high": i.high} for n, i in figures.items()}

    base = results[0]
    return [
        {
            "variant": result.variant,
            "answers": result.answers,
            "figures": plain(result.figures),
            "against": {} if result is base else {base.variant: plain(result.above(base))},
        }
        for result in results
    ]
