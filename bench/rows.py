"""Rows of the table, and the statistics that they are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `peer` names what the same run measured beside it."""

    section: str
    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the peer this is; None where there is no peer, or it is nothing."""
        return self.value / self.peer_value if self.peer_value else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that was really measured."""
    ranked = sorted(values)
    return ranked[max(math.ceil(len(ranked) * percent / 100) - 1, 0)]


def render(rows: Sequence[Row]) -> str:
    """The table as plain text."""
    head = ("section", "what", "Sluice", "unit", "ratio", "peer", "of")
    body = [
        (
            row.section,
            row.what,
            _number(row.value),
            row.unit,
            f"{_number(row.ratio)}×" if row.ratio is not None else "–",
            _number(row.peer_value) if row.peer_value is not None else "–",
            row.peer,
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = [_line(head, widths), _line(["─" * width for width in widths], widths)]
    for row, before in zip(body, (None, *body), strict=False):
        if before and row[0] != before[0]:
            lines.append("")
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        cell.rjust(width) if i in (2, 4, 5) else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()


def _number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{digits}f}"
