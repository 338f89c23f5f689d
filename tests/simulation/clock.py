"""An event loop whose time jumps: hours pass in milliseconds, and the same way every time."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class VirtualLoop(asyncio.BaseEventLoop):
    """Time stands still while anything can run; then it is the time of the next timer.

    There is no input or output, and there are no threads: the loop is its own selector, which finds
    nothing ready and passes the time that it is told to wait at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("every task waits, and nothing will ever wake one")
        self._now += timeout
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        """Nothing to wake: the loop never sleeps."""


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` from the virtual time 0 on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test in virtual time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run
