"""The functions' package as an asset of the CDK."""

import sys
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_

from infra.package import ROOT, PackageError, bundle


def code() -> lambda_.Code:
    """The package as an asset that is made only when a stack is really synthesized."""
    return lambda_.Code.from_asset(
        str(ROOT / "functions"),
        # By content: the same sources are the same asset on every machine.
        asset_hash_type=AssetHashType.OUTPUT,
        bundling=BundlingOptions(
            image=DockerImage.from_registry("docker-is-not-used"), local=_Local()
        ),
    )


@jsii.implements(ILocalBundling)
class _Local:
    def try_bundle(self, output_dir: str, *_options: Any, **_more: Any) -> bool:
        try:
            bundle(Path(output_dir))
        except PackageError as wrong:
            # An exception would come back through Node as a page of two languages' frames.
            sys.exit(f"package: {wrong}")
        return True
