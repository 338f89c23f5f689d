"""How metrics are told on AWS: as lines of the log in CloudWatch's embedded metric format."""

from collections.abc import Mapping

from aws_lambda_powertools.metrics import EphemeralMetrics

from shared import trace
from shared.metrics import Line, Metrics
from shared.settings import Settings


def emf(settings: Settings, function: str) -> Metrics:
    """Writes lines to standard output, which cost what a line of the log costs."""

    def write(
        line: Line,
        figures: Mapping[str, float],
        dimensions: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> None:
        embedded = EphemeralMetrics(namespace=settings.metrics_namespace)
        first, *others = ({name: dimensions[name] for name in names} for names in line.by)
        for name, value in first.items():
            embedded.add_dimension(name, value)
        for more in others:
            embedded.add_dimensions(**more)
        # A stream's own id, where the line is about one: others may read or end it.
        about = {"line": line.name, **trace.names(), **properties}
        for name, value in about.items():
            embedded.add_metadata(name, value)
        for metric in line.metrics:
            if metric.name in figures:
                embedded.add_metric(metric.name, metric.unit, figures[metric.name])
        embedded.flush_metrics()

    return Metrics(write, function=function, models=settings.told_models)
