"""Redaction: what a tenant does not want to be stored or sent, taken out of a text on its way."""

from shared.redaction.redactor import HELD_MAX, Redactor, Validator, redact
from shared.redaction.rules import Mode, Pattern, PolicyViolation, Rules, Word

__all__ = [
    "HELD_MAX",
    "Mode",
    "Pattern",
    "PolicyViolation",
    "Redactor",
    "Rules",
    "Validator",
    "Word",
    "redact",
]
