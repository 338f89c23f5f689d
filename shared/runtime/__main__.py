"""`python -m shared.runtime functions.stream:create`: the process that Lambda starts."""

import importlib
import io
import os
import signal
import sys
from contextlib import suppress
from typing import cast

from shared.runtime import loop, report, snapstart
from shared.runtime.client import RuntimeApi
from shared.runtime.cycle import App


def load(target: str) -> App:
    """Import the module of `module:factory` and call its factory, which takes no argument."""
    module, _, factory = target.partition(":")
    return cast("App", getattr(importlib.import_module(module), factory)())


def main(target: str) -> int:
    """Serve until the environment ends; the exit status, not 0 where it cannot start."""
    # AWS's own variables of the runtime are the one exception to "settings reads the environment".
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        app = load(target)
    except Exception as error:  # noqa: BLE001 - whatever the app's import raises is told to Lambda
        report.log_failure("The function could not be loaded", error, detail=str(error))
        api.init_error(error)
        return 1
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start" and not snapstart.pause(
        api
    ):
        return 1
    # SIGTERM comes only where an extension is registered, up to 500 ms before the environment ends.
    # It is taken for a Ctrl-C, which cancels what the runner runs: so a producer hands over.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with suppress(KeyboardInterrupt):
        loop.run(app, api)
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe's buffer would keep what was printed while the environment is frozen.
        sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main(sys.argv[1]))
