"""Events as AWS documents them, reduced to what a translation reads."""

from typing import Any


def function_url(
    method: str = "GET",
    path: str = "/",
    *,
    query: str | None = "",
    headers: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Payload format 2.0; `more` are further keys of the event, such as body and cookies."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "id.lambda-url.eu-central-1.on.aws", **(headers or {})},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.7"}},
        "isBase64Encoded": False,
        **more,
    }


def rest_api(method: str = "GET", path: str = "/", **more: Any) -> dict[str, Any]:
    """Payload format 1.0, as a REST API sends it."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Host": "id.execute-api.eu-central-1.amazonaws.com"},
        "multiValueHeaders": {"X-Two": ["a", "b"]},
        "queryStringParameters": {"q": "2"},
        "multiValueQueryStringParameters": {"q": ["1", "2"]},
        "requestContext": {"identity": {"sourceIp": "192.0.2.8"}},
        "body": None,
        "isBase64Encoded": False,
        **more,
    }


def load_balancer(method: str = "GET", path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:…"}},
        "path": path,
        "httpMethod": method,
        "headers": {"host": "lb.example.com", "x-forwarded-for": "192.0.2.9"},
        "queryStringParameters": {"q": "1"},
        "body": "",
        "isBase64Encoded": False,
        **more,
    }
