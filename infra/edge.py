"""The edge: one address before both functions and the page."""

from aws_cdk import Acknowledgment, CfnOutput, CustomResource, Duration, Stack, Validations
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_lambda as lambda_

from infra.config import Config
from infra.firewall import web_acl
from infra.package import ROOT
from infra.page import api_headers, page_bucket, page_headers
from shared.middleware import edge as told

# What streams, or shares its path with what streams. The first pattern that fits is taken.
STREAM_PATHS = ("/v1/streams", "/v1/streams/*/events", "/v1/*/export")
API_PATHS = ("/v1/*", "/healthz", "/openapi.json")
# Above the heartbeat of 15 s and the longest poll of 20 s.
READ_TIMEOUT = Duration.seconds(60)
KEEPALIVE = Duration.seconds(30)
TLS = cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021


class Edge:
    """A distribution. `secret` is that of `custom.edge_secret`."""

    def __init__(
        self,
        stack: Stack,
        config: Config,
        secret: CustomResource,
        *,
        stream_url: lambda_.FunctionUrl,
        api_url: lambda_.FunctionUrl,
    ) -> None:
        self._stack = stack
        self._config = config
        self._secret = secret
        self._policy = api_headers(stack)
        self._viewer = cloudfront.Function(
            stack,
            "ViewerFunction",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_inline((ROOT / "infra" / "edge.js").read_text()),
        )
        stream, api = self._function(stream_url), self._function(api_url)
        named = bool(config.domain_name)
        self.distribution = cloudfront.Distribution(
            stack,
            "Edge",
            comment=f"{config.stack_name}: page and API",
            default_root_object="index.html",
            default_behavior=self._page(),
            additional_behaviors={
                **{path: self._behavior(stream) for path in STREAM_PATHS},
                **{path: self._behavior(api) for path in API_PATHS},
            },
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            domain_names=[config.domain_name] if named else None,
            certificate=self._certificate() if named else None,
            # Without a name of ours the certificate is CloudFront's, and so is what it takes.
            minimum_protocol_version=TLS if named else None,
            web_acl_id=web_acl(stack, config),
        )
        self._acknowledge()
        name = config.domain_name or self.distribution.distribution_domain_name
        CfnOutput(stack, "Url", value=f"https://{name}/")
        # Where a name of one's own has to point.
        CfnOutput(stack, "EdgeDomainName", value=self.distribution.distribution_domain_name)

    def _page(self) -> cloudfront.BehaviorOptions:
        bucket = page_bucket(self._stack, self._config)
        return cloudfront.BehaviorOptions(
            origin=origins.S3BucketOrigin.with_origin_access_control(bucket),
            cache_policy=cloudfront.CachePolicy.CACHING_OPTIMIZED,
            response_headers_policy=page_headers(self._stack),
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
        )

    def _function(self, url: lambda_.FunctionUrl) -> cloudfront.IOrigin:
        make = (
            origins.FunctionUrlOrigin.with_origin_access_control
            if self._config.edge == "closed"
            else origins.FunctionUrlOrigin
        )
        return make(
            url,
            # A second attempt would be a second answer, and a second bill.
            connection_attempts=1,
            read_timeout=READ_TIMEOUT,
            keepalive_timeout=KEEPALIVE,
            custom_headers={told.SECRET.decode(): self._secret.get_att_string("Secret")},
        )

    def _behavior(self, origin: cloudfront.IOrigin) -> cloudfront.BehaviorOptions:
        return cloudfront.BehaviorOptions(
            origin=origin,
            allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
            cache_policy=cloudfront.CachePolicy.CACHING_DISABLED,
            # A function URL answers to its own name alone.
            origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
            response_headers_policy=self._policy,
            # It would hold back what streams, to make blocks of it.
            compress=False,
            # Not redirected: the credential would have been sent in the clear already.
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
            function_associations=[
                cloudfront.FunctionAssociation(
                    function=self._viewer,
                    event_type=cloudfront.FunctionEventType.VIEWER_REQUEST,
                )
            ],
        )

    def _certificate(self) -> acm.ICertificate:
        return acm.Certificate.from_certificate_arn(
            self._stack, "Certificate", self._config.certificate_arn
        )

    def _acknowledge(self) -> None:
        reasons = {
            "AwsSolutions-CFR1": "Who may call is decided by key, wherever they are.",
            "AwsSolutions-CFR3": "Its log would hold addresses with tickets in them, and where "
            "viewers are, past what their tenant wants kept. The functions tell of each request.",
        }
        if self._config.firewall == "none":
            reasons["AwsSolutions-CFR2"] = "An option: it costs some 10 USD a month."
        if not self._config.domain_name:
            reasons["AwsSolutions-CFR4"] = "CloudFront's own name comes with its own TLS settings."
        for rule, reason in reasons.items():
            Validations.of(self.distribution).acknowledge(Acknowledgment(id=rule, reason=reason))
