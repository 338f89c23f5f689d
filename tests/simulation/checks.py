"""What must hold for every run. Each check yields its complaints."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from shared.audit import Chain, Event
from shared.audit.verify import verify
from shared.log import DEAD_AFTER_S, PAUSE_S
from shared.models import CHARS_A_TOKEN, CHARS_A_TOKEN_MAX, Continuation, Usage
from shared.past import LOST, Past
from shared.permit import STALE_S
from shared.records import PRODUCED, FinishReason, Item, Kind
from shared.schema import AUDIT, STREAMS, TENANTS
from shared.takeover import UNFILLED_MAX
from shared.tenants import CACHE_S
from tests.simulation.history import Fact
from tests.simulation.provider import FORBIDDEN, SECRETS, Script
from tests.simulation.run import Run, Told
from tests.simulation.setting import TENANT
from tests.simulation.store import CALL_TIMEOUT_S
from tests.simulation.world import FAULTS_S, PROMPT

Check = Callable[[Run], Iterator[str]]
CHECKS: dict[str, Check] = {}


def _check(check: Check) -> Check:
    CHECKS[check.__name__] = check
    return check


def _of_each(check: Callable[[Run, Told], Iterator[str]]) -> Check:
    """A check of one stream, for all of a run."""

    def of_each(run: Run) -> Iterator[str]:
        for told in run.streams:
            for what in check(run, told):
                yield f"{told.key.stream[-6:]}: {what}"

    CHECKS[check.__name__] = of_each
    return of_each


def complaints(run: Run) -> list[str]:
    """Everything that is wrong with a run."""
    return [f"{name}: {what}" for name, check in CHECKS.items() for what in check(run)]


@_check
def foreseen(run: Run) -> Iterator[str]:
    """Nothing raises but what is meant to."""
    yield from run.history.crashes


# The log


@_of_each
def contiguous(_: Run, told: Told) -> Iterator[str]:
    """The records are 0, 1, 2, … without a gap."""
    seqs = [record.seq for record in told.records]
    if seqs != list(range(len(seqs))):
        yield f"the log holds {seqs}"


@_of_each
def written_once(_: Run, told: Told) -> Iterator[str]:
    """A slot never changes, but by an erasure."""
    written: set[int] = set()
    for fact in told.facts:
        if fact.what == "wrote" and fact.record.kind != Kind.ERASED:
            if fact.record.seq in written:
                yield f"slot {fact.record.seq} was written again"
            written.add(fact.record.seq)


@_of_each
def ends_once(_: Run, told: Told) -> Iterator[str]:
    """There is one closed record, and nothing follows it."""
    closed = [record.seq for record in told.records if record.closes]
    if closed != [len(told.records) - 1]:
        yield f"the closed records of {len(told.records)} are {closed}"


@_of_each
def summarized_once(_: Run, told: Told) -> Iterator[str]:
    """The summary changes once, together with the closed record, and says the same."""
    states = [
        (s["status"], s.get("finish_reason"), s.get("last_seq"))
        for s in told.summaries
        if s["status"] != Kind.ERASED
    ]
    closed = told.records[-1]
    ended = (closed.body.get("status"), closed.body.get("finish_reason"), closed.seq)
    if states != [("open", None, None), ended]:
        yield f"the summary was {states}, the closed record says {ended}"


@_of_each
def acknowledged_is_kept(_: Run, told: Told) -> Iterator[str]:
    """What its writer was told is written is in the log."""
    for fact in told.facts:
        if fact.what == "acknowledged" and fact.record not in told.records:
            yield f"{fact.who} was told that {fact.record.seq} is written"


@_of_each
def durable_before_visible(_: Run, told: Told) -> Iterator[str]:
    """What a client sees was written before, and every later reader sees the same."""
    written = {}
    for fact in told.facts:
        if fact.what == "wrote" and fact.record.kind != Kind.ERASED:
            written[fact.record.seq] = fact.record
        elif fact.what == "saw" and written.get(fact.record.seq) != fact.record:
            yield f"{fact.who} saw {fact.record}, written was {written.get(fact.record.seq)}"


@_of_each
def seen_in_order(_: Run, told: Told) -> Iterator[str]:
    """A connection brings every record after its first, once each."""
    for client in told.clients:
        for seqs in client.connections:
            if seqs != list(range(seqs[0], seqs[0] + len(seqs)) if seqs else []):
                yield f"{client.name} saw {seqs}"


@_of_each
def resumed(_: Run, told: Told) -> Iterator[str]:
    """Over all its connections a client is shown everything once, in order, to the end."""
    text = "".join(record.text for record in told.records)
    for client in told.clients:
        if client.name == "drain":
            continue
        if client.shown != sorted(set(client.shown)):
            yield f"{client.name} was shown {client.shown}"
        if not (client.text == text if client.closed else text.startswith(client.text)):
            yield f"{client.name} has {client.text!r} of {text!r}"
        ended = told.records[-1].body.get("finish_reason")
        if client.closed and client.closed["finish_reason"] != ended:
            yield f"{client.name} was told {client.closed}"


@_of_each
def drained(_: Run, told: Told) -> Iterator[str]:
    """Who reads at the very end gets the whole log, or is told that there is no such stream."""
    for client in told.clients:
        seqs = [] if told.erased else [record.seq for record in told.records]
        if client.name == "drain" and (client.connections != [seqs] or client.gone != told.erased):
            yield f"the last reader got {client.connections}"


@_of_each
def one_writer_an_epoch(_: Run, told: Told) -> Iterator[str]:
    """An epoch has one producer, and no producer writes after its successor."""
    writers: dict[int, str] = {}
    epoch = 0
    for record in told.records:
        if record.epoch < epoch:
            yield f"{record.seq} is of epoch {record.epoch}, behind one of epoch {epoch}"
        epoch = record.epoch
        if record.kind in PRODUCED and writers.setdefault(epoch, record.by) != record.by:
            yield f"{record.seq} is by {record.by}, epoch {epoch} belongs to {writers[epoch]}"


# The text


@_of_each
def text_in_order(run: Run, told: Told) -> Iterator[str]:
    """Each answer is what its model said: from the start, nothing lost, nothing twice."""
    scripts = {script.name: script for script in run.scripts}
    for text in _answers(told):
        script = scripts.get(text[:1])
        if text and not (script and _begins(script.text, text, redacted=_redacts(run))):
            yield f"the log holds {text!r}"


@_of_each
def complete(run: Run, told: Told) -> Iterator[str]:
    """A completed answer is all that its model said, or all that there was room for."""
    closed = told.closed
    if closed is None or closed.body["status"] != "completed":
        return
    text = _answers(told)[-1]
    said = [script for script in run.scripts if _all(script, redacted=_redacts(run)) == text]
    match closed.body["finish_reason"]:
        case FinishReason.STOP | FinishReason.LENGTH | FinishReason.QUOTA if any(
            script.told and not script.fails and _used_last(told) == script.finish.usage
            for script in said
        ):
            return
        case FinishReason.LENGTH | FinishReason.QUOTA if _at_its_bound(told, text, run):
            return
        case FinishReason.POLICY if _redacts(run) and any(
            FORBIDDEN in script.text for script in said
        ):
            return
    yield f"completed as {closed.body['finish_reason']} with {text!r}, {closed.body['usage']}"


@_of_each
def cancel_is_obeyed(_: Run, told: Told) -> Iterator[str]:
    """Behind a cancel there is no more text, and the stream ends cancelled."""
    cancels = [record.seq for record in told.records if record.kind == Kind.CANCEL]
    if cancels:
        late = [r.seq for r in told.records if r.kind == Kind.TEXT and r.seq > cancels[0]]
        ended = told.records[-1].body.get("status")
        if late or ended != "cancelled":
            yield f"cancelled at {cancels}; text at {late}; ended {ended}"


@_check
def redacted(run: Run) -> Iterator[str]:
    """What a tenant has redacted is nowhere in its log, and its prompts where they are meant."""
    if not _redacts(run):
        return
    for told in run.streams:
        for text in _answers(told):
            if any(secret in text for secret in (*SECRETS.values(), FORBIDDEN)):
                yield f"the log holds {text!r}"
    if run.world.setting.policy.redaction.prompts:
        for item in run.items(STREAMS):
            if any(secret in repr(item) for secret in SECRETS.values()):
                yield f"the log holds {item}"


# Who may


@_of_each
def paused_is_silent(_: Run, told: Told) -> Iterator[str]:
    """Behind a pause there is no text before a grant, unless its tenant may go on again.

    Nor is there another producer, unless who has paused it waits for a grant, and may be dead.
    """
    paused = parked = False
    for record in told.records:
        if record.kind == Kind.PAUSE:
            paused = record.parked or record.body["reason"] != "suspended"
            parked = record.parked
        elif record.kind == Kind.GRANT or (record.kind == Kind.EPOCH and not parked):
            paused = parked = False
        elif paused and record.kind in (Kind.TEXT, Kind.EPOCH):
            yield f"{record.seq} is {record.kind} behind a pause"


# Takeover


@_of_each
def vacant_is_silent(_: Run, told: Told) -> Iterator[str]:
    """Behind a vacancy nothing is produced but by a producer of the next epoch."""
    vacant = False
    for record in told.records:
        if record.kind == Kind.EPOCH or record.closes:
            vacant = False
        elif vacant and record.kind in PRODUCED:
            yield f"{record.seq} was produced behind a vacancy"
        vacant = vacant or record.kind == Kind.VACANT


@_of_each
def taken_over_within_bounds(_: Run, told: Told) -> Iterator[str]:
    """No stream is taken over more often than its tenant wants, or waits for ever for who does."""
    lost: list[int] = []
    waits = 0
    for before, record in pairwise(told.records):
        if record.kind == Kind.EPOCH:
            waits = 0
        elif record.kind == Kind.VACANT and record.body["reason"] == LOST:
            if before.vacant:
                waits += 1
            else:
                lost.append(record.seq)
        if waits > UNFILLED_MAX:
            yield f"at {record.seq} it still waits for a producer"
    if len(lost) > told.records[0].body["takeovers"]:
        yield f"it was taken over at {lost}"


@_of_each
def launched_once(run: Run, told: Told) -> Iterator[str]:
    """Of all who notice that a stream is vacant one has it produced."""
    vacancies = sum(r.vacant and r.kind != Kind.OPENED for r in told.records)
    if run.world.launches[told.key] > vacancies:
        yield f"{run.world.launches[told.key]} were launched for {vacancies} vacancies"


@_of_each
def progresses(run: Run, told: Told) -> Iterator[str]:
    """Once nothing fails any more a stream goes on, or ends, before its clients lose patience."""
    before: Fact | None = None
    for fact in told.facts:
        if fact.what != "wrote" or fact.record.kind == Kind.ERASED:
            continue
        if before:
            gap_s = fact.at_s - max(before.at_s, FAULTS_S)
            patience_s = GAP_MAX_S
            if before.record.parked:
                patience_s += run.world.setting.policy.pause_s
            if gap_s > patience_s:
                yield f"{before.record.seq} stood for {gap_s:.0f} s"
        before = fact


#: A producer that dies while it is paused, or a launch that is lost behind a sweep that has just
#: gone by; clocks may be 20 s off, and what was launched or written before may come late.
GAP_MAX_S = DEAD_AFTER_S + PAUSE_S + 60 + 23 + 42


@_of_each
def not_looked_for_any_more(_: Run, told: Told) -> Iterator[str]:
    """A stream that is over costs a sweep nothing."""
    if "open" in told.summary:
        yield "its summary is still among those that are open"


@_of_each
def refined(run: Run, told: Told) -> Iterator[str]:
    """Who goes on from another answer has all of it before its own words."""
    parents = {each.key.stream: each for each in run.streams}
    if (parent := told.records[0].body["parent"]) is None:
        return
    before = parents[parent].records
    text = "".join(record.text for record in before)
    own = [{"role": "user", "content": message.content} for message in PROMPT]
    answer = [{"role": "assistant", "content": text}] if text else []
    wanted = [*before[0].body["messages"], *answer, *own]
    if run.world.setting.policy.redaction.prompts:
        wanted = [{**message, "content": _shown(message["content"])} for message in wanted]
    if told.records[0].body["messages"] != wanted:
        yield f"it was asked {told.records[0].body['messages']}, not {wanted}"


# Erasure


@_of_each
def erased(run: Run, told: Told) -> Iterator[str]:
    """Nothing is left of a stream that was erased but that there was one."""
    if not told.erased:
        return
    if [item["seq"] for item in told.shells] != [record.seq for record in told.records]:
        yield f"what is left is {told.shells}"
    for item in (told.summary, *told.shells):
        if more := item.keys() - _OF_A_SHELL:
            yield f"of {item['seq']} there is still {sorted(more)}"


_OF_A_SHELL = {"pk", "seq", "status", "kind", "epoch", "at", "by", "expires_at"}


@_check
def erased_in_the_end(run: Run) -> Iterator[str]:
    """An erasure that was taken on is done, and has counted each stream once."""
    jobs = _erasures(run)
    if left := [job["what"] for job in jobs if "done_at" not in job]:
        yield f"{left} are not done"
    gone = sum(told.erased for told in run.streams)
    counted = sum(int(job["streams"]) for job in jobs)
    if counted != gone:
        yield f"{gone} streams are erased, {counted} were counted"


@_of_each
def permitted(run: Run, told: Told) -> Iterator[str]:
    """No text is offered once it may not be: at once after an expiry, else within half a minute."""
    setting, clocks = run.world.setting, run.world.clocks
    patience_s = CACHE_S + STALE_S + CALL_TIMEOUT_S + run.world.frozen_s
    credential = told.records[0].body
    for record in told.records:
        if record.kind == Kind.GRANT:
            credential = record.body
        if record.kind != Kind.TEXT:
            continue
        # By the writer's own clock, and by the true one.
        shown_s = record.at / 1000
        at_s = shown_s - setting.epoch_s - clocks[record.by]
        expires_at = credential["expires_at"]
        if expires_at is not None and shown_s > expires_at + run.world.frozen_s:
            yield f"{record.seq} was written {shown_s - expires_at:.3f} s after the key expired"
        revoked_s = run.history.revoked_s.get(credential["credential"].removeprefix("key:"))
        if revoked_s is not None and at_s > revoked_s + patience_s:
            yield f"{record.seq} was written {at_s - revoked_s:.3f} s after the key was revoked"
        for begin_s, end_s in _suspensions(run):
            if begin_s + patience_s < at_s < end_s:
                yield f"{record.seq} was written {at_s - begin_s:.3f} s after the suspension"


# The tenant


@_check
def within_limits(run: Run) -> Iterator[str]:
    """No counter was ever above its limit, but for what an answer used beyond its bound."""
    policy = run.world.setting.policy
    excess = sum(
        max(_used(told) - sum(held["tokens"] for held in _holds(told)), 0) for told in run.streams
    )
    shards: dict[str, Item] = {}
    for pk, counters in run.history.counters:
        limits = policy.limits
        seen = {pk: counters}
        if "##" in pk:
            shards[pk], seen = counters, shards | {pk: counters}
        else:
            limits = policy.user_limits if "#user#" in pk else policy.address_limits
        for name, limit in (
            ("active", limits.streams_at_once),
            ("day:", limits.tokens_per_day),
            ("month:", limits.tokens_per_month),
        ):
            more = 0 if name == "active" else excess
            for period, count in _summed(seen.values(), name).items():
                if limit is not None and count > limit + more:
                    yield f"{period} of {pk} came to {count}; the limit is {limit}, +{more}"


@_check
def settled(run: Run) -> Iterator[str]:
    """When all streams have ended, nobody holds a permit, and what is counted is what was used."""
    expected: dict[str, Counter[str]] = {}
    for told in run.streams:
        tokens, holds = _used(told), _holds(told)
        for held in holds:
            # What was taken first was used first; what was never taken counts for the last.
            used = tokens if held is holds[-1] else min(held["tokens"], tokens)
            tokens -= used
            moment = datetime.fromtimestamp(held["at"] / 1000, UTC)
            for pk in held["subjects"]:
                counted = expected.setdefault(pk, Counter())
                counted[f"day:{moment:%Y-%m-%d}"] += used
                counted[f"month:{moment:%Y-%m}"] += used
    for item in run.items(TENANTS):
        if item["what"] != "counters":
            continue
        counted = _summed([item], "day:") + _summed([item], "month:")
        if item.get("active", 0) != 0 or counted != expected.get(str(item["pk"]), Counter()):
            yield f"the counters are {item}, used was {expected.get(str(item['pk']))}"


@_check
def claimed(run: Run) -> Iterator[str]:
    """There is one stream for each Idempotency-Key, and no other."""
    told = run.world.told
    claims = [str(item["stream"]) for item in run.items(TENANTS) if item["what"] == "claim"]
    if sorted(claims) != sorted(told.key.stream for told in run.streams):
        yield f"the claims are of {claims}"
    if len(claims) > len(told) or any(len(streams) > 1 for streams in told.values()):
        yield f"{claims} are claimed, the requests were told of {told}"


@_of_each
def audited(run: Run, told: Told) -> Iterator[str]:
    """The stream's audit is whole, and tells once of its start, of each control and of its end."""
    now = run.world.setting.epoch_s + 3600
    if fault := verify(Chain.of(told.key), told.entries, told.head, now):
        yield str(fault)
    happened = [(Event.STARTED, 0)]
    happened += [(_EVENTS[r.kind], r.seq) for r in told.records if r.kind in _EVENTS]
    happened += [(Event.DELETED, told.records[-1].seq)] if told.erased else []
    entries = [
        (_ALIKE.get(entry.event, entry.event), entry.details.get("seq", 0))
        for entry in told.entries
    ]
    if entries != happened:
        yield f"the audit tells {entries}, the log {happened}"


@_check
def audited_alone(run: Run) -> Iterator[str]:
    """There is no audit of what has not happened: beside streams, erasures of users alone."""
    streams = {Chain.of(told.key).pk for told in run.streams}
    others = [item["event"] for item in run.items(AUDIT) if item["pk"] not in streams]
    users = [job for job in _erasures(run) if "user" in job]
    if others != [Event.DELETED] * len(users):
        yield f"there are entries of {others}, and {len(users)} erasures of users"


#: A resume and a grant are the same record.
_ALIKE: Mapping[str, str] = {Event.RESUMED: Event.GRANTED}
_EVENTS: Mapping[str, Event] = {
    Kind.CANCEL: Event.CANCELLED,
    Kind.PAUSE: Event.PAUSED,
    Kind.GRANT: Event.GRANTED,
    Kind.VACANT: Event.TAKEN_OVER,
    Kind.CLOSED: Event.CLOSED,
}


def _erasures(run: Run) -> list[Item]:
    """The jobs that were taken on."""
    places = ("#erasures", f"erased#{TENANT}")
    return [item for item in run.items(TENANTS) if item["pk"] in places]


def _redacts(run: Run) -> bool:
    return bool(run.world.setting.policy.redaction.words)


def _answers(told: Told) -> list[str]:
    """What each model has said: over several epochs where one was replayed."""
    answers = [""]
    for record in told.records:
        if record.kind == Kind.EPOCH and record.body.get("continuation") != Continuation.REPLAY:
            answers.append("")
        answers[-1] += record.text
    return answers


def _used_last(told: Told) -> Usage:
    """What the last producer says that it has used itself."""
    began = max((r.seq for r in told.records if r.kind == Kind.EPOCH), default=0)
    before = Past.of(told.records[:began]).usage if began else Usage(0, 0)
    usage = Usage(**told.records[-1].body["usage"])
    return Usage(
        usage.input_tokens - before.input_tokens,
        usage.output_tokens - before.output_tokens,
        usage.estimated and not before.estimated,
    )


def _all(script: Script, *, redacted: bool) -> str:
    """What a model's whole answer is in the log."""
    return _shown(script.text) if redacted else script.text


def _shown(text: str) -> str:
    """Our own redaction, of whole texts."""
    text = text.partition(FORBIDDEN)[0]
    for mask, secret in SECRETS.items():
        text = text.replace(secret, mask)
    return text


def _begins(said: str, text: str, *, redacted: bool) -> bool:
    """Whether a text is the beginning of what was said."""
    if not redacted:
        return said.startswith(text)
    shown = _shown(said)
    same = next((i for i, (a, b) in enumerate(zip(shown, text, strict=False)) if a != b), None)
    if same is None:
        same = min(len(shown), len(text))
    # Where it broke off within a secret, the part of it that was said shows.
    hidden = {mask: secret for mask, secret in SECRETS.items() if shown[same:].startswith(mask)}
    rest = text[same:]
    return not rest or any(secret.startswith(rest) for secret in (*hidden.values(), FORBIDDEN))


def _at_its_bound(told: Told, text: str, run: Run) -> bool:
    """Whether an answer is as long as its allowance lets it be, by our own count."""
    closed, allowance = told.records[-1], Past.of(told.records).allowance
    if allowance is None or not closed.body["usage"]["estimated"]:
        return False
    # Who does not replay goes on from what was said before.
    before = len("".join(_answers(told)[:-1]))
    bounds = [max(chars * allowance - before, 0) for chars in (CHARS_A_TOKEN, CHARS_A_TOKEN_MAX)]
    said = _used_last(told).output_tokens
    scripts = [script for script in run.scripts if text and text.startswith(script.name)]
    return any(said == -(-bound // CHARS_A_TOKEN) for bound in bounds) and all(
        _begins(script.text, text, redacted=_redacts(run)) and len(script.text) >= min(bounds)
        for script in scripts
    )


def _holds(told: Told) -> list[dict[str, Any]]:
    """What the stream has taken of its quotas, at its start and whenever it was given more."""
    return [record.body["held"] for record in told.records if "held" in record.body]


def _used(told: Told) -> int:
    usage = told.records[-1].body.get("usage") or {}
    return int(usage.get("input_tokens", 0) + usage.get("output_tokens", 0))


def _summed(items: Iterable[Item], prefix: str) -> Counter[str]:
    """What the counters of that prefix come to, together; those at 0 left out."""
    found: Counter[str] = Counter()
    for item in items:
        for name, value in item.items():
            if name.startswith(prefix) and value:
                found[name] += int(value)
    return found


def _suspensions(run: Run) -> list[tuple[float, float]]:
    """From when until when the tenant was suspended."""
    found: list[tuple[float, float]] = []
    began: float | None = None
    for at_s, suspended in [*run.history.suspended, (math.inf, False)]:
        if suspended and began is None:
            began = at_s
        elif not suspended and began is not None:
            found.append((began, at_s))
            began = None
    return found
