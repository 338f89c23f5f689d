"""What a deployed stack has used, by CloudWatch's own counts, priced.

What one function did for whom is not in these counts; `sluice usage` has that.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from local import aws, prices
from local.cost import Line, line
from local.errors import Failed

#: One sum a day: CloudWatch keeps these for 15 months.
PERIOD_S = 86_400
QUERIES_MAX = 500


@dataclass(frozen=True, slots=True)
class Metric:
    """A sum to ask for, of one resource. `each` is what a unit of it counts as in `unit`."""

    what: str
    unit: str
    usd: float
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    each: float = 1.0


def lines(options: Namespace) -> list[Line]:
    """The bill of `--stack` over `--days`. Raises `Failed` where AWS does not tell."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = aws.session(options.profile, options.region)
        metrics, stored_bytes = _described(session, options.stack)
        end = datetime.now(UTC)
        sums = _sums(session, metrics, end - timedelta(days=options.days), end)
    except (BotoCoreError, ClientError) as error:
        raise Failed(f"AWS does not tell of the stack {options.stack}: {error}") from error
    months = options.days / 30
    stored_gb = stored_bytes / 1e9 * months
    return [
        *_merged(metrics, sums),
        line("DynamoDB: storage, as it is now", stored_gb, "GB-months", prices.STORED_GB_MONTH),
    ]


def _merged(metrics: Sequence[Metric], sums: Sequence[float]) -> list[Line]:
    """One line for each thing that is billed, over all resources."""
    amounts: dict[tuple[str, str, float], float] = {}
    for metric, total in zip(metrics, sums, strict=True):
        key = (metric.what, metric.unit, metric.usd)
        amounts[key] = amounts.get(key, 0.0) + total * metric.each
    return [line(what, amount, unit, usd) for (what, unit, usd), amount in amounts.items()]


def _described(session: Any, stack: str) -> tuple[list[Metric], int]:
    """What to ask of a stack's resources, and the bytes that its tables hold."""
    metrics: list[Metric] = []
    stored = 0
    pages = session.client("cloudformation").get_paginator("list_stack_resources")
    for page in pages.paginate(StackName=stack):
        for resource in page["StackResourceSummaries"]:
            name = resource.get("PhysicalResourceId", "")
            match resource["ResourceType"]:
                case "AWS::Lambda::Function":
                    metrics += _function(session, name)
                case "AWS::DynamoDB::Table" | "AWS::DynamoDB::GlobalTable":
                    found, size = _table(session, name)
                    metrics += found
                    stored += size
                case "AWS::Logs::LogGroup":
                    where = ("AWS/Logs", "IncomingBytes", (("LogGroupName", name),))
                    metrics.append(Metric("CloudWatch: logs", "GB", prices.LOGS_GB, *where, 1e-9))
                case "AWS::CloudFront::Distribution":
                    metrics += _distribution(name)
    if not metrics:
        raise Failed(f"the stack {stack} has nothing of Sluice in it")
    return metrics, stored


def _function(session: Any, name: str) -> list[Metric]:
    memory = session.client("lambda").get_function_configuration(FunctionName=name)["MemorySize"]
    where = (("FunctionName", name),)
    gb_s = memory / 1024 / 1000  # of a millisecond
    return [
        Metric(
            *("Lambda: time", "GB-s", prices.LAMBDA_GB_S, "AWS/Lambda", "Duration", where), gb_s
        ),
        Metric("Lambda: requests", "", prices.LAMBDA_REQUEST, "AWS/Lambda", "Invocations", where),
    ]


def _table(session: Any, name: str) -> tuple[list[Metric], int]:
    table = session.client("dynamodb").describe_table(TableName=name)["Table"]
    indexes = table.get("GlobalSecondaryIndexes", [])
    metrics = []
    for more in ((), *((("GlobalSecondaryIndexName", one["IndexName"]),) for one in indexes)):
        where = (("TableName", name), *more)
        for what, unit, usd, counted in (
            ("DynamoDB: writes", "WRU", prices.WRU, "ConsumedWriteCapacityUnits"),
            ("DynamoDB: reads", "RRU", prices.RRU, "ConsumedReadCapacityUnits"),
        ):
            metrics.append(Metric(what, unit, usd, "AWS/DynamoDB", counted, where))
    size = table.get("TableSizeBytes", 0) + sum(one.get("IndexSizeBytes", 0) for one in indexes)
    return metrics, size


def _distribution(name: str) -> list[Metric]:
    where = (("DistributionId", name), ("Region", "Global"))
    namespace = "AWS/CloudFront"
    sent = ("CloudFront: to the internet", "GB", prices.EDGE_GB, namespace, "BytesDownloaded")
    return [
        Metric("CloudFront: requests", "", prices.EDGE_REQUEST, namespace, "Requests", where),
        Metric(*sent, where, 1e-9),
    ]


def _sums(session: Any, metrics: Sequence[Metric], start: datetime, end: datetime) -> list[float]:
    """The sum of each metric between two moments; 0 where there is none."""
    totals = [0.0] * len(metrics)
    here = session.client("cloudwatch")
    # CloudFront's figures are in one region, whatever the stack's.
    edge = session.client("cloudwatch", region_name="us-east-1")
    for client, numbers in (
        (here, [n for n, m in enumerate(metrics) if m.namespace != "AWS/CloudFront"]),
        (edge, [n for n, m in enumerate(metrics) if m.namespace == "AWS/CloudFront"]),
    ):
        for first in range(0, len(numbers), QUERIES_MAX):
            queries = [_query(n, metrics[n]) for n in numbers[first : first + QUERIES_MAX]]
            pages = client.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries, StartTime=start, EndTime=end
            )
            for page in pages:
                for result in page["MetricDataResults"]:
                    totals[int(result["Id"][1:])] += sum(result["Values"])
    return totals


def _query(number: int, metric: Metric) -> dict[str, Any]:
    dimensions = [{"Name": name, "Value": value} for name, value in metric.dimensions]
    return {
        "Id": f"m{number}",
        "MetricStat": {
            "Metric": {
                "Namespace": metric.namespace,
                "MetricName": metric.name,
                "Dimensions": dimensions,
            },
            "Period": PERIOD_S,
            "Stat": "Sum",
        },
    }
