"""What metrics are told of redactions: how many, by detector, and nothing of the text."""

from collections.abc import Mapping

from shared.metrics import REDACTION, Metrics
from shared.redaction.rules import detected

#: A tenant names its own words and patterns: these names are too many to be told apart.
CUSTOM = "custom"


def tell_redactions(metrics: Metrics, counts: Mapping[str, int], **about: str | None) -> None:
    """Tell how often each detector has replaced something; `counts` are a `Redactor`'s."""
    for name, count in counts.items():
        detector = name if name in detected() else CUSTOM
        metrics.tell(REDACTION, {"Redactions": count}, detector=detector, **about)
