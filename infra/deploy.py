"""Deploy to the account of the current credentials: what `scripts/deploy` runs.

Every option goes on to `cdk deploy`: `--profile`, `-c key=value`, …
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
)

from infra.package import ROOT

CDK = ROOT / "node_modules" / ".bin" / "cdk"
SHOWN = {
    "Url": "Page and API",
    "StreamUrl": "Streams alone",
    "ApiUrl": "API alone",
    "DashboardName": "Dashboard",
}
# Where `cdk bootstrap` notes what it has made in a region.
BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/deploy", usage="%(prog)s [options]", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--profile")
    parser.add_argument("--outputs-file", type=Path, default=ROOT / "cdk.out" / "outputs.json")
    known, others = parser.parse_known_args(options)
    profile = ["--profile", known.profile] if known.profile else []
    try:
        session = boto3.Session(profile_name=known.profile)
        if session.get_credentials() is None:
            raise NoCredentialsError
        # The two tools look for a region in different places: both shall use this one.
        region = os.environ.get("AWS_REGION") or session.region_name
        if not region:
            sys.exit("deploy: no AWS region; set AWS_REGION, or one in the profile")
        account = session.client("sts", region_name=region).get_caller_identity()["Account"]
    except (EndpointConnectionError, InvalidRegionError) as wrong:
        sys.exit(f"deploy: no AWS in the region {region} ({wrong})")
    except (BotoCoreError, ClientError) as wrong:
        sys.exit(f"deploy: no usable AWS credentials ({wrong}); sign in, or pass --profile")
    environment = {**os.environ, "AWS_REGION": region}
    if not _bootstrapped(session, region):
        # An empty app: there is nothing to synthesize for this.
        _cdk(["bootstrap", f"aws://{account}/{region}", "--app", "", *profile], environment)
    said = ["--require-approval", "never", "--outputs-file", str(known.outputs_file)]
    _cdk(["deploy", *said, *profile, *others], environment)
    for stack, outputs in json.loads(known.outputs_file.read_text()).items():
        _show(stack, outputs)


def _show(stack: str, outputs: Mapping[str, str]) -> None:
    print()
    for output, shown in SHOWN.items():
        if output in outputs:
            print(f"{shown:<15}{outputs[output]}")
    print(f"\nNext: .venv/bin/sluice key add <tenant> --stack {stack}")


def _bootstrapped(session: boto3.Session, region: str) -> bool:
    ssm = session.client("ssm", region_name=region)
    try:
        ssm.get_parameter(Name=BOOTSTRAP)
    except ssm.exceptions.ParameterNotFound:
        return False
    except (BotoCoreError, ClientError):
        # Who may not look is told by the deployment itself what is missing.
        return True
    return True


def _cdk(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 - no shell; the words are of whoever deploys
        [str(CDK), *arguments], cwd=ROOT, env=environment, check=False
    )
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
