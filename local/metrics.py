"""The metrics of the local run: `GET /metrics`, for Prometheus as text, for the page as JSON."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.metrics import LINES, Line, Metric, Metrics
from shared.settings import Settings

PATH = "/metrics"
#: From a write on this machine to the longest connection.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 900)
_A_SECOND = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


class Figures:
    """What was told since the start, in the names of Prometheus: `TimeToFirstToken`, in ms, is
    `sluice_time_to_first_token_seconds`, and a count ends in `_total`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families = {
            metric.name: self._family(metric, line) for line in LINES for metric in line.metrics
        }

    def metrics(self, settings: Settings) -> Metrics:
        return Metrics(self.take, function="local", models=settings.told_models)

    def take(
        self,
        line: Line,
        figures: Mapping[str, float],
        dimensions: Mapping[str, str],
        _: Mapping[str, str],
    ) -> None:
        """A sink of `Metrics`."""
        for metric in line.metrics:
            if metric.name not in figures:
                continue
            child = self._families[metric.name].labels(**dimensions)
            if isinstance(child, Counter):
                child.inc(figures[metric.name])
            else:
                child.observe(figures[metric.name] / _scale(metric))

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def document(self) -> dict[str, Any]:
        """The same for a page, by the names of `shared.metrics`, all labels together.

        A count is a number. Of a distribution there is how many values are in each bucket
        (`counts`), and up to what, in ms or a second (`bounds`): the last bucket has no bound.
        What was never told is not there.
        """
        metrics = (metric for line in LINES for metric in line.metrics)
        return {metric.name: told for metric in metrics if (told := self._together(metric))}

    def _together(self, metric: Metric) -> float | dict[str, list[float]] | None:
        family = self._families[metric.name]
        samples = [sample for each in family.collect() for sample in each.samples]
        if isinstance(family, Counter):
            return sum(sample.value for sample in samples if sample.name.endswith("_total"))
        up_to: dict[float, float] = {}
        for sample in samples:
            if "le" in sample.labels:
                bound = float(sample.labels["le"]) * _scale(metric)
                up_to[bound] = up_to.get(bound, 0) + sample.value
        if not up_to:
            return None
        *bounds, _ = up_to
        counts = [after - before for before, after in pairwise((0, *up_to.values()))]
        return {"bounds": bounds, "counts": counts}

    def _family(self, metric: Metric, line: Line) -> Counter | Histogram:
        name = "sluice_" + re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", metric.name).lower()
        about: Any = {"labelnames": line.dimensions, "registry": self._registry}
        match metric.unit:
            case "Count":
                return Counter(name, metric.about, **about)
            case "Milliseconds":
                return Histogram(f"{name}_seconds", metric.about, buckets=_SECONDS, **about)
            case "Count/Second":
                return Histogram(name, metric.about, buckets=_A_SECOND, **about)


def _scale(metric: Metric) -> int:
    """Of a metric's own unit in that of Prometheus."""
    return 1000 if metric.unit == "Milliseconds" else 1


def with_metrics(app: ASGIApp, figures: Figures) -> ASGIApp:
    """The app, with the metrics beside it. They need no key: they name no tenant."""

    async def serving(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await app(scope, receive, send)
        elif "application/json" in Headers(scope=scope).get("accept", ""):
            await JSONResponse(figures.document())(scope, receive, send)
        else:
            await Response(figures.text(), media_type=CONTENT_TYPE_LATEST)(scope, receive, send)

    return serving
