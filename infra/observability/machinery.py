"""What the dashboard says of what Sluice runs on, by what AWS tells itself; the bill comes last."""

from collections.abc import Sequence
from typing import cast

from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_lambda as lambda_

from infra.config import GLOBAL
from infra.observability.figures import PERIOD, Figures
from infra.observability.graphs import Graph, Section
from infra.observability.watched import Watched


def functions(watched: Watched) -> Section:
    every = watched.functions.values()

    def of_each(name: str, statistic: str) -> list[cloudwatch.IMetric]:
        return [watched.of_function(function, name, statistic) for function in every]

    urls = [watched.functions[name] for name in ("stream", "api")]
    reserved = [
        cloudwatch.HorizontalAnnotation(value=bound, label=f"reserved for {function.node.id}")
        for function in every
        if (bound := _template(function).reserved_concurrent_executions)
    ]
    return Section(
        "The functions",
        "An error is a crash or a timeout; a throttle is an invocation that Lambda refused.",
        [
            [
                Graph("Errors", of_each("Errors", "Sum")),
                Graph("Throttles", of_each("Throttles", "Sum")),
                Graph(
                    "Status 500 and above at the function URLs",
                    [watched.of_function(function, "Url5xxCount", "Sum") for function in urls],
                ),
            ],
            [
                Graph(
                    "Running at once, and what bounds it",
                    [*of_each("ConcurrentExecutions", "Maximum"), *_account()],
                    bounds=reserved,
                ),
                Graph("Duration: p99, ms", of_each("Duration", "p99")),
                Graph("Invocations", of_each("Invocations", "Sum")),
            ],
        ],
    )


def _account() -> list[cloudwatch.IMetric]:
    """What the account's functions run at once, and may."""
    running = cloudwatch.Metric(
        namespace="AWS/Usage",
        metric_name="ResourceCount",
        dimensions_map={
            "Service": "Lambda",
            "Type": "Resource",
            "Resource": "ConcurrentExecutions",
            "Class": "None",
        },
        statistic="Maximum",
        period=PERIOD,
        label="the account",
    )
    bound = cloudwatch.MathExpression(
        expression="SERVICE_QUOTA(account)",
        using_metrics={"account": running},
        label="the account's bound",
        period=PERIOD,
    )
    return [running, bound]


def tables(watched: Watched) -> Section:
    def of_each(name: str) -> list[cloudwatch.IMetric]:
        return [watched.of_table(table, name) for table in watched.tables]

    return Section(
        "The tables",
        "Throttled is what DynamoDB refused, for it came too fast; system errors are its own.",
        [
            [
                Graph("Write units", of_each("ConsumedWriteCapacityUnits")),
                Graph("Read units", of_each("ConsumedReadCapacityUnits")),
                Graph("Throttled reads and writes", watched.throttles()),
                Graph("System errors", [_system_errors(*one) for one in watched.tables.items()]),
            ]
        ],
    )


def _system_errors(name: str, table: dynamodb.TableV2) -> cloudwatch.IMetric:
    """Those of all operations, which DynamoDB counts one by one."""
    metric = f'TableName="{table.table_name}" MetricName="SystemErrors"'
    return cloudwatch.MathExpression(
        expression=f"SUM(SEARCH('{{AWS/DynamoDB,TableName,Operation}} {metric}', 'Sum'))",
        using_metrics={},
        label=name,
        period=PERIOD,
    )


def behind(figures: Figures, watched: Watched) -> Section:
    produce, sweep = (watched.functions[name] for name in ("produce", "sweep"))

    def of(function: lambda_.Function, name: str, statistic: str, label: str) -> cloudwatch.Metric:
        return function.metric(name, statistic=statistic, period=PERIOD, label=label)

    did = {
        "SweepTakenOver": "taken over",
        "SweepParked": "parked",
        "SweepClosed": "closed",
        "SweepErased": "erasures finished",
        "SweepFailed": "failed",
    }
    return Section(
        "Behind the scenes",
        "Producers that nobody's connection holds, failures that are kept, and the sweep.",
        [
            [
                Graph(
                    "Asynchronous invocations of produce; their wait, ms",
                    [
                        of(produce, "AsyncEventsReceived", "Sum", "received"),
                        of(produce, "AsyncEventsDropped", "Sum", "given up"),
                    ],
                    right=[of(produce, "AsyncEventAge", "p99", "waited, p99")],
                ),
                Graph(
                    "Failures kept in queues",
                    [
                        queue.metric_approximate_number_of_messages_visible(
                            period=PERIOD, statistic="Maximum", label=queue.node.id
                        )
                        for queue in watched.failures
                    ],
                ),
                Graph(
                    "What the sweep did; its runs",
                    [
                        figures.one(name, "Sum", label=label, function="sweep")
                        for name, label in did.items()
                    ],
                    right=[of(sweep, "Invocations", "Sum", "runs")],
                ),
                Graph(
                    "Open streams that a sweep looked at",
                    [figures.one("SweepLookedAt", "Maximum", label="most", function="sweep")],
                ),
            ]
        ],
    )


def edge(distribution: cloudfront.Distribution, *, origins: bool) -> Section:
    """With `origins` also what is only measured where that was asked for."""

    def told(name: str, statistic: str, label: str) -> cloudwatch.IMetric:
        return cloudwatch.Metric(
            namespace="AWS/CloudFront",
            metric_name=name,
            dimensions_map={"DistributionId": distribution.distribution_id, "Region": "Global"},
            statistic=statistic,
            period=PERIOD,
            label=label,
            # Wherever the stack is.
            region=GLOBAL,
        )

    errors = [told(f"{kind}ErrorRate", "Average", kind) for kind in ("4xx", "5xx")]
    row = [
        Graph("Requests", [told("Requests", "Sum", "requests")]),
        Graph("Requests with an error, %", errors),
    ]
    if origins:
        latency = [told("OriginLatency", p, p) for p in ("p50", "p90", "p99")]
        row.append(Graph("An origin's time to its first byte, ms", latency))
    return Section("The edge", "CloudFront, before both functions and the page.", [row])


def bill(figures: Figures, watched: Watched) -> Section:
    every = watched.functions.values()
    return Section(
        "What drives the bill",
        "`sluice cost --stack` has it in USD. Write units are further up.",
        [
            [
                Graph("Lambda: GB-seconds", _gb_seconds(watched, list(every))),
                Graph(
                    "Tokens",
                    [
                        figures.total("InputTokens", label="of prompts"),
                        figures.total("OutputTokens", label="of answers"),
                    ],
                ),
                Graph("Polls", [figures.total("Polls", label="polls")]),
                Graph("Logs: bytes taken in", [_logged(function) for function in every]),
            ]
        ],
    )


def _gb_seconds(watched: Watched, every: Sequence[lambda_.Function]) -> list[cloudwatch.IMetric]:
    return [
        cloudwatch.MathExpression(
            expression=f"ms_{function.node.id} * {_template(function).memory_size} / 1024 / 1000",
            using_metrics={
                f"ms_{function.node.id}": watched.of_function(function, "Duration", "Sum")
            },
            label=function.node.id,
            period=PERIOD,
        )
        for function in every
    ]


def _logged(function: lambda_.Function) -> cloudwatch.IMetric:
    return cloudwatch.Metric(
        namespace="AWS/Logs",
        metric_name="IncomingBytes",
        dimensions_map={"LogGroupName": function.log_group.log_group_name},
        statistic="Sum",
        period=PERIOD,
        label=function.node.id,
    )


def _template(function: lambda_.Function) -> lambda_.CfnFunction:
    return cast("lambda_.CfnFunction", function.node.default_child)
