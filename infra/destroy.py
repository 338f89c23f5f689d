"""Remove a stack, after telling what stays and what goes: what `scripts/destroy` runs."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

# What a kept resource is called by who has to look after it.
NAMES = {"AWS::DynamoDB::GlobalTable": "table"}
# Kept when an update replaces it; with its function Lambda removes each version, kept or not.
VERSION = "AWS::Lambda::Version"
# Removed, and holding what cannot be made again by another deployment.
LOST = {
    "AWS::DynamoDB::GlobalTable": "tables, with every answer, key and audit entry in them",
    "AWS::Logs::LogGroup": "log groups, with the functions' logs",
    "AWS::SQS::Queue": "queues, with the invocations that failed",
    "AWS::Lambda::Url": "URLs of functions: the next deployment has others",
    "AWS::CloudFront::Distribution": "distribution: the next deployment has another address",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a stack's resources: names of what stays, by type; counts of what goes."""

    stays: Mapping[str, list[str]]
    goes: Counter[str]

    @classmethod
    def of(cls, resources: list[dict[str, Any]], template: Mapping[str, Any]) -> "Plan":
        """`resources` as `list_stack_resources` tells them, `template` as it was deployed."""
        stays: dict[str, list[str]] = {}
        goes: Counter[str] = Counter()
        for resource in resources:
            kind = resource["ResourceType"]
            said = template["Resources"].get(resource["LogicalResourceId"], {})
            kept = str(said.get("DeletionPolicy", "")).startswith("Retain")
            if kept and kind != VERSION:
                stays.setdefault(kind, []).append(resource["PhysicalResourceId"])
            else:
                goes[kind] += 1
        return cls(stays, goes)

    def told(self) -> str:
        lines = ["Stays, and costs what it holds:"]
        for kind, names in sorted(self.stays.items()):
            lines += [f"  {NAMES.get(kind, kind)} {name}" for name in names]
        if not self.stays:
            lines.append("  nothing")
        lines.append("Goes for good:")
        lines += [f"  {self.goes[kind]} {what}" for kind, what in LOST.items() if self.goes[kind]]
        others = sum(count for kind, count in self.goes.items() if kind not in LOST)
        lines.append(f"  {others} resources that a deployment makes again")
        return "\n".join(lines)


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/destroy", description=__doc__)
    parser.add_argument("stack", help="its name: Sluice, Sluice-dev, …")
    parser.add_argument("--profile")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    asked = parser.parse_args(options)
    region = None
    try:
        session = boto3.Session(profile_name=asked.profile)
        region = os.environ.get("AWS_REGION") or session.region_name
        if not region:
            sys.exit("destroy: no AWS region; set AWS_REGION, or one in the profile")
        _destroy(session.client("cloudformation", region_name=region), asked.stack, asked.yes)
    except WaiterError:
        sys.exit(f"destroy: {asked.stack} is not removed; its events say what stood in the way")
    except (BotoCoreError, ClientError) as wrong:
        where = f" (in {region})" if region else ""
        sys.exit(f"destroy: {wrong}{where}")


def _destroy(cloudformation: Any, stack: str, yes: bool) -> None:
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = [found for page in pages for found in page["StackResourceSummaries"]]
    if not any(found["LogicalResourceId"].startswith("StreamsTable") for found in resources):
        sys.exit(f"destroy: the stack {stack} has nothing of Sluice in it")
    deployed = cloudformation.get_template(StackName=stack, TemplateStage="Processed")
    template = deployed["TemplateBody"]
    if isinstance(template, str):  # the SDK has read it, where it was JSON
        template = json.loads(template)
    # Of several accounts and regions, which one this is.
    [described] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    print(described["StackId"])
    print(Plan.of(resources, template).told())
    if not yes:
        _ask(stack)
    cloudformation.delete_stack(StackName=stack)
    print(f"{stack} is being removed …", flush=True)
    waiting = {"Delay": 5, "MaxAttempts": 360}
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig=waiting)
    print(f"{stack} is removed.")


def _ask(stack: str) -> None:
    """Leave, unless somebody agrees."""
    if not sys.stdin.isatty():
        sys.exit("destroy: nobody can be asked here: --yes removes without asking")
    if input(f"\nType {stack} to remove it: ") != stack:
        sys.exit("destroy: nothing was removed")


if __name__ == "__main__":
    main(sys.argv[1:])
