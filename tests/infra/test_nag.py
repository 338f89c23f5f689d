"""The rules of AWS for a sound architecture, with every exception reasoned beside its resource."""

from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks

from infra.app import build
from tests.infra.conftest import EVERYTHING, app_with


def test_aws_solutions_checks_find_nothing() -> None:
    app = app_with(**EVERYTHING)
    build(app)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
