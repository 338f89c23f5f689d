"""Each function may do what it does, and nothing that it never does: in an emulated account that
minds who may do what, every route works by the role of its function, and each grant that is taken
away makes something fail.

The functions' own code runs here, with credentials of their roles as they were deployed; `produce`
is launched for real. What Lambda itself does with a role (write logs, keep failures) is not seen.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from functions import api, stream
from functions.produce import produce
from functions.sweep import sweep
from functions.wiring import Services
from shared.administration import Administration
from shared.audit import Actor, Chain, Event
from shared.erasure import INDEX_LAG_S
from shared.identity import SCOPES
from shared.identity.keys import Key, id_of
from shared.records import Status
from shared.schema import AUDIT
from shared.settings import Settings
from shared.table import Query
from tests.e2e.emulated_account import REGION, STACK, Account, Credentials, Deployed
from tests.functions.conftest import ASYNC, begin, client, start_body

pytestmark = pytest.mark.e2e

ORIGIN = "https://app.example.com"
USER = "ada"
QUICK = "demo?tokens=2&rate=0"
OPERATOR = "operator"
#: Of Lambda's own.
NOT_OURS = ("logs:", "sqs:")

Grant = tuple[str, str]


@dataclass(frozen=True)
class World:
    """A deployed stack, and an operator who may do everything."""

    deployed: Deployed
    operator: Credentials

    def client(self, service: Any) -> Any:
        return self.deployed.account.client(service, self.operator)

    @property
    def settings(self) -> Settings:
        functions = self.client("lambda").list_functions()["Functions"]
        [launched] = [f for f in functions if f["Handler"] == "functions.produce.handler"]
        outputs = self.deployed.outputs
        return Settings(
            streams_table=outputs["StreamsTableName"],
            tenants_table=outputs["TenantsTableName"],
            audit_table=outputs["AuditTableName"],
            produce_function=launched["FunctionName"],
            region=REGION,
        )

    def credentials(self, name: str) -> Credentials:
        """Those of a function."""
        arn = role_of(self.client("iam"), name)["Arn"]
        given = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]

    @contextmanager
    def services(self, credentials: Credentials) -> Iterator[Services]:
        """The parts of a function, with nothing remembered, by these credentials."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.deployed.account.endpoint)
            for name, value in zip(names, (*credentials, ""), strict=False):
                patch.setenv(name, value)
            yield Services.on_aws(self.settings, "test")


# --- What each function does; whatever is refused raises ---


async def ask(app: Any, key: str, method: str, path: str, status: int, **more: Any) -> Any:
    async with client(app, key) as caller:
        answer = await caller.request(method, path, timeout=30, **more)
    assert answer.status_code == status, (method, path, answer.status_code, answer.text[:300])
    return answer


async def starts_and_lists(app: Any) -> str:
    """What both functions with a URL serve; the id of a stream that has ended."""
    asking = {"origin": ORIGIN, "access-control-request-method": "POST"}
    await ask(app, "", "OPTIONS", "/v1/streams", 204, headers=asking)
    body = start_body(QUICK)
    started = await ask(app, "admin", "POST", "/v1/streams", 202, json=body, headers=ASYNC)
    for key in ("admin", USER):
        await ask(app, key, "GET", "/v1/streams", 200)
    return str(started.json()["id"])


async def api_works(services: Services, _: Services) -> None:
    app = api.build(services)
    stream_id = await starts_and_lists(app)
    one = f"/v1/streams/{stream_id}"
    async with asyncio.timeout(60):
        while not (await ask(app, "admin", "GET", f"{one}/chunks?wait=5", 200)).json()["closed"]:
            pass
    for path in (one, "/v1/usage", "/v1/audit", f"/v1/audit?stream={stream_id}"):
        await ask(app, "admin", "GET", path, 200)
    await ask(app, "admin", "DELETE", one, 204)


async def stream_works(services: Services, _: Services) -> None:
    app = stream.build(services)
    await starts_and_lists(app)
    said = await ask(app, USER, "POST", "/v1/streams", 200, json=start_body(QUICK))
    assert '"completed"' in said.text
    one = f"/v1/streams/{said.headers['stream-id']}"
    assert "event: closed" in (await ask(app, USER, "GET", f"{one}/events", 200)).text
    for path in (f"{one}/export", f"/v1/users/{USER}/export"):
        json.loads((await ask(app, "admin", "GET", path, 200)).text)


async def tells_the_audit_in_a_crowd(services: Services) -> None:
    """As one of many, an entry begins a chain aside, and asks what became of its slot."""
    chain = Chain("acme", f"aside-{services.log.new_writer()}")
    await services.audit.append(services.audit.entry(chain, Event.TAKEN_OVER, Actor()))
    store = services.lifecycle.store
    assert (await store.query(Query(AUDIT, chain.pk, 1, start=0, consistent=True))).items


async def produce_works(services: Services, operator: Services) -> None:
    began = await begin(operator, QUICK, epoch=0)
    await produce(services, began.key)
    assert (await operator.log.summary(began.key)).status == Status.COMPLETED
    await services.launch(began.key)
    await tells_the_audit_in_a_crowd(services)


async def sweep_works(services: Services, operator: Services) -> None:
    left = await begin(operator, QUICK, age_s=60)
    ended = await begin(operator, QUICK, epoch=0)
    await produce(operator, ended.key)
    # Only from a minute on does the index of a user or a tenant show all that it has to.
    then = Services.on(
        operator.lifecycle.store,
        operator.settings,
        now=lambda: operator.log.now_ms() / 1000 - 2 * INDEX_LAG_S,
    )
    await operator.erasures.begin("acme", Actor(), stream=ended.key.stream)
    await then.erasures.begin("acme", Actor(), user="nobody")
    await then.erasures.begin("nobody", Actor())
    done = await sweep(services, deadline=asyncio.get_running_loop().time() + 60)
    assert not done["failed"], done
    assert done["taken over"], done
    assert done["erased"] >= 3, done
    # A launch that fails leaves the stream to the next run.
    await services.launch(left.key)
    await tells_the_audit_in_a_crowd(services)


SCENARIOS = {
    "Api": api_works,
    "Stream": stream_works,
    "Produce": produce_works,
    "Sweep": sweep_works,
}


def role_of(iam: Any, name: str) -> dict[str, Any]:
    """The role of a function."""
    roles = iam.list_roles()["Roles"]
    [found] = [role for role in roles if role["RoleName"].startswith(f"{STACK}-{name}Role")]
    return dict(found)


def let_assume(iam: Any, role: dict[str, Any]) -> None:
    """Let the operator be who has this role; what it may do stays as it was deployed."""
    trust = role["AssumeRolePolicyDocument"]
    account = role["Arn"].split(":")[4]
    principal = {"AWS": f"arn:aws:iam::{account}:user/{OPERATOR}"}
    trust["Statement"].append(
        {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    )
    iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=json.dumps(trust))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    account = Account(tmp_path_factory.mktemp("account"))
    account.start()
    try:
        deployed = account.deploy("-c", "edge=none")
        iam = account.client("iam")
        iam.create_user(UserName=OPERATOR)
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.put_user_policy(UserName=OPERATOR, PolicyName="all", PolicyDocument=policy)
        for name in SCENARIOS:
            let_assume(iam, role_of(iam, name))
        # The clock would be faster than the tests.
        events = account.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        made = iam.create_access_key(UserName=OPERATOR)["AccessKey"]
        account.stop()
        account.start(enforcing=True)
        world = World(deployed, (made["AccessKeyId"], made["SecretAccessKey"]))
        with world.services(world.operator) as services:
            asyncio.run(fill(services))
        yield world
    finally:
        account.stop()


async def fill(services: Services) -> None:
    """A tenant with a page, and a key for whoever runs it and for one user."""
    administration = Administration(services.lifecycle.store)
    await administration.ensure("acme", "demo")
    await administration.set_policy("acme", lambda document: document.update(origins=[ORIGIN]))
    await administration.add_key("admin", Key("acme", id_of("admin"), SCOPES))
    await administration.add_key(USER, Key("acme", id_of(USER), user=USER))


def works(world: World, name: str, *, patience_s: float = 120) -> bool:
    """Whether the function does all that it does, with nothing remembered; raises where not."""
    theirs = world.credentials(name)
    with world.services(world.operator) as operator, world.services(theirs) as services:
        asyncio.run(asyncio.wait_for(SCENARIOS[name](services, operator), patience_s))
    return True


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_function_works_by_its_role_and_by_nothing_less(world: World, name: str) -> None:
    assert works(world, name)
    iam, role = world.client("iam"), role_of(world.client("iam"), name)["RoleName"]
    idle = []
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        whole = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        for grant in grants(whole):
            put(iam, role, policy, without(whole, grant))
            try:
                # Who is refused may try again for long.
                works(world, name, patience_s=4)
            except Exception:  # noqa: BLE001 - however it is told
                continue
            else:
                idle.append(grant)
            finally:
                put(iam, role, policy, whole)
    assert not idle, idle
    assert works(world, name)


def grants(policy: dict[str, Any]) -> list[Grant]:
    return [
        (action, resource)
        for statement in policy["Statement"]
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if not action.startswith(NOT_OURS)
    ]


def without(policy: dict[str, Any], taken: Grant) -> dict[str, Any]:
    """The policy without one action on one resource."""
    left = [
        {"Effect": "Allow", "Action": action, "Resource": resource}
        for action, resource in grants(policy)
        if (action, resource) != taken
    ]
    nothing = {"Effect": "Allow", "Action": "iam:GetUser", "Resource": "arn:aws:iam::0:user/none"}
    return {"Version": "2012-10-17", "Statement": left or [nothing]}


def put(iam: Any, role: str, name: str, policy: dict[str, Any]) -> None:
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(policy))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
