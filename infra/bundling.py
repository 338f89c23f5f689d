"""What is made at synthesis as assets of the CDK: only when a stack is really synthesized."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.package import ROOT, PackageError, build_page, bundle


def code() -> lambda_.Code:
    """The functions' package."""
    return lambda_.Code.from_asset(str(ROOT / "functions"), **_made(bundle))


def page_files(scope: Construct) -> assets.Asset:
    """The page's files."""
    return assets.Asset(scope, "PageFiles", path=str(ROOT / "web" / "src"), **_made(build_page))


def _made(fill: Callable[[Path], None]) -> dict[str, Any]:
    return {
        # By content: the same sources are the same asset on every machine.
        "asset_hash_type": AssetHashType.OUTPUT,
        "bundling": BundlingOptions(
            image=DockerImage.from_registry("docker-is-not-used"), local=_Local(fill)
        ),
    }


@jsii.implements(ILocalBundling)
class _Local:
    def __init__(self, fill: Callable[[Path], None]) -> None:
        self._fill = fill

    def try_bundle(self, output_dir: str, *_options: Any, **_more: Any) -> bool:
        try:
            self._fill(Path(output_dir))
        except PackageError as wrong:
            # An exception would come back through Node as a page of two languages' frames.
            sys.exit(f"package: {wrong}")
        return True
