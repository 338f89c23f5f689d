"""Who a function is, and where it writes: made the same way for each."""

from collections.abc import Sequence

from aws_cdk import Acknowledgment, RemovalPolicy, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct


def role_and_logs(
    scope: Construct, name: str, retention: logs.RetentionDays
) -> tuple[iam.Role, logs.LogGroup]:
    """A role that may write to its own log group, and nothing else."""
    log_group = logs.LogGroup(
        scope,
        f"{name}Logs",
        retention=retention,
        # No answer and no audit record is only in here, and a kept group outlives its name.
        removal_policy=RemovalPolicy.DESTROY,
    )
    # A role of our own: the managed policy for logs is for every log group of the account.
    role = iam.Role(scope, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log_group.grant_write(role)
    return role, log_group


def allow(function: lambda_.Function, actions: Sequence[str], resources: Sequence[str]) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=actions, resources=resources))


def pin_runtime(function: lambda_.Function) -> None:
    """Say that the version of Python is meant as it is."""
    Validations.of(function).acknowledge(
        Acknowledgment(
            id="AwsSolutions-L1", reason="The package is compiled and tested for this version."
        )
    )
