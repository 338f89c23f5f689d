"""What a template says to CloudWatch, as CloudWatch reads it."""

import json
from typing import Any

from tests.infra.conftest import Template, of_type


def plain(value: Any) -> str:
    """A text, with the logical id of a resource for what is only known of it when it is made."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(plain, parts))
        case {"Fn::GetAtt": [logical, _]} | {"Ref": logical}:
            return str(logical)
    return str(value)


def alarms(template: Template) -> dict[str, dict[str, Any]]:
    """The properties of alarms, by the page that each names."""
    found = [one["Properties"] for one in of_type(template, "AWS::CloudWatch::Alarm").values()]
    return {one["AlarmName"].partition("-")[2]: one for one in found}


def widgets(template: Template) -> list[dict[str, Any]]:
    [dashboard] = of_type(template, "AWS::CloudWatch::Dashboard").values()
    drawn: list[dict[str, Any]] = json.loads(plain(dashboard["Properties"]["DashboardBody"]))[
        "widgets"
    ]
    return drawn


def titles(template: Template) -> list[str]:
    return [one["properties"].get("title", "") for one in widgets(template)]
