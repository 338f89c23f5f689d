"""A sink of metrics that keeps what it was told, and refuses what is not defined."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.metrics import Line, Metrics


@dataclass(frozen=True, slots=True)
class Said:
    line: Line
    figures: Mapping[str, float]
    dimensions: Mapping[str, str]
    properties: Mapping[str, str]


@dataclass
class Told:
    """Everything, in its order."""

    said: list[Said] = field(default_factory=list)

    def metrics(self) -> Metrics:
        return Metrics(self._take, function="test", models=frozenset({"demo"}))

    def of(self, line: Line) -> list[Said]:
        return [said for said in self.said if said.line is line]

    def sums(self) -> dict[str, float]:
        """Of each figure, all of it."""
        found: dict[str, float] = defaultdict(float)
        for said in self.said:
            for name, value in said.figures.items():
                found[name] += value
        return dict(found)

    def _take(
        self,
        line: Line,
        figures: Mapping[str, float],
        dimensions: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> None:
        assert set(figures) <= {metric.name for metric in line.metrics}
        assert set(dimensions) == set(line.dimensions)
        self.said.append(Said(line, dict(figures), dict(dimensions), dict(properties)))
