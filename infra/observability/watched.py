"""What is watched: the resources of a stack, and those of their metrics that AWS tells itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from infra.observability.figures import PERIOD
from shared import schema


@dataclass(frozen=True, slots=True)
class Watched:
    """Functions by what they are called in metrics, tables by their logical names."""

    functions: Mapping[str, lambda_.Function]
    tables: Mapping[str, dynamodb.TableV2]
    failures: Sequence[sqs.Queue]
    edge: cloudfront.Distribution | None

    def of_function(
        self, function: lambda_.Function, name: str, statistic: str
    ) -> cloudwatch.Metric:
        return function.metric(name, statistic=statistic, period=PERIOD, label=function.node.id)

    def of_table(self, table: str, name: str, index: str | None = None) -> cloudwatch.Metric:
        """The sum of a table, or of one of its indexes, which DynamoDB counts apart."""
        where = {"TableName": self.tables[table].table_name}
        return cloudwatch.Metric(
            namespace="AWS/DynamoDB",
            metric_name=name,
            dimensions_map=where | ({"GlobalSecondaryIndexName": index} if index else {}),
            statistic="Sum",
            period=PERIOD,
            label=f"{table} {index}" if index else table,
        )

    def throttles(self) -> list[cloudwatch.Metric]:
        """What DynamoDB refuses. An index is only read by itself: what it takes too slowly of its
        table's writes is counted there.
        """
        return [
            self.of_table(table.name, f"{what}ThrottleEvents", index)
            for table in schema.TABLES
            for what in ("Read", "Write")
            for index in (None, *(index.name for index in table.indexes if what == "Write"))
        ]
