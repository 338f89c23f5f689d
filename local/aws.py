"""AWS, as an operator's command is told to see it."""

import os
from typing import TYPE_CHECKING

from local.errors import Failed

if TYPE_CHECKING:
    import boto3


def session(profile: str | None, region: str | None) -> "boto3.Session":
    """Raises `Failed` where nothing says which region, and `BotoCoreError`."""
    import boto3

    # boto3 itself does not look at AWS_REGION, which the deployment does.
    found = boto3.Session(profile_name=profile, region_name=region or os.environ.get("AWS_REGION"))
    if found.region_name is None:
        raise Failed("which region? Set AWS_REGION, or pass --region, or a --profile that has one")
    return found
