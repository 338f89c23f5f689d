"""`sluice key add --stack`: the tables of a deployed stack, found by its outputs."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ProfileNotFound

from local import keys
from local.errors import Failed
from shared.errors import Unavailable
from shared.settings import Settings
from tests.model_store import ModelStore

KEY = "sk_0123456789abcdef"
OUTPUTS = {"StreamsTableName": "some-streams", "TenantsTableName": "some-tenants", "ApiUrl": "x"}


class Account:
    """What AWS says of the stack, and the store that is made from it."""

    def __init__(self) -> None:
        self.outputs = OUTPUTS
        self.refuses = False
        self.store = ModelStore()
        self.settings: Settings | None = None

    def session(self, *, profile_name: str | None, region_name: str | None) -> Any:
        if profile_name:
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
    monkeypatch.setattr(keys, "dynamodb", account.dynamodb)
    return account


def add(tenant: str = "acme", profile: str | None = None) -> None:
    keys.add_to_stack(tenant, KEY, "Sluice", profile=profile, region="eu-west-1")


def test_a_key_for_a_deployed_stack(account: Account) -> None:
    add()
    add()  # the same again changes nothing
    assert account.settings == Settings(
        streams_table="some-streams", tenants_table="some-tenants", region="eu-west-1"
    )
    [item] = account.store.items.values()
    assert item["tenant"] == "acme"
    assert KEY not in str(item)


def test_a_key_that_is_somebody_elses(account: Account) -> None:
    add()
    with pytest.raises(Failed, match="another tenant's"):
        add("other")


def test_a_stack_that_is_not_sluice(account: Account) -> None:
    account.outputs = {"Something": "else"}
    with pytest.raises(Failed, match="has no output 'StreamsTableName': is it a Sluice stack"):
        add()


def test_no_such_stack(account: Account) -> None:
    account.refuses = True
    with pytest.raises(Failed, match="Stack with id Sluice does not exist"):
        add()


def test_no_such_profile(account: Account) -> None:
    with pytest.raises(Failed, match=r"no-such-profile"):
        add(profile="no-such-profile")


def test_a_table_that_does_not_answer(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    async def put(_: object) -> None:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr(account.store, "put", put)
    with pytest.raises(Failed, match="does not answer"):
        add()
