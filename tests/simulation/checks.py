"""What must hold for every run. Each check yields its complaints."""

from collections.abc import Callable, Iterator

from shared.records import PRODUCED, Kind
from tests.simulation.world import Run

Check = Callable[[Run], Iterator[str]]
CHECKS: dict[str, Check] = {}


def _check(check: Check) -> Check:
    CHECKS[check.__name__] = check
    return check


def complaints(run: Run) -> list[str]:
    """Everything that is wrong with a run."""
    return [f"{name}: {what}" for name, check in CHECKS.items() for what in check(run)]


@_check
def foreseen(run: Run) -> Iterator[str]:
    """Nothing raises but what is meant to."""
    yield from run.history.crashes


@_check
def contiguous(run: Run) -> Iterator[str]:
    """The records are 0, 1, 2, … without a gap."""
    seqs = [record.seq for record in run.records]
    if seqs != list(range(len(seqs))):
        yield f"the log holds {seqs}"


@_check
def written_once(run: Run) -> Iterator[str]:
    """A slot never changes."""
    written: set[int] = set()
    for fact in run.history.facts:
        if fact.what == "wrote":
            if fact.record.seq in written:
                yield f"slot {fact.record.seq} was written again"
            written.add(fact.record.seq)


@_check
def ends_once(run: Run) -> Iterator[str]:
    """There is one closed record, and nothing follows it."""
    closed = [record.seq for record in run.records if record.closes]
    if run.left_open or closed != [len(run.records) - 1]:
        yield f"the closed records of {len(run.records)} are {closed}"


@_check
def summarized_once(run: Run) -> Iterator[str]:
    """The summary changes once, together with the closed record, and says the same."""
    states = [
        (s["status"], s.get("finish_reason"), s.get("last_seq")) for s in run.history.summaries
    ]
    closed = run.records[-1]
    told = (closed.body.get("status"), closed.body.get("finish_reason"), closed.seq)
    if states != [("open", None, None), told]:
        yield f"the summary was {states}, the closed record says {told}"


@_check
def acknowledged_is_kept(run: Run) -> Iterator[str]:
    """What its writer was told is written is in the log."""
    for fact in run.history.facts:
        if fact.what == "acknowledged" and fact.record not in run.records:
            yield f"{fact.who} was told that {fact.record.seq} is written"


@_check
def durable_before_visible(run: Run) -> Iterator[str]:
    """What a client sees was written before, and every later reader sees the same."""
    written = {}
    for fact in run.history.facts:
        if fact.what == "wrote":
            written[fact.record.seq] = fact.record
        elif fact.what == "saw" and written.get(fact.record.seq) != fact.record:
            yield f"{fact.who} saw {fact.record}, written was {written.get(fact.record.seq)}"


@_check
def seen_in_order(run: Run) -> Iterator[str]:
    """A connection brings every record after its first, once each."""
    for client in run.clients:
        for seqs in client.connections:
            if seqs != list(range(seqs[0], seqs[0] + len(seqs)) if seqs else []):
                yield f"{client.name} saw {seqs}"


@_check
def resumed(run: Run) -> Iterator[str]:
    """Over all its connections a client is shown everything once, in order, to the end."""
    text = "".join(record.text for record in run.records)
    for client in run.clients:
        if client.name == "drain":
            continue
        if client.shown != sorted(set(client.shown)):
            yield f"{client.name} was shown {client.shown}"
        if not (client.text == text if client.closed else text.startswith(client.text)):
            yield f"{client.name} has {client.text!r} of {text!r}"
        if client.closed and client.closed["finish_reason"] != run.summary.get("finish_reason"):
            yield f"{client.name} was told {client.closed}"


@_check
def drained(run: Run) -> Iterator[str]:
    """Who reads at the very end gets the whole log."""
    drain = run.clients[-1]
    if drain.name == "drain" and drain.connections != [[r.seq for r in run.records]]:
        yield f"the last reader got {drain.connections}"


@_check
def one_writer_an_epoch(run: Run) -> Iterator[str]:
    """An epoch has one producer, and no producer writes after its successor."""
    writers: dict[int, str] = {}
    epoch = 0
    for record in run.records:
        if record.epoch < epoch:
            yield f"{record.seq} is of epoch {record.epoch}, behind one of epoch {epoch}"
        epoch = record.epoch
        if record.kind in PRODUCED and writers.setdefault(epoch, record.by) != record.by:
            yield f"{record.seq} is by {record.by}, epoch {epoch} belongs to {writers[epoch]}"


@_check
def text_in_order(run: Run) -> Iterator[str]:
    """Each producer's text is what its model said: from the start, nothing lost, nothing twice."""
    scripts = {script.name: script.text for script in run.scripts}
    texts: dict[str, str] = {}
    for record in run.records:
        texts[record.by] = texts.get(record.by, "") + record.text
    for by, text in texts.items():
        if text and not scripts[text[0]].startswith(text):
            yield f"{by} wrote {text!r}"


@_check
def complete(run: Run) -> Iterator[str]:
    """A completed answer is all that its model said, and the usage is the model's."""
    closed = run.records[-1]
    if not closed.closes or closed.body["status"] != "completed":
        return
    text = "".join(record.text for record in run.records if record.by == closed.by)
    said = {script.text: script for script in run.scripts if script.told and not script.fails}
    if text not in said:
        yield f"completed with {text!r}"
    elif closed.body["usage"]["output_tokens"] != said[text].tokens:
        yield f"{said[text].tokens} tokens were billed as {closed.body['usage']}"


@_check
def cancel_is_obeyed(run: Run) -> Iterator[str]:
    """Behind a cancel there is no more text, and the stream ends cancelled."""
    cancels = [record.seq for record in run.records if record.kind == Kind.CANCEL]
    if cancels:
        late = [r.seq for r in run.records if r.kind == Kind.TEXT and r.seq > cancels[0]]
        if late or run.summary["status"] != "cancelled":
            yield f"cancelled at {cancels}; text at {late}; ended {run.summary['status']}"
