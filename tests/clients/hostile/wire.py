"""Bytes on a connection: how a response travels, or does not."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator
from http import HTTPStatus
from itertools import pairwise

from tests.clients.hostile.body import Reply
from tests.clients.hostile.language import Rule

GARBAGE = bytes(range(256))


class Wire:
    """One connection. `sent` counts the bytes of the body, `ended` says how it came to its end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        # So that `drain` waits until the socket has it all: what was sent before a cut arrives.
        writer.transport.set_write_buffer_limits(high=0)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chunked = False
        self.sent = 0
        self.ended = "under way"

    async def send(self, reply: Reply, rule: Rule) -> None:
        body = reply.body or _nothing()
        if "gzip-garbage" in rule:
            reply.headers["content-encoding"] = "gzip"
            body, reply.length = _garbage(), None
        if "buffer" in rule:
            body = _one(b"".join([piece async for piece in body]))
        await self._head(reply)
        if "head-only" in rule:
            await asyncio.Event().wait()
        await self._body(_nothing() if "empty" in rule else body, rule)
        if self.ended == "under way":
            await self._finish()
            self.ended = "whole"

    async def reset(self) -> None:
        """End the connection so that the other side is told that something is wrong."""
        connection = self._writer.get_extra_info("socket")
        while _unsent(connection):  # noqa: ASYNC110 # a reset discards it, and nobody tells
            await asyncio.sleep(0.001)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.ended = "cut"

    async def _head(self, reply: Reply) -> None:
        headers = {**reply.headers, "connection": "close"}
        self._chunked = reply.length is None
        if self._chunked:
            headers["transfer-encoding"] = "chunked"
        elif reply.status != 204:
            headers["content-length"] = str(reply.length)
        phrase = HTTPStatus(reply.status).phrase
        headers = {name: value for name, value in headers.items() if value}
        lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{n}: {v}" for n, v in headers.items())]
        self._writer.write("\r\n".join((*lines, "", "")).encode())
        await self._writer.drain()

    async def _body(self, body: AsyncIterator[bytes], rule: Rule) -> None:
        breaks = {name: rule.number(name) for name in ("cut", "fin", "end") if name in rule}
        how, limit = next(iter(breaks.items()), ("", sys.maxsize))
        stalls_at = rule.number("at") if "stall" in rule else None
        if how and limit == 0:
            await self._break(how)
            return
        async for piece in body:
            if "truncated-utf8" in rule and not how:
                how, limit = _within_character(piece, self.sent)
            for part in _parts(piece, self.sent, (limit, stalls_at), bytewise="slow" in rule):
                if self.sent == stalls_at:
                    await asyncio.sleep(rule.seconds("stall"))
                await self._write(part)
                if self.sent >= limit:
                    await self._break(how)
                    return
                await asyncio.sleep(rule.seconds("slow") / 1000)

    async def _break(self, how: str) -> None:
        if how == "cut":
            await self.reset()
        elif how == "end":
            await self._finish()
            self.ended = "ended"
        else:
            self._writer.close()
            self.ended = "fin"

    async def _write(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await self._writer.drain()
        self.sent += len(data)

    async def _finish(self) -> None:
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()
        self._writer.close()


def _parts(
    piece: bytes, start: int, marks: tuple[int | None, ...], *, bytewise: bool
) -> list[bytes]:
    """A piece of the body in parts that end where something is to happen."""
    if bytewise:
        return [piece[n : n + 1] for n in range(len(piece))]
    within = {mark - start for mark in marks if mark is not None and start < mark}
    edges = [0, *sorted(n for n in within if n < len(piece)), len(piece)]
    return [piece[a:b] for a, b in pairwise(edges) if a < b]


def _within_character(piece: bytes, start: int) -> tuple[str, int]:
    """A cut behind the first byte of the first character that has several."""
    first = next((n for n, byte in enumerate(piece) if byte >= 0xC0), None)
    return ("", sys.maxsize) if first is None else ("cut", start + first + 1)


def _unsent(connection: socket.socket) -> int:
    held = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(held, sys.byteorder)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _garbage() -> AsyncIterator[bytes]:
    yield GARBAGE
