"""Sluice's own metrics as CloudWatch holds them, with names and dimensions of `shared.metrics`."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

from shared.metrics import LINES

PERIOD = Duration.minutes(5)
_LINES = {metric.name: line for line in LINES for metric in line.metrics}


class Figures:
    """The metrics of one stack. A name or a set of dimensions that nothing tells is a `ValueError`.

    Statistics are CloudWatch's own: `Sum`, `p90`, …
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def one(
        self, name: str, statistic: str, *, label: str | None = None, **dimensions: str
    ) -> cloudwatch.Metric:
        """A metric, which may be in an alarm."""
        _check(name, tuple(dimensions))
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=PERIOD,
            label=label,
        )

    def each(self, name: str, statistic: str, *by: str) -> cloudwatch.MathExpression:
        """A line for each value of the dimensions that is there. Only a dashboard can have it."""
        label = " ".join(f"${{PROP('Dim.{dimension}')}}" for dimension in by)
        return self._found(self._search(name, statistic, by), label)

    def total(self, name: str, *, label: str) -> cloudwatch.MathExpression:
        """The sum of a count over all functions. Only a dashboard can have it."""
        return self._found(self._summed(name), label)

    def percent(self, name: str, other: str, *, label: str) -> cloudwatch.MathExpression:
        """How many of a hundred of both are the first. Only a dashboard can have it."""
        some, others = self._summed(name), self._summed(other)
        return self._found(f"100 * {some} / ({some} + {others})", label)

    def selected(self, name: str, *by: str, where: tuple[str, str]) -> cloudwatch.MathExpression:
        """The sum of a count, whatever the other dimensions are, which may be in an alarm."""
        _check(name, by)
        schema = ", ".join(f'"{part}"' for part in (self._namespace, *by))
        dimension, value = where
        chosen = f"FROM SCHEMA({schema}) WHERE \"{dimension}\" = '{value}'"
        return self._found(f'SELECT SUM("{name}") {chosen}', name)

    def _search(self, name: str, statistic: str, by: tuple[str, ...]) -> str:
        _check(name, by)
        schema = ",".join((f'"{self._namespace}"', *by))
        return f"SEARCH('{{{schema}}} MetricName=\"{name}\"', '{statistic}')"

    def _summed(self, name: str) -> str:
        return f"SUM({self._search(name, 'Sum', ('function',))})"

    def _found(self, expression: str, label: str) -> cloudwatch.MathExpression:
        return cloudwatch.MathExpression(
            expression=expression, using_metrics={}, label=label, period=PERIOD
        )


def _check(name: str, by: tuple[str, ...]) -> None:
    if name not in _LINES:
        raise ValueError(f"shared.metrics has no {name}")
    if set(by) not in [set(dimensions) for dimensions in _LINES[name].by]:
        raise ValueError(f"{name} is not told by {', '.join(by) or 'nothing'}")
