"""The stack really deploys: by the pinned CDK, into an emulated account on this machine.

The emulator runs functions with its own Python, buffers every URL and ignores the exec wrapper:
this proves the template, the package and what is wired to what, not the streaming.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from infra import deploy, package
from shared import schema
from tests.e2e.local_run import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
STACK = "SluiceTest"


@dataclass(frozen=True)
class Deployed:
    endpoint: str
    outputs: dict[str, str]
    said: str
    environment: dict[str, str]

    def url(self, output: str) -> str:
        """Where the emulator answers for a function URL."""
        name = (urlsplit(self.outputs[output]).hostname or "").partition(".")[0]
        return f"{self.endpoint}/_aws/lambda-url/{name}"

    def client(self, service: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="sluice-e2e",
            aws_secret_access_key="dummy",
        )


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty account on a free port of the loopback."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    home = tmp_path_factory.mktemp("account")
    with (home / "log").open("wb") as log:
        emulator = subprocess.Popen(
            [package.uv(), "run", "--frozen", "--script", str(ROOT / "tests/e2e/account.py")],
            cwd=home,
            env={**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        _wait(emulator, f"{endpoint}/_ministack/health", home / "log")
        yield endpoint
    finally:
        emulator.terminate()
        emulator.wait(20)


def _wait(emulator: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if emulator.poll() is not None:
            pytest.fail(f"the emulated account does not start: {log.read_text()[-300:]}")
        try:
            httpx.get(url, timeout=2).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the emulated account did not answer: {log.read_text()[-300:]}")


@pytest.fixture(scope="module")
def deployed(account: str, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Bootstrapped and deployed by what `scripts/deploy` runs, touching nothing of the user's."""
    if not deploy.CDK.exists():
        pytest.skip("the CDK command line is not installed: run scripts/install")
    home = tmp_path_factory.mktemp("cdk")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": account,
        "AWS_REGION": "us-east-1",
        # The CDK remembers whose account a key is of: a key and a memory of our own.
        "AWS_ACCESS_KEY_ID": "sluice-e2e",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "CDK_HOME": str(home),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "infra.deploy", "--output", str(home / "cdk.out")),
            *("--outputs-file", str(home / "outputs.json")),
            *("-c", "disposable=true", "-c", f"stackName={STACK}"),
            # The emulator takes no alarm on more than one metric, and saves no query.
            *("-c", "observability=dashboard"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = json.loads((home / "outputs.json").read_text())[STACK]
    return Deployed(account, outputs, done.stdout, environment)


def sluice(deployed: Deployed, *words: str) -> subprocess.CompletedProcess[str]:
    """The operator's command line, in that account."""
    return subprocess.run(
        [sys.executable, "-m", "local.cli", *words],
        cwd=ROOT,
        env=deployed.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_api_answers_at_its_url(deployed: Deployed) -> None:
    answer = httpx.get(f"{deployed.url('ApiUrl')}/healthz", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"]


def test_an_answer_is_started_produced_and_polled(deployed: Deployed) -> None:
    """With a key that the command line has made, across all three grants: api, invoke, produce."""
    made = sluice(deployed, "key", "add", "acme", "--stack", STACK)
    assert made.returncode == 0, made.stderr
    headers = {"authorization": f"Bearer {made.stdout.split()[-1]}"}
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


def test_what_the_stack_has_used_is_priced(deployed: Deployed) -> None:
    table = deployed.outputs["StreamsTableName"]
    for days_ago in (1, 3, 30):
        deployed.client("cloudwatch").put_metric_data(
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
    bill = json.loads(sluice(deployed, "cost", "--stack", STACK, "--days", "7", "--json").stdout)
    writes, storage = (
        next(line for line in bill["lines"] if line["what"].startswith(what))
        for what in ("DynamoDB: writes", "DynamoDB: storage")
    )
    assert writes["amount"] == 2_000_000
    assert writes["usd"] == pytest.approx(1.25)
    assert storage["usd"] >= 0
    assert {"Lambda: time", "CloudWatch: logs"} <= {line["what"] for line in bill["lines"]}
    missing = sluice(deployed, "cost", "--stack", "Elsewhere")
    assert missing.returncode == 1
    assert "Elsewhere" in missing.stderr


@pytest.mark.parametrize("shape", schema.TABLES, ids=lambda shape: shape.name)
def test_the_tables_have_their_keys(deployed: Deployed, shape: schema.Table) -> None:
    name = deployed.outputs[f"{shape.name.title()}TableName"]
    table = deployed.client("dynamodb").describe_table(TableName=name)["Table"]
    assert [key["AttributeName"] for key in table["KeySchema"]] == [
        shape.partition.name,
        shape.sort.name,
    ]
    assert {index["IndexName"] for index in table.get("GlobalSecondaryIndexes", [])} == {
        index.name for index in shape.indexes
    }


def test_a_failed_produce_has_somewhere_to_go(deployed: Deployed) -> None:
    functions = deployed.client("lambda")
    [produce] = [
        function["FunctionName"]
        for function in functions.list_functions()["Functions"]
        if function["Handler"] == "functions.produce.handler"
    ]
    config = functions.get_function_event_invoke_config(FunctionName=produce, Qualifier="$LATEST")
    assert ":sqs:" in config["DestinationConfig"]["OnFailure"]["Destination"]


def test_the_dashboard_is_there(deployed: Deployed) -> None:
    name = deployed.outputs["DashboardName"]
    found = deployed.client("cloudwatch").get_dashboard(DashboardName=name)
    drawn = json.loads(found["DashboardBody"])["widgets"]
    titles = [widget["properties"].get("title") for widget in drawn]
    assert "Answers by outcome" in titles
    table = deployed.outputs["StreamsTableName"]
    assert any(table in json.dumps(widget) for widget in drawn)


def test_whoever_deploys_is_told_the_urls_and_the_next_step(deployed: Deployed) -> None:
    said = deployed.said.rpartition("Stack ARN")[2]
    assert deployed.outputs["StreamUrl"] in said
    assert deployed.outputs["ApiUrl"] in said
    assert deployed.outputs["DashboardName"] in said
    assert f"key add <tenant> --stack {STACK}" in said
