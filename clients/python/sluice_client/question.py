"""What a start asks for, as it goes over the wire: the same bytes for each try."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypedDict

#: `role` (`system`, `user`, `assistant`) and `content`.
Message = Mapping[str, str]


class Options(TypedDict, total=False):
    """What a start may ask for beside its model and its prompt."""

    #: Instead of a prompt.
    messages: Sequence[Message]
    max_tokens: int
    pacing: Mapping[str, Any]
    metadata: Mapping[str, str]
    #: A stream whose conversation and text come before this; if it still runs, it is cancelled.
    parent: str
    #: Yours makes a start that is repeated by another run of your program the same start.
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Question:
    """The body of `POST /v1/streams`, and the key by which each try of it is the same start."""

    fields: Mapping[str, Any]
    idempotency_key: str

    @classmethod
    def of(cls, model: str, prompt: str | None, options: Options, new_key: str) -> Self:
        """Raises ValueError where neither or both of a prompt and messages are given, or the key is
        none that a header can carry.
        """
        fields: dict[str, Any] = {**options}
        if (prompt is None) == ("messages" not in fields):
            raise ValueError("give either a prompt or messages")
        key = fields.pop("idempotency_key", new_key)
        if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            raise ValueError("an idempotency key has 1 to 255 printable ASCII characters")
        asked = [{"role": "user", "content": prompt}] if prompt is not None else fields["messages"]
        return cls({**fields, "model": model, "messages": list(asked)}, key)

    def body(self) -> bytes:
        return json.dumps(self.fields, ensure_ascii=False, separators=(",", ":")).encode()

    def again(self, idempotency_key: str) -> Self:
        """The same question, to be answered anew."""
        return replace(self, idempotency_key=idempotency_key)

    def refined(self, parent: str, message: str, idempotency_key: str) -> Self:
        """A further message, behind the conversation and the text of `parent`."""
        fields = {
            **self.fields,
            "messages": [{"role": "user", "content": message}],
            "parent": parent,
        }
        return replace(self, fields=fields, idempotency_key=idempotency_key)
