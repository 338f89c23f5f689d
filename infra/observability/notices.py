"""Whom alarms tell: a topic, and an address if the context has one."""

from aws_cdk import Aws, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions


def topic(stack: Stack, email: str) -> sns.Topic:
    """Encrypted, and spoken to over TLS alone. Only CloudWatch writes, for this account."""
    made = sns.Topic(stack, "Alarms", master_key=_key(stack), enforce_ssl=True)
    made.add_to_resource_policy(
        iam.PolicyStatement(
            actions=["sns:Publish"],
            resources=[made.topic_arn],
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
        )
    )
    if email:
        made.add_subscription(subscriptions.EmailSubscription(email))
    CfnOutput(stack, "AlarmTopicArn", value=made.topic_arn)
    return made


def _key(stack: Stack) -> kms.Key:
    # One of our own: CloudWatch may not use that which AWS keeps for SNS, and alarms would be lost.
    # It opens nothing but the topic, which takes messages of this account alone.
    key = kms.Key(
        stack,
        "AlarmsKey",
        description="Messages of alarms",
        enable_key_rotation=True,
        # Nothing is kept under it: a message is gone when it is delivered.
        removal_policy=RemovalPolicy.DESTROY,
        pending_window=Duration.days(7),
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            actions=["kms:Decrypt", "kms:GenerateDataKey*"],
            resources=["*"],
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        )
    )
    return key
