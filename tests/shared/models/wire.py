"""What OpenAI's and Bedrock's servers put on the wire, byte for byte."""

import json
from struct import pack
from typing import Any
from zlib import crc32

DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """A `chat.completion.chunk` with one choice."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return data(
        id="chatcmpl-1",
        object="chat.completion.chunk",
        created=1_790_000_000,
        model="some-model",
        **{"choices": [choice], "usage": None, **more},
    )


def usage(asked: int, said: int) -> bytes:
    counts = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return chunk(choices=[], usage=counts)


def data(**event: Any) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of `application/vnd.amazon.eventstream`.

    Total length, headers' length, CRC of these two; headers; payload; CRC of everything before.
    A header is its name's length (1 byte), its name, its type (7: string), its value's length
    (2 bytes) and its value. Everything is big-endian.
    """
    head = b"".join(
        pack("!B", len(name)) + name.encode() + pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack("!II", 12 + len(head) + len(payload) + 4, len(head))
    message = prelude + pack("!I", crc32(prelude)) + head + payload
    return message + pack("!I", crc32(message))


def event(kind: str, **body: Any) -> bytes:
    return frame(
        {
            ":event-type": kind,
            ":content-type": "application/json",
            ":message-type": "event",
        },
        json.dumps(body, ensure_ascii=False).encode(),
    )


def exception(kind: str, message: str) -> bytes:
    return frame(
        {
            ":exception-type": kind,
            ":content-type": "application/json",
            ":message-type": "exception",
        },
        json.dumps({"message": message}).encode(),
    )


def delta(text: str) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=0, delta={"text": text})


def stop(reason: str = "end_turn") -> bytes:
    return event("messageStop", stopReason=reason)


def metadata(asked: int, said: int) -> bytes:
    counts = {"inputTokens": asked, "outputTokens": said, "totalTokens": asked + said}
    return event("metadata", usage=counts, metrics={"latencyMs": 7})
