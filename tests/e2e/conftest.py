from collections.abc import Iterator

import pytest

from shared.table import DynamoDB
from tests.e2e import dynoxide
from tests.e2e.local_run import LocalRun


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A database in memory that has Sluice's tables; its address."""
    with dynoxide.database() as address:
        yield address


@pytest.fixture(scope="module")
def real(endpoint: str) -> Iterator[DynamoDB]:
    """The store on that database."""
    with dynoxide.store(endpoint) as made:
        yield made


@pytest.fixture(scope="package")
def run() -> Iterator[LocalRun]:
    """A local run that keeps nothing, and that nobody stops."""
    with LocalRun("--ephemeral") as run:
        yield run
