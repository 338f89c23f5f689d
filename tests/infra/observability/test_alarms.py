"""When an alarm is on, and that a quiet night is none; whom it tells."""

import json
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext
from typing import Any

import pytest

from local.cost import ALARM_METRICS
from tests.infra.conftest import ROOT, Template, of_type, synthesize
from tests.infra.observability.template import alarms

Told = dict[str, float]


def value(alarm: dict[str, Any], told: Told) -> Decimal:
    """What an alarm's expression comes to, where CloudWatch was told that of its metrics.

    Metrics are named as `AnswersFailed.stream`, by the last of their dimensions' values.
    """
    queries = {query["Id"]: query for query in alarm["Metrics"]}
    [result] = [query["Expression"] for query in queries.values() if query["ReturnData"]]

    def figure(query: dict[str, Any]) -> float | None:
        metric = query["MetricStat"]["Metric"]
        names = [str(one["Value"]) for one in metric["Dimensions"]]
        return told.get(f"{metric['MetricName']}.{names[-1]}", told.get(metric["MetricName"]))

    known: dict[str, Any] = {
        name: figure(query) for name, query in queries.items() if "MetricStat" in query
    }
    functions = {
        "FILL": lambda metric, instead: Decimal(instead if metric is None else metric),
        "IF": lambda condition, then, other: then if condition else other,
        "MAX": max,
    }
    with localcontext() as exact:
        # CloudWatch has no value where something is divided by 0.
        exact.traps[DivisionByZero] = exact.traps[InvalidOperation] = False
        return Decimal(eval(result, {"__builtins__": {}}, known | functions))


@pytest.mark.parametrize(
    ("name", "told", "on"),
    [
        ("answers-failing", {}, False),
        ("answers-failing", {"AnswersFailed.stream": 2}, False),
        ("answers-failing", {"AnswersFailed.stream": 2, "AnswersFailed.sweep": 1}, True),
        (
            "answers-failing",
            {"AnswersFailed.produce": 5, "AnswersCompleted.stream": 95},
            False,
        ),
        (
            "answers-failing",
            {"AnswersFailed.api": 6, "AnswersCompleted.stream": 50, "AnswersCompleted.produce": 44},
            True,
        ),
        ("first-token-late", {}, False),
        ("first-token-late", {"TimeToFirstToken.stream": 9_999}, False),
        ("first-token-late", {"TimeToFirstToken.produce": 10_001}, True),
        ("producers-dying", {}, False),
        ("producers-dying", {"TakenOver.sweep": 2}, False),
        ("producers-dying", {"TakenOver.sweep": 3, "AnswersCompleted.stream": 10}, True),
        ("producers-dying", {"TakenOver.produce": 3, "AnswersCompleted.stream": 10}, True),
        ("producers-dying", {"TakenOver.stream": 3, "AnswersCompleted.stream": 500}, False),
        ("launches-failing", {}, False),
        ("launches-failing", {"LaunchFailures.api": 1}, True),
        ("requests-failing", {}, False),
        ("requests-failing", {"Url5xxCount": 2, "UrlRequestCount": 2}, False),
        ("requests-failing", {"Url5xxCount": 3, "UrlRequestCount": 299}, True),
        ("functions-throttled", {}, False),
        ("functions-throttled", {"Throttles": 1}, True),
        ("tables-throttled", {}, False),
        ("tables-throttled", {"WriteThrottleEvents": 1}, True),
        ("failures-kept", {}, False),
        ("failures-kept", {"ApproximateNumberOfMessagesVisible": 1}, True),
        ("sweep-not-running", {"Invocations": 5}, False),
        ("sweep-not-running", {"Invocations": 0}, True),
        ("sweep-failing", {}, False),
        ("sweep-failing", {"SweepFailed.sweep": 1}, True),
        ("sweep-failing", {"Errors": 1}, True),
    ],
)
def test_when_it_is_on(template: Template, name: str, told: Told, on: bool) -> None:
    alarm = alarms(template)[name]
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    assert (value(alarm, told) > alarm["Threshold"]) is on


def test_an_open_breaker_is_found_whatever_its_model(template: Template) -> None:
    [query] = alarms(template)["breaker-open"]["Metrics"]
    assert query["Expression"] == (
        'SELECT SUM("BreakerChanges") FROM SCHEMA("Sluice", "model", "state") '
        "WHERE \"state\" = 'opened'"
    )
    assert query["Period"] == 300


def test_only_a_sweep_that_says_nothing_is_wrong(template: Template) -> None:
    silent = {name: one["TreatMissingData"] for name, one in alarms(template).items()}
    assert silent.pop("sweep-not-running") == "breaching"
    assert set(silent.values()) == {"notBreaching"}


def test_a_sweep_that_runs_into_its_timeout_is_found_though_lambda_tells_late(
    template: Template,
) -> None:
    """Its errors are dated by when it began, so the last period is still without them."""
    alarm = alarms(template)["sweep-failing"]
    [(_, sweep)] = [
        one
        for one in of_type(template, "AWS::Lambda::Function").items()
        if one[0].startswith("Sweep")
    ]
    [period] = {
        query["MetricStat"]["Period"] for query in alarm["Metrics"] if "MetricStat" in query
    }
    late = -(-sweep["Properties"]["Timeout"] // period)
    assert alarm["EvaluationPeriods"] - alarm["DatapointsToAlarm"] >= late


def test_none_looks_at_more_metrics_than_cloudwatch_takes(template: Template) -> None:
    for name, alarm in alarms(template).items():
        assert sum("MetricStat" in query for query in alarm["Metrics"]) <= 10, name


def test_what_they_cost_is_told(template: Template) -> None:
    queries = [query for alarm in alarms(template).values() for query in alarm["Metrics"]]
    metrics = sum("MetricStat" in query for query in queries)
    page = (ROOT / "docs" / "decisions" / "observability.md").read_text()
    assert f"| {metrics} metrics in them" in page
    assert metrics + 2 == ALARM_METRICS  # and two for a model


def test_every_table_and_index_is_watched(template: Template) -> None:
    watched = {
        (metric["MetricName"], *sorted(str(one["Value"]) for one in metric["Dimensions"]))
        for query in alarms(template)["tables-throttled"]["Metrics"]
        if "MetricStat" in query
        for metric in [query["MetricStat"]["Metric"]]
    }
    tables = of_type(template, "AWS::DynamoDB::GlobalTable")
    for logical, table in tables.items():
        assert {("ReadThrottleEvents", str({"Ref": logical}))} <= watched
        assert {("WriteThrottleEvents", str({"Ref": logical}))} <= watched
        for index in table["Properties"].get("GlobalSecondaryIndexes", []):
            names = sorted([index["IndexName"], str({"Ref": logical})])
            assert ("WriteThrottleEvents", *names) in watched


def test_every_failure_queue_is_watched(template: Template) -> None:
    watched = json.dumps(alarms(template)["failures-kept"]["Metrics"])
    queues = of_type(template, "AWS::SQS::Queue")
    assert queues
    assert all(queue in watched for queue in queues)


def test_all_tell_the_topic_when_they_begin_and_when_they_are_over(template: Template) -> None:
    [topic] = of_type(template, "AWS::SNS::Topic")
    for alarm in alarms(template).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
    assert template["Outputs"]["AlarmTopicArn"]["Value"] == {"Ref": topic}


def test_cloudwatch_may_write_to_the_topic_and_use_its_key(template: Template) -> None:
    """Nothing else would tell that it may not: alarms would be lost."""
    [topic] = of_type(template, "AWS::SNS::Topic").values()
    [(key, made)] = of_type(template, "AWS::KMS::Key").items()
    assert topic["Properties"]["KmsMasterKeyId"] == {"Fn::GetAtt": [key, "Arn"]}
    cloudwatch = {"Service": "cloudwatch.amazonaws.com"}
    [allowed] = [
        one["Action"]
        for one in made["Properties"]["KeyPolicy"]["Statement"]
        if one["Principal"] == cloudwatch
    ]
    assert allowed == ["kms:Decrypt", "kms:GenerateDataKey*"]
    [policy] = of_type(template, "AWS::SNS::TopicPolicy").values()
    denied, allowed = policy["Properties"]["PolicyDocument"]["Statement"]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (denied["Effect"], allowed["Effect"]) == ("Deny", "Allow")
    assert (allowed["Principal"], allowed["Action"]) == (cloudwatch, "sns:Publish")
    assert "aws:SourceAccount" in allowed["Condition"]["StringEquals"]


def test_an_address_is_told_where_there_is_one(template: Template, full: Template) -> None:
    assert not of_type(template, "AWS::SNS::Subscription")
    [subscription] = of_type(full, "AWS::SNS::Subscription").values()
    assert subscription["Properties"]["Protocol"] == "email"
    assert subscription["Properties"]["Endpoint"] == "ops@example.com"


@pytest.mark.parametrize(("observability", "dashboards"), [("none", 0), ("dashboard", 1)])
def test_who_wants_less_pays_for_less(observability: str, dashboards: int) -> None:
    template = synthesize(observability=observability)
    kinds = [one["Type"] for one in template["Resources"].values()]
    assert kinds.count("AWS::CloudWatch::Dashboard") == dashboards
    for service in ("CloudWatch::Alarm", "CloudWatch::InsightRule", "SNS::Topic", "KMS::Key"):
        assert f"AWS::{service}" not in kinds
    assert "AWS::CloudFront::MonitoringSubscription" not in kinds
    assert "AWS::Logs::QueryDefinition" not in kinds
