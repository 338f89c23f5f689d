from collections.abc import AsyncIterator

import pytest

from shared.models.bedrock import Bedrock
from shared.models.openai import OpenAI
from tests.shared.models.asking import MODEL, no_threads
from tests.shared.models.upstream import Upstream, running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running() as server:
        yield server


@pytest.fixture
async def openai(upstream: Upstream) -> AsyncIterator[OpenAI]:
    provider = OpenAI(upstream.url + "/v1/", "sk-canary", read_timeout_s=2)
    yield provider
    await provider.aclose()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of this test, and none of the machine's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary")


@pytest.fixture
async def bedrock(upstream: Upstream, aws: None) -> AsyncIterator[Bedrock]:
    provider = Bedrock({MODEL}, "eu-central-1", upstream.url, read_timeout_s=2)
    yield provider
    await no_threads()
    await provider.aclose()
