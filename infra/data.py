"""The tables, built from the shapes that the functions and the local run share."""

from collections.abc import Mapping

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from infra.config import Config
from shared import schema


def tables(scope: Construct, config: Config) -> Mapping[str, dynamodb.TableV2]:
    """Every table by its logical name. A disposable one goes with the stack, data and all."""
    return {shape.name: _table(scope, shape, config) for shape in schema.TABLES}


def _table(scope: Construct, shape: schema.Table, config: Config) -> dynamodb.TableV2:
    # Beyond this DynamoDB throttles instead of billing.
    reads, writes = config.max_read_units or None, config.max_write_units or None
    return dynamodb.TableV2(
        scope,
        f"{shape.name.title()}Table",
        partition_key=_attribute(shape.partition),
        sort_key=_attribute(shape.sort),
        time_to_live_attribute=shape.expiry,
        global_secondary_indexes=[
            dynamodb.GlobalSecondaryIndexPropsV2(
                index_name=index.name,
                partition_key=_attribute(index.partition),
                sort_key=_attribute(index.sort),
                projection_type=dynamodb.ProjectionType.INCLUDE,
                non_key_attributes=list(index.projected),
                max_read_request_units=reads,
                max_write_request_units=writes,
            )
            for index in shape.indexes
        ],
        billing=dynamodb.Billing.on_demand(
            max_read_request_units=reads, max_write_request_units=writes
        ),
        # A key of AWS's own: encrypted without a price per request or a key policy to look after.
        encryption=dynamodb.TableEncryptionV2.dynamo_owned_key(),
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        deletion_protection=not config.disposable,
        removal_policy=RemovalPolicy.DESTROY if config.disposable else RemovalPolicy.RETAIN,
    )


def _attribute(attribute: schema.Attribute) -> dynamodb.Attribute:
    types = {"S": dynamodb.AttributeType.STRING, "N": dynamodb.AttributeType.NUMBER}
    return dynamodb.Attribute(name=attribute.name, type=types[attribute.type])
