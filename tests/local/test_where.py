"""Where a command works: the local run's file, running or not, an endpoint, a deployed stack."""

import fcntl
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ProfileNotFound

from local import database, where
from local.errors import Failed
from shared.administration import SETTLE_S
from shared.erasure import INDEX_LAG_S
from shared.errors import InvalidRequest
from shared.settings import Settings
from shared.table import DynamoDB
from shared.tenants import Tenants
from tests.e2e import dynoxide
from tests.local.conftest import Said
from tests.model_store import ModelStore

OUTPUTS = {
    "StreamsTableName": "some-streams",
    "TenantsTableName": "some-tenants",
    "AuditTableName": "some-audit",
    "ApiUrl": "x",
}


@pytest.fixture(autouse=True)
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command leaves its connections to the end of its process: this one goes on."""
    made: list[DynamoDB] = []
    connect = database.connect

    def noting(settings: Settings, *, own: bool) -> DynamoDB:
        made.append(connect(settings, own=own))
        return made[-1]

    monkeypatch.setattr(database, "connect", noting)
    monkeypatch.delenv("SLUICE_DYNAMODB_ENDPOINT", raising=False)
    yield
    for store in made:
        store._threads.shutdown()
        store._client.close()


def asked(**options: Any) -> Namespace:
    return Namespace(**{"stack": None, "profile": None, "region": None, "db": None, **options})


@pytest.mark.e2e
def test_the_local_runs_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = asked(db=tmp_path / "dev.db")
    seen: list[where.Place] = []

    async def work(place: where.Place) -> int:
        seen.append(place)
        return len(await Tenants(place.store).names())

    with pytest.raises(Failed, match=r"there is no database .*dev\.db yet"):
        where.run(options, work)
    assert where.run(options, work, make=True) == 0
    assert where.run(options, work) == 0
    assert [(p.settle_s, p.lag_s) for p in seen] == [(0, 0), (0, 0)]
    assert "not running" in seen[0].name
    # Beside another that holds the file.
    with where.place(options, make=False) as first:
        assert "(not running)" in first.name
        with where.place(options, make=False) as second:
            assert "(running)" in second.name
            assert (second.settle_s, second.lag_s) == (SETTLE_S, 0)
    assert capsys.readouterr().err == ""


def test_a_file_whose_holder_does_not_tell_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.dynoxide.LOCK_S", 0)
    monkeypatch.setattr("local.dynoxide.find", lambda: Path("/bin/false"))
    with (tmp_path / "dev.db.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(Failed, match="in use by another run"),
            where.place(asked(db=tmp_path / "dev.db"), make=True),
        ):
            pass


@pytest.mark.e2e
def test_the_database_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with dynoxide.database() as endpoint:
        monkeypatch.setenv("SLUICE_DYNAMODB_ENDPOINT", endpoint)
        with where.place(asked(), make=False) as place:
            assert place.name == f"the database at {endpoint}"
            assert (place.settle_s, place.lag_s) == (SETTLE_S, INDEX_LAG_S)
        with (
            pytest.raises(Failed, match="names the database: --db does not"),
            where.place(asked(db=tmp_path / "x"), make=True),
        ):
            pass


@pytest.mark.parametrize("option", ["profile", "region"])
def test_what_goes_with_a_stack(option: str) -> None:
    with (
        pytest.raises(Failed, match="--profile and --region go with --stack"),
        where.place(asked(**{option: "x"}), make=True),
    ):
        pass


class Account:
    """What AWS says of the stack, and the store that is made from it."""

    def __init__(self) -> None:
        self.outputs = OUTPUTS
        self.refuses = False
        self.store = ModelStore()
        self.settings: Settings | None = None

    def session(self, *, profile_name: str | None, region_name: str | None) -> Any:
        if profile_name == "no-such-profile":
            raise ProfileNotFound(profile=profile_name)
        return SimpleNamespace(client=lambda _: self, region_name=region_name)

    def describe_stacks(self, **named: str) -> Any:
        if self.refuses:
            message = "Stack with id Sluice does not exist"
            raise ClientError({"Error": {"Code": "X", "Message": message}}, "DescribeStacks")
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in self.outputs.items()]
        return {"Stacks": [{"StackName": named["StackName"], "Outputs": outputs}]}

    def dynamodb(self, settings: Settings) -> ModelStore:
        self.settings = settings
        return self.store


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    account = Account()
    monkeypatch.setattr("boto3.Session", account.session)
    monkeypatch.setattr(where, "dynamodb", account.dynamodb)
    monkeypatch.setenv("AWS_PROFILE", "before")
    return account


def deployed(profile: str | None = None) -> where.Place:
    options = asked(stack="Sluice", profile=profile, region="eu-west-1")
    with where.place(options, make=False) as place:
        return place


def test_a_deployed_stack(account: Account) -> None:
    place = deployed("work")
    assert place.name == "the stack Sluice in eu-west-1"
    assert (place.settle_s, place.lag_s) == (SETTLE_S, INDEX_LAG_S)
    assert account.settings == Settings(
        streams_table="some-streams",
        tenants_table="some-tenants",
        audit_table="some-audit",
        region="eu-west-1",
    )
    assert os.environ["AWS_PROFILE"] == "work"


@pytest.mark.parametrize("missing", [name for name in OUTPUTS if name != "ApiUrl"])
def test_a_stack_that_is_not_sluice(account: Account, missing: str) -> None:
    account.outputs = {name: value for name, value in OUTPUTS.items() if name != missing}
    with pytest.raises(Failed, match=f"has no output '{missing}': is it a Sluice stack"):
        deployed()


def test_no_such_stack(account: Account) -> None:
    account.refuses = True
    with pytest.raises(Failed, match="Stack with id Sluice does not exist"):
        deployed()


@pytest.mark.usefixtures("account")
def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    with (
        pytest.raises(Failed, match=r"^which region\? Set AWS_REGION"),
        where.place(asked(stack="Sluice"), make=False),
    ):
        pass


@pytest.mark.usefixtures("account")
def test_no_such_profile() -> None:
    with pytest.raises(Failed, match=r"no-such-profile"):
        deployed("no-such-profile")


def test_a_problem_is_one_line_for_who_typed(account: Account) -> None:
    async def work(_: where.Place) -> int:
        raise InvalidRequest("`shards` is 0; allowed are 1 to 64.")

    options = asked(stack="Sluice", region="eu-west-1")
    with pytest.raises(Failed, match=r"^`shards` is 0; allowed are 1 to 64$"):
        where.run(options, work)


def test_where_it_works_is_told_on_a_terminal(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(_: where.Place) -> int:
        return 0

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert where.run(asked(stack="Sluice", region="eu-west-1"), work) == 0
    said = capsys.readouterr()
    assert Said(0, said.out, said.err) == Said(0, "", "In the stack Sluice in eu-west-1:\n")
