"""What the functions ask of AWS beside the table; moto answers one call at a time."""

import json
import os
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from functions.launching import lambda_launch
from functions.wiring import _openai_key, providers
from shared.errors import Unavailable
from shared.records import StreamKey
from shared.settings import Settings

ROLE = {"Version": "2012-10-17", "Statement": []}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(config={"lambda": {"use_docker": False}}):
        yield


def test_only_what_is_set_up_is_served() -> None:
    assert set(providers(Settings())) == {"demo"}
    settings = Settings(openai_base_url="http://127.0.0.1:9/v1", bedrock_models="a.b, c.d,")
    found = providers(settings)
    assert set(found) == {"demo", "openai", "bedrock"}
    found["bedrock"].validate("c.d")


async def test_the_upstreams_key_comes_from_its_secret(aws: None) -> None:
    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(Name="openai", SecretString="sk-4711")["ARN"]
    key = _openai_key(Settings(openai_api_key_secret=arn, openai_api_key="not this one"))
    assert callable(key)
    assert await key() == "sk-4711"
    assert _openai_key(Settings(openai_api_key="local")) == "local"


async def test_a_producer_is_launched_by_an_asynchronous_invocation(aws: None) -> None:
    role = boto3.client("iam").create_role(
        RoleName="produce", AssumeRolePolicyDocument=json.dumps(ROLE)
    )["Role"]["Arn"]
    boto3.client("lambda").create_function(
        FunctionName="produce",
        Runtime="python3.13",
        Role=role,
        Handler="x.y",
        Code={"ZipFile": b"x"},
    )
    await lambda_launch(Settings(produce_function="produce"))(StreamKey("acme", "0" * 32))


async def test_a_producer_that_cannot_be_launched_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    launch = lambda_launch(Settings(produce_function="produce"))
    with pytest.raises(Unavailable) as caught:  # without credentials nothing is even sent
        await launch(StreamKey("acme", "0" * 32))
    assert caught.value.detail == "The stream's producer could not be started."
