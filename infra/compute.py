"""The functions: what each runs, where it is reached, and the little that it may do."""

import tomllib
from collections.abc import Mapping

from aws_cdk import (
    Acknowledgment,
    ArnFormat,
    CfnOutput,
    Duration,
    Stack,
    Validations,
)
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs

from infra import bundling, package, release
from infra.config import Config
from infra.custom import edge_secret
from infra.roles import allow, pin_runtime, role_and_logs

# What a cross-region inference profile's id begins with; the rest is the model's id.
GEOGRAPHIES = ("apac", "au", "ca", "eu", "global", "jp", "us", "us-gov")
LONGEST = Duration.minutes(15)


class Compute:
    """The functions of a stack, sharing one package."""

    def __init__(
        self, stack: Stack, config: Config, tables: Mapping[str, dynamodb.TableV2]
    ) -> None:
        self._stack = stack
        self._config = config
        self._tables = tables
        self._code = bundling.code()
        #: Where failed invocations end up that nobody waits for.
        self.failures: list[sqs.Queue] = []
        self.edge_secret = (
            None if config.edge == "none" else edge_secret(stack, config.log_retention)
        )
        self.produce = self._produce()
        self.stream = self._stream()
        self.api = self._api()
        self.sweep = self._sweep()
        for function in (self.stream, self.api, self.sweep):
            self._allow_launch(function)

    def _stream(self) -> lambda_.Function:
        function = self._function(
            "Stream",
            handler="functions.stream.create",
            timeout=LONGEST,
            memory_mb=self._config.stream_memory_mb,
            # Lambda's own Python runtime cannot stream: this starts the loop that can.
            environment={"AWS_LAMBDA_EXEC_WRAPPER": f"/var/task/{package.WRAPPER}"},
            concurrency=self._config.stream_concurrency,
            snap_start=release.snap_start(self._config),
        )
        self._allow_clients(function)
        self._allow_models(function)
        self._allow_summaries(function)
        self._tell_edge(function)
        called = release.released(self._stack, self._config, function)
        self.stream_url = self._url("StreamUrl", called, lambda_.InvokeMode.RESPONSE_STREAM)
        return function

    def _produce(self) -> lambda_.Function:
        function = self._function(
            "Produce",
            handler="functions.produce.handler",
            timeout=LONGEST,
            memory_mb=self._config.produce_memory_mb,
            concurrency=self._config.produce_concurrency,
        )
        self._allow_models(function)
        function.configure_async_invoke(
            # Both retries of an error (after 1 and 3 minutes) fit. Whoever notices meanwhile that a
            # stream has no producer launches another one.
            retry_attempts=2,
            max_event_age=Duration.minutes(5),
            on_failure=self._failures("ProduceFailures"),
        )
        # It hands over to itself. Apart from the role's own policy, which the function waits for.
        iam.Policy(
            self._stack,
            "ProduceHandover",
            statements=[
                iam.PolicyStatement(
                    actions=["lambda:InvokeFunction"], resources=[function.function_arn]
                )
            ],
            roles=[function.role] if function.role else [],
        )
        return function

    def _api(self) -> lambda_.Function:
        function = self._function(
            "Api",
            handler="functions.api.handler",
            timeout=Duration.seconds(29),
            memory_mb=self._config.api_memory_mb,
            concurrency=self._config.api_concurrency,
        )
        self._allow_clients(function)
        self._allow_summaries(function)
        self._allow_erasure(function)
        allow(function, ["dynamodb:Query"], [f"{self._tables['audit'].table_arn}/index/by_day"])
        self._tell_edge(function)
        self.api_url = self._url("ApiUrl", function, lambda_.InvokeMode.BUFFERED)
        return function

    def _sweep(self) -> lambda_.Function:
        function = self._function(
            "Sweep",
            handler="functions.sweep.handler",
            timeout=Duration.minutes(5),
            memory_mb=self._config.api_memory_mb,
        )
        self._allow_summaries(function)
        self._allow_erasure(function)
        allow(function, ["dynamodb:Query"], [self._tables["tenants"].table_arn])
        by_open = f"{self._tables['streams'].table_arn}/index/by_open"
        allow(function, ["dynamodb:Query"], [by_open])
        function.configure_async_invoke(
            # What one run leaves the next one does: nothing is tried again.
            retry_attempts=0,
            max_event_age=Duration.minutes(1),
            on_failure=self._failures("SweepFailures"),
        )
        events.Rule(
            self._stack,
            "EveryMinute",
            schedule=events.Schedule.rate(Duration.minutes(1)),
            targets=[targets.LambdaFunction(function, retry_attempts=0)],
        )
        return function

    def _function(
        self,
        name: str,
        *,
        handler: str,
        timeout: Duration,
        memory_mb: int,
        environment: Mapping[str, str] | None = None,
        concurrency: int = 0,
        snap_start: lambda_.SnapStartConf | None = None,
    ) -> lambda_.Function:
        role, log_group = role_and_logs(self._stack, name, self._config.log_retention)
        function = lambda_.Function(
            self._stack,
            name,
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            code=self._code,
            handler=handler,
            role=role,
            timeout=timeout,
            memory_size=memory_mb,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            environment={**self._environment(), **(environment or {})},
            reserved_concurrent_executions=concurrency or None,
            snap_start=snap_start,
            current_version_options=release.version_options(),
        )
        pin_runtime(function)
        self._allow_logs(function)
        self._allow_secret(function, self._config.otlp_headers_secret)
        return function

    def _environment(self) -> dict[str, str]:
        config = self._config
        found = {
            **{
                f"SLUICE_{name.upper()}_TABLE": table.table_name
                for name, table in self._tables.items()
            },
            "SLUICE_VERSION": _version(),
            "SLUICE_METRICS_NAMESPACE": self._stack.stack_name,
            "SLUICE_MODELS": ",".join(config.models),
            "SLUICE_SLOW_FIRST_TOKEN_S": str(config.slow_first_token_s),
            "SLUICE_OPENAI_BASE_URL": config.openai_base_url,
            "SLUICE_OPENAI_API_KEY_SECRET": self._secret_arn(config.openai_secret_name),
            "SLUICE_BEDROCK_MODELS": ",".join(config.bedrock_models),
            "SLUICE_OTLP_ENDPOINT": config.otlp_endpoint,
            "SLUICE_OTLP_HEADERS_SECRET": self._secret_arn(config.otlp_headers_secret),
        }
        return {name: value for name, value in found.items() if value}

    def _allow_logs(self, function: lambda_.Function) -> None:
        """Read, append to and close streams, with what belongs to that: quotas, breakers, audit."""
        actions = ["dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"]
        allow(function, actions, [self._tables["streams"].table_arn])
        actions = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
        allow(function, actions, [self._tables["tenants"].table_arn])
        # Never more: what is in the audit stays as it is.
        actions = ["dynamodb:PutItem", "dynamodb:Query"]
        allow(function, actions, [self._tables["audit"].table_arn])

    def _allow_launch(self, function: lambda_.Function) -> None:
        """Have a stream produced: one that was begun to be polled, or whose producer is gone."""
        function.add_environment("SLUICE_PRODUCE_FUNCTION", self.produce.function_name)
        allow(function, ["lambda:InvokeFunction"], [self.produce.function_arn])

    def _allow_clients(self, function: lambda_.Function) -> None:
        """Find who trusts an issuer, and which tenants allow an origin."""
        allow(function, ["dynamodb:Query"], [self._tables["tenants"].table_arn])

    def _allow_summaries(self, function: lambda_.Function) -> None:
        """Show, list and export streams."""
        streams = self._tables["streams"].table_arn
        allow(function, ["dynamodb:GetItem"], [streams])
        indexes = [f"{streams}/index/by_tenant", f"{streams}/index/by_user"]
        allow(function, ["dynamodb:Query"], indexes)

    def _allow_erasure(self, function: lambda_.Function) -> None:
        """Overwrite records, which needs no permission to delete any."""
        allow(function, ["dynamodb:BatchWriteItem"], [self._tables["streams"].table_arn])
        allow(function, ["dynamodb:DeleteItem"], [self._tables["tenants"].table_arn])

    def _allow_models(self, function: lambda_.Function) -> None:
        self._allow_secret(function, self._config.openai_secret_name)
        for model in self._config.bedrock_models:
            self._allow_bedrock(function, model)

    def _allow_bedrock(self, function: lambda_.Function, model: str) -> None:
        actions = ["bedrock:InvokeModelWithResponseStream"]
        arn = f"arn:{self._stack.partition}:bedrock"
        geography, _, base = model.partition(".")
        if geography not in GEOGRAPHIES:
            allow(function, actions, [f"{arn}:{self._stack.region}::foundation-model/{model}"])
            return
        profile = f"{arn}:{self._stack.region}:{self._stack.account}:inference-profile/{model}"
        allow(function, actions, [profile])
        anywhere = f"bedrock:*::foundation-model/{base}"
        function.add_to_role_policy(
            iam.PolicyStatement(
                actions=actions,
                resources=[f"arn:{self._stack.partition}:{anywhere}"],
                conditions={"StringEquals": {"bedrock:InferenceProfileArn": profile}},
            )
        )
        Validations.of(self._stack).acknowledge(
            Acknowledgment(
                id=f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:{anywhere}]",
                reason="AWS may add a region to a profile at any time, so the regions stay open: "
                "for this one model, and only where the call came through the profile.",
            )
        )

    def _allow_secret(self, function: lambda_.Function, name: str) -> None:
        if name:
            # Secrets Manager ends each secret's ARN with six characters of its own.
            secret = f"{self._secret_arn(name)}-??????"
            allow(function, ["secretsmanager:GetSecretValue"], [secret])

    def _secret_arn(self, name: str) -> str:
        """Empty where there is none."""
        return name and self._stack.format_arn(
            service="secretsmanager",
            resource="secret",
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )

    def _failures(self, name: str) -> destinations.SqsDestination:
        """Where invocations end up that nobody waits for, and that have failed."""
        queue = sqs.Queue(
            self._stack,
            name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        Validations.of(queue).acknowledge(
            Acknowledgment(
                id="AwsSolutions-SQS3", reason="This queue is where failed invocations end up."
            )
        )
        self.failures.append(queue)
        return destinations.SqsDestination(queue)

    def _tell_edge(self, function: lambda_.Function) -> None:
        if self.edge_secret:
            digest = self.edge_secret.get_att_string("Digest")
            function.add_environment("SLUICE_EDGE_DIGEST", digest)

    def _url(
        self,
        name: str,
        function: lambda_.Function | lambda_.Alias,
        mode: lambda_.InvokeMode,
    ) -> lambda_.FunctionUrl:
        closed = self._config.edge == "closed"
        # Who may call is decided inside, by key: browsers and SDKs cannot sign for IAM.
        kind = lambda_.FunctionUrlAuthType
        url = function.add_function_url(
            auth_type=kind.AWS_IAM if closed else kind.NONE, invoke_mode=mode
        )
        if not closed:
            CfnOutput(self._stack, name, value=url.url)
        return url


def _version() -> str:
    project = tomllib.loads((package.ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])
