"""An emulated AWS account on this machine, and what is deployed into it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from infra import deploy, package
from tests.e2e.local_run import free_port

ROOT = Path(__file__).resolve().parents[2]
STACK = "SluiceTest"
REGION = "us-east-1"
Credentials = tuple[str, ...]
#: Good for everything, while nobody enforces anything. The CDK remembers whose account a key is
#: of: a key and a memory of our own.
ANYONE = ("sluice-e2e", "dummy")


@dataclass
class Account:
    """Empty at first; what it holds survives a restart."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, enforcing: bool = False) -> None:
        """Answer, with or without minding who may do what."""
        environment = {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "AUTH": str(enforcing).lower(),
            "PERSIST_STATE": "1",
            "S3_PERSIST": "1",
            "STATE_DIR": str(self.home / "state"),
            "S3_DATA_DIR": str(self.home / "s3"),
        }
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [package.uv(), "run", "--frozen", "--script", str(ROOT / "tests/e2e/account.py")],
                cwd=self.home,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self._wait(self._process)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                httpx.get(f"{self.endpoint}/_ministack/health", timeout=2).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.2)
            else:
                return
        pytest.fail(f"the emulated account does not answer: {self._log()[-300:]}")

    def _log(self) -> str:
        return (self.home / "log").read_text()

    def client(self, service: Any, credentials: Credentials = ANYONE) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=credentials[0],
            aws_secret_access_key=credentials[1],
        )

    @property
    def environment(self) -> dict[str, str]:
        """For tools of ours that deploy, look or remove; nothing of the user's is touched."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ANYONE[0],
            "AWS_SECRET_ACCESS_KEY": ANYONE[1],
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "CDK_HOME": str(self.home / "cdk"),
            "CDK_DISABLE_CLI_TELEMETRY": "true",
        }

    def run(self, *command: str) -> str:
        """Run a tool; what it printed."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self, *options: str) -> "Deployed":
        """Bootstrap and deploy by what `scripts/deploy` runs."""
        if not deploy.CDK.exists():
            pytest.skip("the CDK command line is not installed: run scripts/install")
        outputs = self.home / "outputs.json"
        said = self.run(
            *(sys.executable, "-m", "infra.deploy", "--output", str(self.assembly)),
            *("--outputs-file", str(outputs)),
            *("-c", "disposable=true", "-c", f"stackName={STACK}"),
            # The emulator takes no alarm on more than one metric, and saves no query.
            *("-c", "observability=dashboard", *options),
        )
        return Deployed(self, json.loads(outputs.read_text())[STACK], said)

    @property
    def assembly(self) -> Path:
        return self.home / "cdk.out"


@dataclass(frozen=True)
class Deployed:
    account: Account
    outputs: dict[str, str]
    said: str

    def url(self, output: str) -> str:
        """Where the emulator answers for a function URL."""
        name = (urlsplit(self.outputs[output]).hostname or "").partition(".")[0]
        return f"{self.account.endpoint}/_aws/lambda-url/{name}"

    def edge(self, **headers: str) -> httpx.Client:
        """A client of the edge, whose name leads to the emulator, as if by HTTPS."""
        name = self.outputs["EdgeDomainName"]
        seen = {"host": name, "x-forwarded-proto": "https", **headers}
        return httpx.Client(base_url=self.account.endpoint, headers=seen, timeout=60)

    def add_key(self) -> str:
        """A key of the tenant `acme`, made by the command line."""
        key = self.account.run(
            *(sys.executable, "-m", "local.cli", "key", "add", "acme", "--stack", STACK)
        )
        return key.split()[-1]
