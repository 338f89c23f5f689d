"""Templates without a package: what they say of the functions does not depend on its bytes."""

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App

from infra.app import build

ROOT = Path(__file__).resolve().parents[2]
Template = dict[str, Any]

EVERYTHING: dict[str, object] = {
    "openaiBaseUrl": "https://models.example.com/v1",
    "openaiSecretName": "sluice/openai",
    "bedrockModels": ["amazon.nova-lite-v1:0", "us.amazon.nova-pro-v1:0"],
    "edge": "closed",
    "models": ["openai/gpt-5", "demo"],
    "domainName": "ai.example.com",
    "certificateArn": "arn:aws:acm:us-east-1:000000000000:certificate/0a-1b",
    "firewall": "managed",
    "alarmEmail": "ops@example.com",
    "otlpEndpoint": "https://otlp.example.com",
    "otlpHeadersSecret": "sluice/otlp",
}


def app_with(**changes: object) -> App:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    return App(context={**context, **changes, "aws:cdk:bundling-stacks": []})


def synthesize(**changes: object) -> Template:
    app = app_with(**changes)
    stack = build(app)
    template: Template = app.synth().get_stack_artifact(stack.artifact_id).template
    return template


def of_type(template: Template, kind: str) -> dict[str, Any]:
    """The resources of one CloudFormation type, by logical id."""
    return {k: v for k, v in template["Resources"].items() if v["Type"] == kind}


@pytest.fixture(scope="session")
def template() -> Template:
    """What whoever changes nothing deploys."""
    return synthesize()


@pytest.fixture(scope="session")
def bare() -> Template:
    """What whoever wants no edge deploys."""
    return synthesize(edge="none")


@pytest.fixture(scope="session")
def full() -> Template:
    """What whoever sets everything deploys."""
    return synthesize(**EVERYTHING)
