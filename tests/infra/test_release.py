"""How a new version takes over, and what is kept ready or bounded."""

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks

from infra.app import build
from tests.infra.conftest import Template, app_with, of_type, synthesize
from tests.infra.test_compute import function, logical_id

GUARDED: dict[str, object] = {
    "shift": "canary",
    "streamWarm": 2,
    "streamConcurrency": 100,
    "apiConcurrency": 50,
    "produceConcurrency": 40,
}


@pytest.fixture(scope="module")
def guarded() -> Template:
    return synthesize(**GUARDED)


def test_without_a_choice_nothing_is_published(template: Template) -> None:
    assert not of_type(template, "AWS::Lambda::Version")
    assert not of_type(template, "AWS::Lambda::Alias")
    assert "SnapStart" not in function(template, "Stream")


def test_a_function_may_run_only_so_often_at_once(guarded: Template) -> None:
    for name, most in (("Stream", 100), ("Api", 50), ("Produce", 40)):
        assert function(guarded, name)["ReservedConcurrentExecutions"] == most
    assert "ReservedConcurrentExecutions" not in function(guarded, "Sweep")


def test_clients_call_an_alias_whose_versions_outlast_it(guarded: Template) -> None:
    [(live, alias)] = of_type(guarded, "AWS::Lambda::Alias").items()
    stream = {"Ref": logical_id(guarded, "Stream")}
    assert alias["Properties"]["FunctionName"] == stream
    assert alias["Properties"]["ProvisionedConcurrencyConfig"] == {
        "ProvisionedConcurrentExecutions": 2
    }
    [url] = [
        url["Properties"]
        for url in of_type(guarded, "AWS::Lambda::Url").values()
        if url["Properties"].get("Qualifier") == "live"
    ]
    assert url["InvokeMode"] == "RESPONSE_STREAM"
    permissions = of_type(guarded, "AWS::Lambda::Permission").values()
    allowed = {
        permission["Properties"]["Action"]
        for permission in permissions
        if permission["Properties"]["FunctionName"] == {"Ref": live}
    }
    assert allowed == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    [version] = of_type(guarded, "AWS::Lambda::Version").values()
    assert version["DeletionPolicy"] == "Retain"


def test_a_release_is_taken_back_where_it_fails(guarded: Template) -> None:
    [alias] = of_type(guarded, "AWS::Lambda::Alias").values()
    [(group, _)] = of_type(guarded, "AWS::CodeDeploy::DeploymentGroup").items()
    update = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert update["DeploymentGroupName"] == {"Ref": group}
    [(alarm, fails)] = [
        (logical, alarm)
        for logical, alarm in of_type(guarded, "AWS::CloudWatch::Alarm").items()
        if logical.startswith("ReleaseFails")
    ]
    properties = guarded["Resources"][group]["Properties"]
    assert properties["AlarmConfiguration"] == {
        "Alarms": [{"Name": {"Ref": alarm}}],
        "Enabled": True,
    }
    assert "DEPLOYMENT_STOP_ON_ALARM" in properties["AutoRollbackConfiguration"]["Events"]
    assert fails["Properties"]["MetricName"] == "Errors"


def test_a_snapshot_is_of_a_version() -> None:
    template = synthesize(streamWarm="snapshot")
    assert function(template, "Stream")["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    [alias] = of_type(template, "AWS::Lambda::Alias").values()
    assert "ProvisionedConcurrencyConfig" not in alias["Properties"]
    assert not of_type(template, "AWS::CodeDeploy::DeploymentGroup")


def test_aws_solutions_checks_find_nothing_in_a_release() -> None:
    app = app_with(**GUARDED)
    build(app)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
