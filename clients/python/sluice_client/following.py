"""Following one answer to its end, over as many connections as that takes. No I/O."""

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Self

from sluice_client import events, requests
from sluice_client.errors import SluiceError, StreamFailed
from sluice_client.events import (
    Chunk,
    Closed,
    Epoch,
    Event,
    Expiring,
    Foreign,
    Granted,
    LogEvent,
    Opened,
    Paused,
    Polling,
    Streaming,
)
from sluice_client.machine import Ask, Conditions, Lost, Machine, Reply, Wait
from sluice_client.naming import named_in_body, named_in_head
from sluice_client.question import Question
from sluice_client.sse import Decoder, Frame, TooLong

#: So many streams in a row that bring nothing, and the answer is polled.
VAIN_MAX = 3
#: The longest that the server is taken at its word, in seconds.
REST_MAX_S = 60.0
#: Between two polls, or two connections, that bring nothing: at least.
REST_MIN_S = 0.2

#: A pause that a fresh credential ends.
_UNCREDITED = ("expired", "revoked")


class _For(Enum):
    """What the request under way is for."""

    START = auto()
    START_ASYNC = auto()
    GRANT = auto()
    FOLLOW = auto()
    POLL = auto()


class Following(Machine):
    """One answer: started by `question`, or the stream `id` after the offset `after`.

    Wherever a connection breaks, the next one asks for what comes after the newest event seen; an
    event that was seen is dropped, so each is handed out once, in order. A start is repeated with
    its Idempotency-Key, so it begins one stream at most.
    """

    def __init__(
        self,
        conditions: Conditions,
        question: Question | None,
        *,
        id: str | None = None,  # noqa: A002 - the word of the wire
        after: int = -1,
        polls: bool = False,
    ) -> None:
        super().__init__(conditions)
        self.question = question
        self.id = id
        #: The newest seq seen, and the newest that was handed out.
        self._seen = self._told = after
        self.model: str | None = str(question.fields["model"]) if question else None
        self.status = "open"
        self.closed: Closed | None = None
        #: Whether a start was sent, so that there may be a stream of which we do not know.
        self.asked = False
        #: The text of each chunk, by its seq.
        self._parts: dict[int, str] = {}
        self._polls = polls
        self._polling = polls
        self._why_polled = ""
        self._now = _For.START
        #: A grant is due; the stream is paused for want of one.
        self._grants = self._uncredited = False
        #: The server says that nothing follows; a poll tells how it ended.
        self._ended = False
        self._hurries = False
        self._decoder: Decoder | None = None
        self._sign_at = 0.0
        #: Whether this connection has brought anything; and whether one before it had.
        self._streamed = self._proven = False
        self._vain = 0

    @property
    def over(self) -> bool:
        return self.closed is not None

    @property
    def polling(self) -> bool:
        return self._polling

    @property
    def after(self) -> int:
        """What was handed out goes so far: who asks for what is behind it misses nothing."""
        return self._told if self._out else self._seen

    @property
    def text(self) -> str:
        """All chunks handed out, joined."""
        return "".join(self._parts.values())

    def next(self) -> Ask | Wait | None:
        try:
            if self.closed and self.closed.status == "failed":
                raise StreamFailed(self.closed.error or {}, self.closed.finish_reason)
            return super().next()
        except SluiceError as error:
            error.text = self.text
            raise

    def steered(self, status: str) -> None:
        """Something was asked of the stream, and it stands so now: look at once."""
        self._hurries = status != "paused"
        self.wake()

    def drain(self) -> Iterator[Event]:
        # In this order the text is whole wherever Ctrl-C comes between, and nothing is in it twice.
        while self._out:
            event = self._out[0]
            again = isinstance(event, Chunk) and event.seq in self._parts
            if isinstance(event, Chunk):
                self._parts[event.seq] = event.text
            if isinstance(event, LogEvent):
                self._told = event.seq
            self._out.popleft()
            if not again:
                yield event

    def regenerated(self, key: str) -> Self:
        """The same question again. Raises ValueError."""
        if self.question is None:
            raise ValueError("what was asked is not known here: it was followed, and not started")
        question = self.question.again(key)
        return type(self)(self.conditions, question, polls=self._polls)

    def refined(self, message: str, key: str) -> Self:
        """A further message behind this answer. Raises ValueError."""
        if self.id is None or self.model is None:
            raise ValueError("what is refined has no name, or no model yet: iterate it first")
        question = self.question or Question({"model": self.model}, key)
        refined = question.refined(self.id, message, key)
        return type(self)(self.conditions, refined, polls=self._polls)

    def abandon(self) -> bool:
        """End what was never asked for. False where there may be a stream, which goes on."""
        if self.id or self.asked or self.closed:
            return False
        self.status = "cancelled"
        self.closed = Closed(-1, "cancelled", "cancelled", None, None)
        return True

    # What to ask.

    def _ask(self) -> Ask:
        self._now = self._wanted()
        self._decoder = None
        self._streamed, self._proven = False, self._passage.streams
        times, stream = self._times, self.id or ""
        match self._now:
            case _For.START:
                self.asked = True
                return requests.start(times, self._asked_for, proven=self._proven)
            case _For.START_ASYNC:
                return self.asks_name()
            case _For.GRANT:
                self._grants, self._renews = False, True
                return requests.steer(times, stream, "grant")
            case _For.POLL:
                self._ended = False
                return requests.chunks(times, stream, self._seen)
            case _For.FOLLOW:
                return requests.events(times, stream, self._seen, proven=self._proven)

    def _wanted(self) -> _For:
        if self._grants and self.id:
            return _For.GRANT
        polls = self._polls or self._passage.held(self.conditions.clock())
        if polls and not self._polling:
            self._polling = True
            self._out.append(Polling(self._why_polled))
        if self.id is None:
            return _For.START_ASYNC if polls else _For.START
        return _For.POLL if polls or self._ended else _For.FOLLOW

    def asks_name(self) -> Ask:
        """The start, answered with the stream's name alone; once more where it runs already."""
        self.asked = True
        return requests.start_async(self._times, self._asked_for)

    @property
    def _asked_for(self) -> Question:
        if self.question is None:
            raise RuntimeError("what is followed was not started here")
        return self.question

    # What comes of it.

    def began(self, status: int, headers: Mapping[str, str]) -> None:
        super().began(status, headers)
        self.id = self.id or named_in_head(headers)
        if status == 200 and headers.get("content-type", "").startswith("text/event-stream"):
            self._decoder, self._sign_at = Decoder(), self.conditions.clock()

    def received(self, data: bytes) -> None:
        if self._decoder is None:
            super().received(data)
            return
        try:
            for frame in self._decoder.feed(data):
                self._heard(frame)
                if not self.listens:
                    return
        except (Foreign, TooLong) as error:
            self.listens = False
            self._foreign(str(error) or "an event does not end")
        limit_s = self._times.silence_s if self._passage.streams else self._times.first_byte_s
        if self.listens and self.conditions.clock() - self._sign_at > limit_s:
            self.listens = False
            self._silent(None)

    def ended(self) -> None:
        if self._decoder is None:
            super().ended()
        elif self.listens:  # else it is known already how this connection ends
            self._cut("the connection ended")

    def lost(self, how: Lost, error: Exception) -> None:
        if self._now is _For.GRANT:
            return  # what the stream says next tells whether it was of use
        streams = self._decoder or self._now in (_For.START, _For.FOLLOW)
        if not streams or how is Lost.UNREACHED:
            super().lost(how, error)
        elif how is Lost.SILENT:
            self._silent(error)
        else:
            self._cut(how.value, error)

    def _silent(self, error: Exception | None) -> None:
        """A stream has not begun in time, or was silent for longer than the server ever is."""
        if not self._streamed:
            self._hold_back("streams are held back on the way here")
        elif self._proven:
            self._cut(Lost.SILENT.value, error)
        # Else it was given the time for first bytes alone: the next one is given more.

    def _cut(self, why: str, error: Exception | None = None) -> None:
        self._grants = self._grants or self._uncredited
        if not self._in_vain(why):
            self._failed(why, cause=error)

    def _in_vain(self, why: str) -> bool:
        """Whether to poll: a stream was answered and brought nothing, several times, or where it
        was only tried again.
        """
        self._vain = 0 if self._streamed else self._vain + 1
        vain = self._vain >= VAIN_MAX or (self._vain > 0 and self._polling)
        if vain:
            self._hold_back(why)
        return vain

    def _hold_back(self, why: str) -> None:
        self._vain, self._why_polled = 0, why
        self._passage.holds_back(self.conditions.clock())

    def _answered(self, reply: Reply) -> None:
        match self._now:
            case _For.GRANT:
                if reply.status == 200:
                    self._alive()
            case _For.START | _For.START_ASYNC if self._names_stream(reply):
                self._alive()
            case _For.POLL if reply.status == 200:
                self._page(reply)
            case _For.FOLLOW if reply.status == 204:
                self._ended = True
            case _:
                streams = self._now in (_For.START, _For.FOLLOW)
                foreign = streams and self._passage.heard and reply.problem is None
                if not (foreign and self._in_vain(f"it answers {reply.status} to streams")):
                    self._refused(reply)

    def _names_stream(self, reply: Reply) -> bool:
        """Whether the stream runs already, and has told its name."""
        if reply.status == 202 and self.id is None:
            self.id = named_in_body(reply)
        return reply.status in (202, 409) and self.id is not None

    # What a stream says.

    def _heard(self, frame: Frame | None) -> None:
        if frame and frame.event == "reconnect":
            self._sign()
            self._reconnects(frame)
            return
        if frame is not None:
            seq, event = events.decode(frame, self._seen)
            if seq == self._seen:
                return  # what comes again is no sign that it goes on
            self._sign()
            if event:
                self._happened(event)
            self._seen = seq
        else:
            self._sign()

    def _sign(self) -> None:
        """The stream lives."""
        self._sign_at = self.conditions.clock()
        if self._polling and not self._polls:
            self._polling = False
            self._out.append(Streaming())
        self._streamed = True
        self._vain = 0
        self._passage.opened()
        self._alive()

    def _reconnects(self, frame: Frame) -> None:
        """The connection ends as it should, and the stream goes on."""
        self.listens = False
        self._grants = self._grants or self._uncredited
        # This connection may not know yet of what was asked meanwhile.
        rest_s = 0.0 if self._hurries else (frame.retry_ms or 0) / 1000
        self._hurries = False
        self._rest(min(max(rest_s, REST_MIN_S), REST_MAX_S))

    def _happened(self, event: LogEvent) -> None:
        self._out.append(event)
        match event:
            case Opened():
                self.id, self.model = self.id or event.id, event.model
            case Expiring():
                self._needs_grant()
            case Paused():
                self.status = "paused"
                if event.reason in _UNCREDITED:
                    self._needs_grant()
                    self._uncredited = self.conditions.renewable
            case Granted() | Epoch():
                self.status, self._uncredited = "open", False
            case Closed():
                self.status, self.closed, self.listens = event.status, event, False

    def _needs_grant(self) -> None:
        """Have a fresh credential shown, and go on by it: this one's connection would end, too."""
        if self.conditions.renewable:
            self._grants, self.listens = True, False

    def _page(self, reply: Reply) -> None:
        before = self._seen
        try:
            page = events.decode_page(reply.json())
        except (ValueError, Foreign):
            self._foreign("a page of chunks is not whole")
            return
        self._alive()
        for chunk in page.chunks:
            if chunk.seq > self._seen:
                self._happened(chunk)
                self._seen = chunk.seq
        self._seen = max(self._seen, page.next)
        if page.closed:
            self._happened(page.closed)
            return
        if page.status != "paused":
            self._uncredited = False
        elif self.status == "paused":
            self._grants = self._uncredited  # what was granted did not arrive
        else:
            self._happened(Paused(self._seen, page.reason))
        self.status = page.status
        least_s = REST_MIN_S if self._seen == before else 0.0
        self._rest(min(max(page.poll_after_s, least_s), REST_MAX_S))
