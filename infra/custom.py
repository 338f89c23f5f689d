"""Resources of our own, for what CloudFormation has none: a page's files, an edge's secret."""

from collections.abc import Mapping
from typing import cast

from aws_cdk import (
    Acknowledgment,
    CfnElement,
    CustomResource,
    Duration,
    RemovalPolicy,
    Stack,
    Validations,
)
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra import bundling
from infra.package import ROOT
from infra.roles import allow, pin_runtime, role_and_logs

HANDLERS = ROOT / "infra" / "handlers.py"
LONGEST = Duration.minutes(2)


def edge_secret(scope: Construct, retention: logs.RetentionDays) -> CustomResource:
    """Its `Secret` is for the edge alone; a function knows it by its `Digest`.

    So a function needs no call to know it, and no function's settings hold it. Both come from one
    reading: another value in Secrets Manager alone changes neither.
    """
    kept = secretsmanager.Secret(
        scope,
        "EdgeSecretKept",
        description="What only the edge knows. Not to be rotated: see docs/decisions/infra-edge.md",
        generate_secret_string=secretsmanager.SecretStringGenerator(
            # 256 bits, in what a header may hold.
            password_length=43,
            exclude_punctuation=True,
        ),
        removal_policy=RemovalPolicy.DESTROY,
    )
    Validations.of(kept).acknowledge(
        Acknowledgment(
            id="AwsSolutions-SMG4",
            reason="Edge and functions would not change at the same time, and it gives no access.",
        )
    )
    function = _function(scope, "EdgeSecret", "secret", retention)
    allow(function, ["secretsmanager:GetSecretValue"], [kept.secret_arn])
    return _resource(scope, "EdgeSecret", function, {"Kept": kept.secret_arn})


def page_in(
    scope: Construct, bucket: s3.Bucket, config: str, retention: logs.RetentionDays
) -> CustomResource:
    """The page's files in a bucket, with its `config.json`."""
    function = _function(scope, "Page", "page", retention)
    files = bundling.page_files(scope)
    allow(function, ["s3:GetObject"], [files.bucket.arn_for_objects(files.s3_object_key)])
    allow(function, ["s3:ListBucket"], [bucket.bucket_arn])
    allow(function, ["s3:PutObject", "s3:DeleteObject"], [bucket.arn_for_objects("*")])
    bucket_id = Stack.of(scope).get_logical_id(cast("CfnElement", bucket.node.default_child))
    Validations.of(scope).acknowledge(
        Acknowledgment(
            id=f"AwsSolutions-IAM5[Resource::<{bucket_id}.Arn>/*]",
            reason="Each release has files of other names, and the bucket holds nothing else.",
        )
    )
    return _resource(
        scope,
        "Page",
        function,
        {
            "Bucket": bucket.bucket_name,
            "AssetBucket": files.s3_bucket_name,
            "AssetKey": files.s3_object_key,
            "Config": config,
        },
    )


def _function(
    scope: Construct, name: str, entry: str, retention: logs.RetentionDays
) -> lambda_.Function:
    role, log_group = role_and_logs(scope, f"{name}Maker", retention)
    function = lambda_.Function(
        scope,
        f"{name}Maker",
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64,
        code=lambda_.Code.from_inline(HANDLERS.read_text()),
        handler=f"index.{entry}",
        role=role,
        timeout=LONGEST,
        memory_size=256,
        log_group=log_group,
        logging_format=lambda_.LoggingFormat.JSON,
    )
    pin_runtime(function)
    return function


def _resource(
    scope: Construct, name: str, function: lambda_.Function, properties: Mapping[str, str]
) -> CustomResource:
    return CustomResource(
        scope,
        name,
        resource_type=f"Custom::{name}",
        service_token=function.function_arn,
        # One that dies answers nobody, and CloudFormation would wait for an hour.
        service_timeout=Duration.minutes(3),
        properties=properties,
    )
