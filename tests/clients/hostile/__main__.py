"""Serve until standard input ends, or SIGTERM. The first line that is printed is the URL."""

import asyncio
import os
import signal
import sys
import threading

from tests.clients.hostile import serve


async def main() -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def until_its_end() -> None:
        while os.read(sys.stdin.fileno(), 65536):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=until_its_end, daemon=True).start()
    await serve(lambda url: print(url, flush=True), stop)


asyncio.run(main())
