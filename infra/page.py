"""The page: its files, in a bucket that only the edge reads, and what browsers are told of them."""

import json
from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_s3 as s3

from infra.config import Config, ContextError
from infra.custom import page_in
from infra.package import ROOT

HEADERS = ROOT / "web" / "headers.json"
HSTS = Duration.days(365)


def page_bucket(stack: Stack, config: Config) -> s3.Bucket:
    """A bucket with the page in it."""
    bucket = s3.Bucket(
        stack,
        "PageBucket",
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        encryption=s3.BucketEncryption.S3_MANAGED,
        enforce_ssl=True,
        # Not versioned: a release is in the repository, and brought back by deploying it.
        # Whoever filled it empties it, before it goes with the stack.
        removal_policy=RemovalPolicy.DESTROY,
    )
    Validations.of(bucket).acknowledge(
        Acknowledgment(id="AwsSolutions-S1", reason="Only the edge reads it: files for everyone.")
    )
    page_in(stack, bucket, json.dumps(page_config(config)), config.log_retention)
    return bucket


def page_config(config: Config) -> Mapping[str, object]:
    """What the page asks for at `/config.json`."""
    bedrock = [f"bedrock/{model}" for model in config.bedrock_models]
    return {
        "local": False,
        "key": None,
        "models": list(config.models) or ["demo", *bedrock],
        "bodyHash": config.edge == "closed",
    }


def page_headers(stack: Stack) -> cloudfront.ResponseHeadersPolicy:
    """The headers of `web/headers.json`, and that the page is for HTTPS alone."""
    try:
        wanted: dict[str, str] = json.loads(HEADERS.read_text())
    except FileNotFoundError:
        raise ContextError("web/headers.json is missing; -c edge=none needs none") from None
    security: dict[str, Any] = {"strict_transport_security": _only_https()}
    custom = []
    for name, value in wanted.items():
        match name.lower():
            case "content-security-policy":
                security["content_security_policy"] = (
                    cloudfront.ResponseHeadersContentSecurityPolicy(
                        content_security_policy=value, override=True
                    )
                )
            case "referrer-policy":
                security["referrer_policy"] = cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy[
                        value.upper().replace("-", "_")
                    ],
                    override=True,
                )
            case "x-content-type-options":
                security["content_type_options"] = cloudfront.ResponseHeadersContentTypeOptions(
                    override=True
                )
            case _:
                custom.append(
                    cloudfront.ResponseCustomHeader(header=name, value=value, override=True)
                )
    return cloudfront.ResponseHeadersPolicy(
        stack,
        "PageHeaders",
        security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(**security),
        custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(custom_headers=custom),
    )


def api_headers(stack: Stack) -> cloudfront.ResponseHeadersPolicy:
    """What browsers are told of every answer of the API. CORS stays the functions' own."""
    return cloudfront.ResponseHeadersPolicy(
        stack,
        "ApiHeaders",
        security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
            strict_transport_security=_only_https(),
            content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
            frame_options=cloudfront.ResponseHeadersFrameOptions(
                frame_option=cloudfront.HeadersFrameOption.DENY, override=True
            ),
            referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
            ),
        ),
    )


def _only_https() -> cloudfront.ResponseHeadersStrictTransportSecurity:
    return cloudfront.ResponseHeadersStrictTransportSecurity(
        access_control_max_age=HSTS, override=True
    )
