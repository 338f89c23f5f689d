"""The stack really deploys: by the pinned CDK, into an emulated account on this machine.

The emulator runs functions with its own Python, buffers every URL and ignores the exec wrapper:
this proves the template, the package and what is wired to what, not the streaming.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from infra import deploy
from shared import schema
from tests.e2e.emulated_account import REGION, ROOT, STACK, Account, Deployed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    account = Account(tmp_path_factory.mktemp("account"))
    account.start()
    yield account
    account.stop()


@pytest.fixture(scope="module")
def deployed(account: Account) -> Deployed:
    return account.deploy()


@pytest.fixture(scope="module")
def key(deployed: Deployed) -> str:
    return deployed.add_key()


def test_the_api_answers_at_its_url(deployed: Deployed) -> None:
    answer = httpx.get(f"{deployed.url('ApiUrl')}/healthz", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"]


def test_an_answer_is_started_produced_and_polled(deployed: Deployed, key: str) -> None:
    """With a key that the command line has made, across all three grants: api, invoke, produce."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=deployed.url("ApiUrl"), headers=headers, timeout=60) as client:
        body = {
            "model": "demo?tokens=50&rate=100",
            "messages": [{"role": "user", "content": "hello"}],
        }
        prefer = {"prefer": "respond-async"}
        started = client.post("/v1/streams", json=body, headers=prefer)
        assert started.status_code == 202, started.text
        text, after = "", -1
        for _ in range(30):
            path = f"/v1/streams/{started.json()['id']}/chunks?after={after}&wait=2"
            page = client.get(path).json()
            text += "".join(chunk["text"] for chunk in page["chunks"])
            after = page["next"]
            if page["closed"]:
                break
        assert page["status"] == "completed", page
        assert page["usage"]["output_tokens"] == 50
        assert "`hello`" in text
        (listed,) = client.get("/v1/streams").json()["streams"]
        assert listed["id"] == started.json()["id"]


def test_the_edge_tells_the_api_who_asks(deployed: Deployed, key: str) -> None:
    """In a header of its own, too: there a closed edge has the credential."""
    with deployed.edge(authorization=f"Bearer {key}") as client:
        answer = client.get("/v1/usage")
        assert answer.status_code == 200, answer.text
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "via" in answer.headers
        assert client.get("/healthz").json()["version"]
        refused = client.get("/v1/usage", headers={"authorization": ""})
        assert refused.json()["type"] == "urn:sluice:problem:unauthenticated"


def test_only_the_edge_knows_its_secret(deployed: Deployed) -> None:
    functions = deployed.account.client("lambda").list_functions()["Functions"]
    distributions = deployed.account.client("cloudfront").list_distributions()
    [edge] = distributions["DistributionList"]["Items"]
    added = [o["CustomHeaders"]["Items"] for o in edge["Origins"]["Items"] if "CustomHeaders" in o]
    sent = [header["HeaderValue"] for headers in added for header in headers]
    assert len(sent) == 2
    [secret] = set(sent)
    told = [f["Environment"]["Variables"] for f in functions if f.get("Environment")]
    digests = {v["SLUICE_EDGE_DIGEST"] for v in told if "SLUICE_EDGE_DIGEST" in v}
    assert digests == {hashlib.sha256(secret.encode()).hexdigest()}
    assert secret not in json.dumps(told)


def test_the_page_is_there_as_browsers_want_it(deployed: Deployed) -> None:
    """In the bucket: the emulator does not reach one that insists on TLS."""
    s3 = deployed.account.client("s3")
    [bucket] = [b["Name"] for b in s3.list_buckets()["Buckets"] if "pagebucket" in b["Name"]]
    held = {
        item["Key"]: s3.get_object(Bucket=bucket, Key=item["Key"])
        for item in s3.list_objects_v2(Bucket=bucket)["Contents"]
    }
    index = held["index.html"]
    assert index["ContentType"] == "text/html; charset=utf-8"
    assert index["CacheControl"] == "no-cache"
    [script] = [name for name in held if name.startswith("app-") and name.endswith(".js")]
    assert held[script]["ContentType"].startswith("text/javascript")
    assert held[script]["CacheControl"] == "public, max-age=31536000, immutable"
    assert script in index["Body"].read().decode()
    config = json.loads(held["config.json"]["Body"].read())
    assert config == {"local": False, "key": None, "models": ["demo"], "bodyHash": False}


@pytest.mark.parametrize("shape", schema.TABLES, ids=lambda shape: shape.name)
def test_the_tables_have_their_keys(deployed: Deployed, shape: schema.Table) -> None:
    name = deployed.outputs[f"{shape.name.title()}TableName"]
    table = deployed.account.client("dynamodb").describe_table(TableName=name)["Table"]
    assert [key["AttributeName"] for key in table["KeySchema"]] == [
        shape.partition.name,
        shape.sort.name,
    ]
    assert {index["IndexName"] for index in table.get("GlobalSecondaryIndexes", [])} == {
        index.name for index in shape.indexes
    }


def test_a_failed_produce_has_somewhere_to_go(deployed: Deployed) -> None:
    functions = deployed.account.client("lambda")
    [produce] = [
        function["FunctionName"]
        for function in functions.list_functions()["Functions"]
        if function["Handler"] == "functions.produce.handler"
    ]
    config = functions.get_function_event_invoke_config(FunctionName=produce, Qualifier="$LATEST")
    assert ":sqs:" in config["DestinationConfig"]["OnFailure"]["Destination"]


def test_the_dashboard_is_there(deployed: Deployed) -> None:
    name = deployed.outputs["DashboardName"]
    found = deployed.account.client("cloudwatch").get_dashboard(DashboardName=name)
    drawn = json.loads(found["DashboardBody"])["widgets"]
    titles = [widget["properties"].get("title") for widget in drawn]
    assert "Answers by outcome" in titles
    table = deployed.outputs["StreamsTableName"]
    assert any(table in json.dumps(widget) for widget in drawn)


def test_what_the_stack_has_used_is_priced(deployed: Deployed) -> None:
    account, table = deployed.account, deployed.outputs["StreamsTableName"]
    for days_ago in (1, 3, 30):
        account.client("cloudwatch").put_metric_data(
            Namespace="AWS/DynamoDB",
            MetricData=[
                {
                    "MetricName": "ConsumedWriteCapacityUnits",
                    "Dimensions": [{"Name": "TableName", "Value": table}],
                    "Timestamp": datetime.now(UTC) - timedelta(days=days_ago),
                    "Value": 1_000_000,
                }
            ],
        )
    asked = (sys.executable, "-m", "local.cli", "cost", "--stack", STACK, "--days", "7", "--json")
    bill = {line["what"]: line for line in json.loads(account.run(*asked))["lines"]}
    assert bill["DynamoDB: writes"]["amount"] == 2_000_000
    assert bill["DynamoDB: writes"]["usd"] == pytest.approx(1.25)
    assert {"Lambda: time", "CloudWatch: logs", "CloudFront: requests"} <= set(bill)


def test_whoever_deploys_is_told_the_urls_and_the_next_step(deployed: Deployed) -> None:
    said = deployed.said.rpartition("Stack ARN")[2]
    assert deployed.outputs["StreamUrl"] in said
    assert deployed.outputs["ApiUrl"] in said
    assert deployed.outputs["DashboardName"] in said
    assert f"key add <tenant> --stack {STACK}" in said


def test_an_update_leaves_no_difference_and_a_removal_nothing(deployed: Deployed) -> None:
    account = deployed.account
    updated = account.deploy("-c", "apiMemoryMb=512", "-c", "models=demo,openai/gpt-5")
    assert updated.outputs == deployed.outputs
    with updated.edge() as client:
        assert client.get("/healthz").status_code == 200
    assembly = ("--app", str(account.assembly), "--no-change-set")
    account.run(str(deploy.CDK), "diff", "--fail", *assembly, STACK)

    others = destroy(account, "CDKToolkit", "--yes").stderr
    assert others == "destroy: the stack CDKToolkit has nothing of Sluice in it\n"
    asked = destroy(account, STACK)
    assert asked.stdout.startswith(f"arn:aws:cloudformation:{REGION}:000000000000:stack/{STACK}/")
    assert "tables, with every answer" in asked.stdout
    assert "nobody can be asked here" in asked.stderr
    said = account.run(sys.executable, "-m", "infra.destroy", STACK, "--yes")
    assert f"{STACK} is removed" in said
    assert not account.client("dynamodb").list_tables()["TableNames"]
    buckets = [b["Name"] for b in account.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in buckets if "pagebucket" in name]


def destroy(account: Account, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "infra.destroy", *options],
        cwd=ROOT,
        env=account.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
