"""The functions: settings, URLs, permissions, logs, failures."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from shared.settings import Settings
from tests.infra.conftest import ROOT, Template, of_type

FUNCTIONS = ("Stream", "Api", "Produce", "Sweep")


def function(template: Template, name: str) -> dict[str, Any]:
    """Properties of a function by what it is called in the stack."""
    [(_, found)] = [
        (logical, resource)
        for logical, resource in of_type(template, "AWS::Lambda::Function").items()
        if resource["Properties"]["Handler"].startswith(f"functions.{name.lower()}.")
    ]
    properties: dict[str, Any] = found["Properties"]
    return properties


def logical_id(template: Template, name: str) -> str:
    [found] = [
        logical
        for logical, resource in of_type(template, "AWS::Lambda::Function").items()
        if resource["Properties"]["Handler"].startswith(f"functions.{name.lower()}.")
    ]
    return found


@pytest.mark.parametrize(
    ("name", "handler", "timeout"),
    [
        ("Stream", "functions.stream.create", 900),
        ("Api", "functions.api.handler", 29),
        ("Produce", "functions.produce.handler", 900),
        ("Sweep", "functions.sweep.handler", 300),
    ],
)
def test_what_a_function_runs(template: Template, name: str, handler: str, timeout: int) -> None:
    found = function(template, name)
    assert found["Handler"] == handler
    assert found["Timeout"] == timeout
    assert found["MemorySize"] == 256
    assert found["Runtime"] == "python3.13"
    assert found["Architectures"] == ["arm64"]
    assert "Layers" not in found
    assert "TracingConfig" not in found
    assert "ReservedConcurrentExecutions" not in found


def test_there_is_no_other_function(template: Template, bare: Template) -> None:
    """But those that CloudFormation calls at a deployment, for the edge."""
    ours = {
        *("functions.stream.create", "functions.api.handler"),
        *("functions.produce.handler", "functions.sweep.handler"),
    }
    assert handlers(bare) == ours
    assert handlers(template) == ours | {"index.page", "index.secret"}


def handlers(template: Template) -> set[str]:
    functions = of_type(template, "AWS::Lambda::Function").values()
    return {function["Properties"]["Handler"] for function in functions}


@pytest.mark.parametrize(("name", "mode"), [("Stream", "RESPONSE_STREAM"), ("Api", "BUFFERED")])
def test_a_url_is_open_and_has_both_permissions(template: Template, name: str, mode: str) -> None:
    arn = {"Fn::GetAtt": [logical_id(template, name), "Arn"]}
    [url] = [
        resource["Properties"]
        for resource in of_type(template, "AWS::Lambda::Url").values()
        if resource["Properties"]["TargetFunctionArn"] == arn
    ]
    assert (url["AuthType"], url["InvokeMode"]) == ("NONE", mode)
    permissions = [
        resource["Properties"]
        for resource in of_type(template, "AWS::Lambda::Permission").values()
        if resource["Properties"]["FunctionName"] == arn
    ]
    open_to_all = {"FunctionName": arn, "Principal": "*"}
    invoke = {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}
    by_url = {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}
    assert sorted(permissions, key=lambda found: found["Action"]) == [
        {**open_to_all, **invoke},
        {**open_to_all, **by_url},
    ]


def test_no_client_reaches_produce_and_only_the_clock_the_sweep(
    template: Template,
) -> None:
    assert len(of_type(template, "AWS::Lambda::Url")) == 2
    # Two for each URL, and one for the schedule.
    assert len(of_type(template, "AWS::Lambda::Permission")) == 5
    [rule] = of_type(template, "AWS::Events::Rule").values()
    assert rule["Properties"]["ScheduleExpression"] == "rate(1 minute)"
    [target] = rule["Properties"]["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": [logical_id(template, "Sweep"), "Arn"]}


def test_nothing_may_change_the_audit(full: Template) -> None:
    """Functions put and query, and nobody is granted more."""
    for statement in statements(full):
        if any("AuditTable" in flat(r) for r in listed(statement.get("Resource", []))):
            assert set(listed(statement["Action"])) <= {"dynamodb:PutItem", "dynamodb:Query"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_environment_name_is_a_setting_or_aws_own(full: Template, name: str) -> None:
    known = {setting.metadata["env"] for setting in fields(Settings)}
    known.add("AWS_LAMBDA_EXEC_WRAPPER")
    assert set(function(full, name)["Environment"]["Variables"]) <= known


def test_the_environment_of_each_function(template: Template, full: Template) -> None:
    environments = {
        name: function(template, name)["Environment"]["Variables"] for name in FUNCTIONS
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    common = {f"SLUICE_{name}_TABLE" for name in ("STREAMS", "TENANTS", "AUDIT")}
    common |= {"SLUICE_VERSION", "SLUICE_METRICS_NAMESPACE", "SLUICE_SLOW_FIRST_TOKEN_S"}
    assert {environment["SLUICE_VERSION"] for environment in environments.values()} == {version}
    launching = common | {"SLUICE_PRODUCE_FUNCTION"}
    assert set(environments["Produce"]) == common
    assert set(environments["Sweep"]) == launching
    assert set(environments["Api"]) == launching | {"SLUICE_EDGE_DIGEST"}
    assert set(environments["Stream"]) == set(environments["Api"]) | {"AWS_LAMBDA_EXEC_WRAPPER"}
    wrapper = environments["Stream"]["AWS_LAMBDA_EXEC_WRAPPER"]
    assert (ROOT / wrapper.removeprefix("/var/task/")).is_file()
    models = function(full, "Stream")["Environment"]["Variables"]
    assert models["SLUICE_OPENAI_BASE_URL"] == "https://models.example.com/v1"
    assert models["SLUICE_BEDROCK_MODELS"] == "amazon.nova-lite-v1:0,us.amazon.nova-pro-v1:0"
    assert flat(models["SLUICE_OPENAI_API_KEY_SECRET"]).endswith(":secret:sluice/openai")
    # Where a secret is, and never what it is.
    assert models["SLUICE_OTLP_ENDPOINT"] == "https://otlp.example.com"
    assert flat(models["SLUICE_OTLP_HEADERS_SECRET"]).endswith(":secret:sluice/otlp")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_logs_are_structured_and_end(template: Template, name: str) -> None:
    logging = function(template, name)["LoggingConfig"]
    assert logging["LogFormat"] == "JSON"
    group = template["Resources"][logging["LogGroup"]["Ref"]]
    assert group["Properties"]["RetentionInDays"] == 30


# A second retry comes 3 minutes after the start; what a sweep leaves the next one does.
@pytest.mark.parametrize(("name", "retries", "age_s"), [("Produce", 2, 300), ("Sweep", 0, 60)])
def test_what_nobody_waits_for_and_fails_is_kept_for_two_weeks(
    template: Template, name: str, retries: int, age_s: int
) -> None:
    [properties] = [
        found["Properties"]
        for found in of_type(template, "AWS::Lambda::EventInvokeConfig").values()
        if found["Properties"]["FunctionName"] == {"Ref": logical_id(template, name)}
    ]
    assert properties["MaximumRetryAttempts"] == retries
    assert properties["MaximumEventAgeInSeconds"] == age_s
    destination = properties["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
    queue = template["Resources"][destination]["Properties"]
    assert queue == {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True}


def test_outputs(template: Template) -> None:
    assert set(template["Outputs"]) == {
        "AlarmTopicArn",
        "ApiUrl",
        "AuditTableName",
        "DashboardName",
        "EdgeDomainName",
        "StreamUrl",
        "StreamsTableName",
        "TenantsTableName",
        "Url",
    }


# What each function may do, whole: a grant that is added has to be added here too.
LOGS = {
    ("dynamodb:PutItem", "StreamsTable"),
    ("dynamodb:Query", "StreamsTable"),
    ("dynamodb:UpdateItem", "StreamsTable"),
    ("dynamodb:GetItem", "TenantsTable"),
    ("dynamodb:PutItem", "TenantsTable"),
    ("dynamodb:UpdateItem", "TenantsTable"),
    ("dynamodb:PutItem", "AuditTable"),
    ("dynamodb:Query", "AuditTable"),
}
SUMMARIES = {
    ("dynamodb:GetItem", "StreamsTable"),
    ("dynamodb:Query", "StreamsTable/index/by_tenant"),
    ("dynamodb:Query", "StreamsTable/index/by_user"),
}
ERASURE = {("dynamodb:BatchWriteItem", "StreamsTable"), ("dynamodb:DeleteItem", "TenantsTable")}
CLIENTS = {("dynamodb:Query", "TenantsTable")}
ASSET = "arn:{AWS::Partition}:s3:::cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/HASH.zip"
LAUNCH = {("lambda:InvokeFunction", "Produce")}
AUDIT = {("dynamodb:Query", "AuditTable/index/by_day")}
OPEN = {("dynamodb:Query", "StreamsTable/index/by_open")}
NOVA_LITE = "arn:{AWS::Partition}:bedrock:{AWS::Region}::foundation-model/amazon.nova-lite-v1:0"
NOVA_PRO = "arn:{AWS::Partition}:bedrock:*::foundation-model/amazon.nova-pro-v1:0"
PROFILE = (
    "arn:{AWS::Partition}:bedrock:{AWS::Region}:{AWS::AccountId}"
    ":inference-profile/us.amazon.nova-pro-v1:0"
)
SECRET = "arn:{AWS::Partition}:secretsmanager:{AWS::Region}:{AWS::AccountId}:secret:sluice"
MODELS = {
    ("bedrock:InvokeModelWithResponseStream", NOVA_LITE),
    ("bedrock:InvokeModelWithResponseStream", NOVA_PRO),
    ("bedrock:InvokeModelWithResponseStream", PROFILE),
    ("secretsmanager:GetSecretValue", f"{SECRET}/openai-??????"),
}
SPANS = {("secretsmanager:GetSecretValue", f"{SECRET}/otlp-??????")}
FAILURES = {"sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Stream", CLIENTS | MODELS | SUMMARIES | LAUNCH),
        ("Produce", MODELS | LAUNCH | {(action, "ProduceFailures") for action in FAILURES}),
        ("Api", CLIENTS | SUMMARIES | ERASURE | AUDIT | LAUNCH),
        (
            "Sweep",
            CLIENTS
            | SUMMARIES
            | ERASURE
            | OPEN
            | LAUNCH
            | {(action, "SweepFailures") for action in FAILURES},
        ),
    ],
)
def test_a_function_may_do_exactly_this(
    full: Template, name: str, more: set[tuple[str, str]]
) -> None:
    role = function(full, name)["Role"]["Fn::GetAtt"][0]
    logs = {("logs:CreateLogStream", f"{name}Logs"), ("logs:PutLogEvents", f"{name}Logs")}
    assert set(grants(full, role)) == LOGS | SPANS | logs | more


@pytest.mark.parametrize(
    ("name", "granted"),
    [
        ("EdgeSecretMaker", {("secretsmanager:GetSecretValue", "EdgeSecretKept")}),
        (
            "PageMaker",
            {
                ("s3:DeleteObject", "PageBucket/*"),
                ("s3:PutObject", "PageBucket/*"),
                ("s3:ListBucket", "PageBucket"),
                ("s3:GetObject", ASSET),
            },
        ),
    ],
)
def test_what_is_called_at_a_deployment_may_do_exactly_this(
    full: Template, name: str, granted: set[tuple[str, str]]
) -> None:
    [role] = [role for role in of_type(full, "AWS::IAM::Role") if role.startswith(f"{name}Role")]
    logs = {("logs:CreateLogStream", f"{name}Logs"), ("logs:PutLogEvents", f"{name}Logs")}
    found = {(action, re.sub("[0-9a-f]{64}", "HASH", to)) for action, to in grants(full, role)}
    assert found == logs | granted


def test_no_grant_has_a_wildcard_but_the_regions_of_an_inference_profile(full: Template) -> None:
    for statement in statements(full):
        if statement["Effect"] == "Deny":
            continue
        assert not [action for action in listed(statement["Action"]) if "*" in action]
        for resource in map(flat, listed(statement.get("Resource", []))):
            if "*" in resource and resource != "PageBucket/*":
                assert resource == NOVA_PRO
                [(operator, condition)] = statement["Condition"].items()
                assert operator == "StringEquals"
                assert flat(condition["bedrock:InferenceProfileArn"]) == PROFILE
    for role in of_type(full, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]


def test_models_are_granted_only_where_they_are_set(bare: Template) -> None:
    granted = {action for statement in statements(bare) for action in listed(statement["Action"])}
    assert not [action for action in granted if action.startswith(("bedrock", "secretsmanager"))]


def statements(template: Template) -> Iterator[dict[str, Any]]:
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        for key in ("PolicyDocument", "AssumeRolePolicyDocument"):
            yield from properties.get(key, {}).get("Statement", [])
        for inline in properties.get("Policies", []):
            yield from inline["PolicyDocument"]["Statement"]


def grants(template: Template, role: str) -> Iterator[tuple[str, str]]:
    for policy in of_type(template, "AWS::IAM::Policy").values():
        if policy["Properties"]["Roles"] != [{"Ref": role}]:
            continue
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            for action in listed(statement["Action"]):
                for resource in listed(statement["Resource"]):
                    yield action, flat(resource)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def flat(value: Any) -> str:
    """An ARN as text: a resource by its name in the stack, a parameter in braces."""
    match value:
        case str():
            return value
        case {"Fn::GetAtt": [logical, "Arn"]}:
            return str(logical)[:-8]
        case {"Ref": str(name)} if name.startswith("AWS::"):
            return f"{{{name}}}"
        case {"Ref": logical}:
            return str(logical)[:-8]
        case {"Fn::Sub": text}:
            return str(text)
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(flat, parts))
    raise AssertionError(value)
