"""What may be chosen, and what a wrong choice is told."""

import json
import os
import subprocess
import sys

import pytest

from infra.config import Config, ContextError
from tests.infra.conftest import ROOT

CERTIFICATE = "arn:aws:acm:us-east-1:000000000000:certificate/0a-1b"
WEB_ACL = "arn:aws:wafv2:us-east-1:000000000000:global/webacl/ours/0a-1b"


def read(**changes: object) -> Config:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    return Config.from_context({**context, **changes})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bedrockModels", {"a": 1}, "bedrockModels must be a list of Bedrock model"),
        ("bedrockModels", 7, "not 7"),
        ("bedrockModels", ["amazon.nova*"], "not 'amazon.nova*'"),
        ("bedrockModels", [7], "not 7"),
        ("apiMemoryMb", 64, "from 128 to 10240, not 64"),
        ("apiMemoryMb", "many", "not 'many'"),
        ("apiMemoryMb", True, "not True"),
        ("streamMemoryMb", [], "streamMemoryMb must be"),
        ("stage", "live", "stage must be one of dev, prod, or empty, not 'live'"),
        ("streamWarm", "snap", "streamWarm must be a whole number"),
        ("shift", "slowly", "one of none, canary, linear"),
        ("maxWriteUnits", -1, "from 0 to"),
        ("logRetentionDays", 31, "one of 1, 3, 7"),
        ("disposable", "perhaps", "true or false"),
        ("openaiBaseUrl", "models.example.com", "a URL or empty"),
        ("openaiSecretName", "two words", "a secret's name or empty"),
        ("openaiSecretName", "sluice/openai", "needs openaiBaseUrl"),
        ("otlpEndpoint", "http://otlp.example.com", "an https URL without user"),
        ("otlpEndpoint", "https://key@otlp.example.com", "an https URL without user"),
        ("otlpHeadersSecret", "sluice/otlp", "needs otlpEndpoint"),
        ("stackName", "", "a stack name"),
        ("edge", "ajar", "one of none, open, closed, not 'ajar'"),
        ("models", ["gpt-5"], "a list of names of models, not 'gpt-5'"),
        ("domainName", "https://ai.example.com", "a name such as ai.example.com"),
        ("domainName", "ai.example.com", "go together: set both, or none"),
        ("certificateArn", CERTIFICATE, "go together: set both, or none"),
        ("certificateArn", CERTIFICATE.replace("us-east-1", "eu-west-1"), "in us-east-1"),
        ("firewall", "on", "none, managed, or the ARN"),
        ("firewall", WEB_ACL.replace("global", "regional"), "a web ACL for CloudFront"),
        ("firewallRequests", 9, "from 10 to"),
        ("observability", "some", "one of none, dashboard, full, not 'some'"),
        ("alarmEmail", "ops", "an address or empty, not 'ops'"),
        ("alarmMail", "ops@example.com", "there is no such setting: alarmMail"),
    ],
)
def test_a_wrong_value_is_told_what_it_may_be(key: str, value: object, said: str) -> None:
    with pytest.raises(ContextError) as wrong:
        read(**{key: value})
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_stage_changes_what_it_names_and_the_command_line_has_the_last_word() -> None:
    plain, dev, prod = read(), read(stage="dev"), read(stage="prod")
    assert len({plain.stack_name, dev.stack_name, prod.stack_name}) == 3
    assert (plain.disposable, dev.disposable, prod.disposable) == (False, True, False)
    assert dev.stream_memory_mb == plain.stream_memory_mb
    assert read(stage="dev", disposable="false").disposable is False


def test_what_the_cdk_keeps_in_the_context_is_none_of_ours() -> None:
    own = {"aws:cdk:bundling-stacks": [], "@aws-cdk/core:x": True, "cli-telemetry": False}
    assert read(**own) == read()


def test_what_does_not_go_together_is_told() -> None:
    with pytest.raises(ContextError, match="no such setting: apiMemory"):
        read(stage="dev", stages={"dev": {"apiMemory": 1}})
    with pytest.raises(ContextError, match="streamWarm is 5, and streamConcurrency lets only 4"):
        read(streamWarm="5", streamConcurrency=4)


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_the_stages_of_the_template_can_be_deployed(stage: str) -> None:
    assert read(stage=stage).edge == "open"


def test_the_command_line_makes_every_value_a_string() -> None:
    config = read(
        bedrockModels="amazon.nova-lite-v1:0, amazon.nova-pro-v1:0",
        apiMemoryMb="512",
        disposable="true",
    )
    assert config.bedrock_models == ("amazon.nova-lite-v1:0", "amazon.nova-pro-v1:0")
    assert config.api_memory_mb == 512
    assert config.disposable is True


@pytest.mark.parametrize(
    "values",
    [{"domainName": "ai.example.com", "certificateArn": CERTIFICATE}, {"firewall": "managed"}],
    ids=["name", "firewall"],
)
def test_what_is_for_an_edge_needs_one(values: dict[str, str]) -> None:
    assert read(**values).edge == "open"
    with pytest.raises(ContextError, match="need an edge"):
        read(edge="none", **values)


def test_an_address_for_alarms_needs_alarms() -> None:
    assert read(alarmEmail="ops@example.com").alarm_email == "ops@example.com"
    with pytest.raises(ContextError, match="set observability to full"):
        read(alarmEmail="ops@example.com", observability="dashboard")


def test_a_firewall_is_made_only_where_cloudfront_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CDK_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(ContextError, match="not in eu-central-1: make one there"):
        read(firewall="managed")
    assert read(firewall=WEB_ACL).firewall == WEB_ACL


def test_a_wrong_value_ends_the_app_with_one_line() -> None:
    context = {"defaults": {"stackName": "Sluice", "disposable": 7}, "stages": {}}
    done = subprocess.run(
        [sys.executable, "-m", "infra.app"],
        cwd=ROOT,
        env={
            **os.environ,
            "CDK_CONTEXT_JSON": json.dumps(context),
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("b'!!")]
    assert said == ["cdk.json or -c: disposable must be true or false, not 7"]
