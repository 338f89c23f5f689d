"""The log of the functions themselves: one JSON object a line, on standard output.

Never pass a prompt, an answer, a key or an exception's message to it; names, ids, counts and the
type of an error are enough to find the rest.
"""

from aws_lambda_powertools import Logger

logger = Logger(service="sluice")
