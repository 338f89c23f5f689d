"""The edge: what goes where, what is left alone on the way, and who may pass."""

import json
import subprocess
from fnmatch import fnmatchcase
from typing import Any

import pytest

from functions import api, stream
from functions.wiring import Services
from infra.edge import STREAM_PATHS
from shared.dialects import native
from shared.settings import Settings
from tests.infra.conftest import ROOT, Template, of_type, synthesize
from tests.infra.test_compute import function, logical_id
from tests.model_store import ModelStore

SERVICES = Services.on(ModelStore(), Settings())
# Managed policies of CloudFront.
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
ALL_VIEWER_EXCEPT_HOST_HEADER = "b689b0a8-53d0-40ab-baf2-68738e2966ac"


def distribution(template: Template) -> dict[str, Any]:
    [found] = of_type(template, "AWS::CloudFront::Distribution").values()
    config: dict[str, Any] = found["Properties"]["DistributionConfig"]
    return config


def origin_of(template: Template, path: str) -> dict[str, Any]:
    """The origin that a request for the path is sent to."""
    config = distribution(template)
    fits = (b for b in config["CacheBehaviors"] if fnmatchcase(path, b["PathPattern"]))
    behavior = next(fits, config["DefaultCacheBehavior"])
    [origin] = [o for o in config["Origins"] if o["Id"] == behavior["TargetOriginId"]]
    return dict(origin)


def url_of(template: Template, name: str) -> str:
    """The logical id of a function's URL."""
    [found] = [
        logical
        for logical, url in of_type(template, "AWS::Lambda::Url").items()
        if url["Properties"]["TargetFunctionArn"]["Fn::GetAtt"][0] == logical_id(template, name)
    ]
    return found


def policy(template: Template, name: str) -> dict[str, Any]:
    [found] = [
        p["Properties"]["ResponseHeadersPolicyConfig"]
        for logical, p in of_type(template, "AWS::CloudFront::ResponseHeadersPolicy").items()
        if logical.startswith(name)
    ]
    return dict(found)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("Stream", endpoint.path) for endpoint in stream.endpoints(SERVICES)),
        *(
            ("Api", endpoint.path)
            for endpoint in api.endpoints(SERVICES)
            if endpoint.path not in STREAM_PATHS
        ),
        ("Api", "/healthz"),
        ("Api", "/openapi.json"),
        ("Api", "/v1/nothing"),
    ],
)
def test_a_request_goes_to_the_function_that_serves_it(
    template: Template, name: str, path: str
) -> None:
    assert url_of(template, name) in json.dumps(origin_of(template, path)["DomainName"])


def test_both_functions_serve_the_one_path_that_both_need() -> None:
    streaming = {(e.method, e.path) for e in stream.endpoints(SERVICES)}
    for endpoint in api.endpoints(SERVICES):
        if endpoint.path in STREAM_PATHS:
            assert (endpoint.method, endpoint.path) in streaming


@pytest.mark.parametrize("path", ["/", "/index.html", "/config.json", "/app-ABCD2345.js"])
def test_all_else_is_the_page(template: Template, path: str) -> None:
    assert "PageBucket" in json.dumps(origin_of(template, path)["DomainName"])


def test_nothing_is_cached_compressed_or_asked_twice(template: Template) -> None:
    for behavior in distribution(template)["CacheBehaviors"]:
        assert behavior["CachePolicyId"] == CACHING_DISABLED
        assert behavior["OriginRequestPolicyId"] == ALL_VIEWER_EXCEPT_HOST_HEADER
        assert behavior["Compress"] is False
        assert behavior["ViewerProtocolPolicy"] == "https-only"
        assert {"GET", "POST", "DELETE", "OPTIONS"} <= set(behavior["AllowedMethods"])
    for path in ("/v1/streams", "/healthz"):
        origin = origin_of(template, path)
        assert origin["ConnectionAttempts"] == 1
        assert "ResponseCompletionTimeout" not in origin
        custom = origin["CustomOriginConfig"]
        assert custom["OriginReadTimeout"] > 2 * max(native.SILENCE_S_MAX, native.WAIT_S_MAX)
        assert custom["OriginProtocolPolicy"] == "https-only"
    assert distribution(template)["HttpVersion"] == "http2and3"
    # One that is for the page would hide the API's problems, too.
    assert "CustomErrorResponses" not in distribution(template)


def test_only_the_edge_knows_the_secret_and_both_functions_its_digest(template: Template) -> None:
    for path in ("/v1/streams", "/healthz"):
        assert origin_of(template, path)["OriginCustomHeaders"] == [
            {"HeaderName": "sluice-edge", "HeaderValue": {"Fn::GetAtt": ["EdgeSecret", "Secret"]}}
        ]
    for name in ("Stream", "Api"):
        environment = function(template, name)["Environment"]["Variables"]
        assert environment["SLUICE_EDGE_DIGEST"] == {"Fn::GetAtt": ["EdgeSecret", "Digest"]}
    assert json.dumps(template).count('"Secret"]') == 2


@pytest.mark.parametrize("shift", ["none", "canary"])
def test_a_closed_edge_signs_and_nobody_else_may_call(shift: str) -> None:
    template = synthesize(edge="closed", shift=shift)
    for name, path in (("Stream", "/v1/streams"), ("Api", "/healthz")):
        url = template["Resources"][url_of(template, name)]["Properties"]
        assert url["AuthType"] == "AWS_IAM"
        control = origin_of(template, path)["OriginAccessControlId"]["Fn::GetAtt"][0]
        signing = template["Resources"][control]["Properties"]["OriginAccessControlConfig"]
        assert signing["OriginAccessControlOriginType"] == "lambda"
        assert signing["SigningBehavior"] == "always"
        permissions = [
            permission["Properties"]
            for permission in of_type(template, "AWS::Lambda::Permission").values()
            if url_of(template, name) in json.dumps(permission["Properties"]["FunctionName"])
        ]
        assert {p["Action"] for p in permissions} == {
            "lambda:InvokeFunctionUrl",
            "lambda:InvokeFunction",
        }
        [edge] = of_type(template, "AWS::CloudFront::Distribution")
        for permission in permissions:
            assert permission["Principal"] == "cloudfront.amazonaws.com"
            assert f'"Ref": "{edge}"' in json.dumps(permission["SourceArn"])
    assert not {"StreamUrl", "ApiUrl"} & set(template["Outputs"])


def test_without_an_edge_there_is_nothing_of_it(bare: Template) -> None:
    kinds = {resource["Type"].split("::")[1] for resource in bare["Resources"].values()}
    assert not kinds & {"CloudFront", "S3", "WAFv2", "EdgeSecret", "Page"}
    assert "SLUICE_EDGE_DIGEST" not in json.dumps(bare)
    assert {"StreamUrl", "ApiUrl"} < set(bare["Outputs"])


def test_the_page_s_headers_are_all_there_and_only_https(template: Template) -> None:
    said = policy(template, "PageHeaders")
    security = said["SecurityHeadersConfig"]
    found = {h["Header"]: h["Value"] for h in said["CustomHeadersConfig"]["Items"]}
    found["Content-Security-Policy"] = security["ContentSecurityPolicy"]["ContentSecurityPolicy"]
    found["Referrer-Policy"] = security["ReferrerPolicy"]["ReferrerPolicy"]
    found["X-Content-Type-Options"] = "nosniff" if security["ContentTypeOptions"] else ""
    assert found == json.loads((ROOT / "web" / "headers.json").read_text())
    assert security["StrictTransportSecurity"]["AccessControlMaxAgeSec"] == 365 * 86400


def test_cors_is_the_functions_own(template: Template) -> None:
    for name in ("PageHeaders", "ApiHeaders"):
        assert "CorsConfig" not in policy(template, name)


def test_the_page_s_files_are_read_by_the_edge_alone(template: Template) -> None:
    [bucket] = of_type(template, "AWS::S3::Bucket").values()
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
    [said] = of_type(template, "AWS::S3::BucketPolicy").values()
    statements = said["Properties"]["PolicyDocument"]["Statement"]
    [allowed] = [statement for statement in statements if statement["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "cloudfront.amazonaws.com"}
    assert allowed["Action"] == "s3:GetObject"


def test_the_page_is_told_what_it_talks_to(template: Template, full: Template) -> None:
    told = [
        json.loads(found["Properties"]["Config"])
        for each in (template, full)
        for found in of_type(each, "Custom::Page").values()
    ]
    assert told == [
        {"local": False, "key": None, "models": ["demo"], "bodyHash": False},
        {"local": False, "key": None, "models": ["openai/gpt-5", "demo"], "bodyHash": True},
    ]


def test_a_name_of_one_s_own(full: Template) -> None:
    config = distribution(full)
    assert config["Aliases"] == ["ai.example.com"]
    certificate = config["ViewerCertificate"]
    assert certificate["AcmCertificateArn"].startswith("arn:aws:acm:us-east-1:")
    assert certificate["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert full["Outputs"]["Url"]["Value"] == "https://ai.example.com/"


def test_the_firewall_lets_prompts_through(full: Template) -> None:
    """What a prompt may hold by right is counted, and not refused."""
    [(logical, made)] = of_type(full, "AWS::WAFv2::WebACL").items()
    assert distribution(full)["WebACLId"] == {"Fn::GetAtt": [logical, "Arn"]}
    rate, *groups = made["Properties"]["Rules"]
    assert rate["Action"] == {"Block": {}}
    assert rate["Statement"]["RateBasedStatement"]["AggregateKeyType"] == "IP"
    counted = set()
    for group in groups:
        managed = group["Statement"]["ManagedRuleGroupStatement"]
        assert "SQLi" not in managed["Name"]
        for rule in managed.get("RuleActionOverrides", []):
            assert rule["ActionToUse"] == {"Count": {}}
            counted.add(rule["Name"])
    assert {"SizeRestrictions_BODY", "CrossSiteScripting_BODY", "Log4JRCE_BODY"} <= counted


def test_a_firewall_of_one_s_own_is_taken() -> None:
    arn = "arn:aws:wafv2:us-east-1:000000000000:global/webacl/ours/0a-1b"
    template = synthesize(firewall=arn)
    assert distribution(template)["WebACLId"] == arn
    assert not of_type(template, "AWS::WAFv2::WebACL")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"authorization": "Bearer key"}, {"sluice-authorization": "Bearer key"}),
        ({"accept-encoding": "gzip, br"}, {}),
        ({"sluice-authorization": "Bearer forged", "sluice-viewer": "192.0.2.1"}, {}),
    ],
    ids=["with a credential", "that takes gzip", "with what only the edge may say"],
)
def test_what_the_edge_tells_of_a_viewer(sent: dict[str, str], told: dict[str, str]) -> None:
    request = {"method": "GET", "uri": "/v1/streams", "headers": _values(sent)}
    event = {"viewer": {"ip": "203.0.113.7"}, "request": request}
    script = (ROOT / "infra" / "edge.js").read_text()
    script += f"\nconsole.log(JSON.stringify(handler({json.dumps(event)})));"
    ran = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    kept = {name: value for name, value in sent.items() if name == "authorization"}
    expected = kept | told | {"sluice-viewer": "203.0.113.7"}
    assert json.loads(ran.stdout) == {**request, "headers": _values(expected)}


def _values(headers: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"value": value} for name, value in headers.items()}
