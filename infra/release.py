"""How a new version of a function takes over from the one before, and is ready for it."""

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_lambda as lambda_

from infra.config import SNAPSHOT, Config

# Failed invocations within a minute that send everyone back to the version before.
FAILURES = 3
SHIFTS = {
    "canary": codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES,
    "linear": codedeploy.LambdaDeploymentConfig.LINEAR_10_PERCENT_EVERY_1_MINUTE,
}


def version_options() -> lambda_.VersionOptions:
    # Removed with the next deployment it might still be telling answers.
    return lambda_.VersionOptions(removal_policy=RemovalPolicy.RETAIN)


def snap_start(config: Config) -> lambda_.SnapStartConf | None:
    return lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if config.stream_warm == SNAPSHOT else None


def released(
    stack: Stack, config: Config, function: lambda_.Function
) -> lambda_.Function | lambda_.Alias:
    """What clients call: the function itself, or an alias where a version has to be published."""
    if config.shift == "none" and not config.stream_warm:
        return function
    alias = lambda_.Alias(
        stack,
        f"{function.node.id}Live",
        alias_name="live",
        version=function.current_version,
        provisioned_concurrent_executions=(
            config.stream_warm if isinstance(config.stream_warm, int) else 0
        )
        or None,
    )
    if config.shift != "none":
        _shift(stack, config, alias)
    return alias


def _shift(stack: Stack, config: Config, alias: lambda_.Alias) -> None:
    failing = cloudwatch.Alarm(
        stack,
        "ReleaseFails",
        alarm_description="A new version of `stream` fails: its release is taken back.",
        metric=alias.metric_errors(period=Duration.minutes(1), statistic="Sum"),
        threshold=FAILURES,
        evaluation_periods=1,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    group = codedeploy.LambdaDeploymentGroup(
        stack,
        "Release",
        alias=alias,
        deployment_config=SHIFTS[config.shift],
        alarms=[failing],
    )
    Validations.of(group).acknowledge(
        Acknowledgment(
            id="AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AWSCodeDeployRoleForLambdaLimited]",
            reason="What CodeDeploy does is its own, and so is the list of what it needs.",
        )
    )
