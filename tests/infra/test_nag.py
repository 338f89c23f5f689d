"""The rules of AWS for a sound architecture, with every exception reasoned beside its resource."""

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks

from infra.app import build
from tests.infra.conftest import EVERYTHING, app_with


@pytest.mark.parametrize("context", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_aws_solutions_checks_find_nothing(context: dict[str, object]) -> None:
    app = app_with(**context)
    build(app)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
