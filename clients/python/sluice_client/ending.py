"""Ending the stream of an answer that another one replaces. No I/O."""

from sluice_client import requests
from sluice_client.following import Following
from sluice_client.machine import Ask, Conditions, Machine, Reply
from sluice_client.naming import named, named_in_body


class Ending(Machine):
    """Cancels what `replaced` has begun, and is not over before that is sure. Where no reply to its
    start was seen, it asks for the stream's name first.
    """

    def __init__(self, conditions: Conditions, replaced: Following) -> None:
        super().__init__(conditions)
        self._replaced: Following | None = replaced

    @property
    def over(self) -> bool:
        return self._running is None

    @property
    def _running(self) -> Following | None:
        replaced = self._replaced
        begun = replaced and not replaced.over and (replaced.id or replaced.asked)
        return replaced if begun else None

    def _ask(self) -> Ask:
        running = self._running
        if running is None:
            raise RuntimeError("there is nothing to end")
        if running.id is None:
            return running.asks_name()
        return requests.steer(self._times, running.id, "cancel")

    def _answered(self, reply: Reply) -> None:
        replaced = self._replaced
        accepted = 200 <= reply.status < 300
        gone = reply.status == 404 and reply.problem is not None
        name = named(reply) if accepted else None
        if replaced and name and replaced.id is None:
            replaced.id = name
        elif gone or (replaced and name and named_in_body(reply) == replaced.id):
            self._replaced = None  # its text is kept no longer than needed
        else:
            self._refused(reply)
            return
        self._alive()
