"""The log of the functions themselves: one JSON object a line, on standard output.

Never pass a prompt, an answer, a key or an exception's message to it; names, ids, counts and the
type of an error are enough to find the rest.
"""

from aws_lambda_powertools import Logger

logger = Logger(service="sluice")


def log_unhandled(error: Exception) -> None:
    """Tell of an error that is nobody's. Its type and its place tell enough; its text could hold a
    prompt.
    """
    logger.error("unhandled", extra={"error": type(error).__name__, "at": _place(error)})


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
