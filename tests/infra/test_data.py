"""The tables are what the shared shapes say, and survive a mistake."""

import pytest

from shared import schema
from tests.infra.conftest import Template, of_type, synthesize


def table(template: Template, shape: schema.Table) -> Template:
    found: list[Template] = [
        resource
        for name, resource in of_type(template, "AWS::DynamoDB::GlobalTable").items()
        if name.startswith(f"{shape.name.title()}Table")
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("shape", schema.TABLES, ids=lambda shape: shape.name)
def test_keys_indexes_and_expiry_come_from_the_schema(
    template: Template, shape: schema.Table
) -> None:
    properties = table(template, shape)["Properties"]
    assert properties["KeySchema"] == [
        {"AttributeName": shape.partition.name, "KeyType": "HASH"},
        {"AttributeName": shape.sort.name, "KeyType": "RANGE"},
    ]
    keys = [shape.partition, shape.sort]
    indexes = {}
    for index in shape.indexes:
        keys += [index.partition, index.sort]
        indexes[index.name] = (index.partition.name, index.sort.name, index.projected)
    assert {a["AttributeName"]: a["AttributeType"] for a in properties["AttributeDefinitions"]} == {
        key.name: key.type for key in keys
    }
    assert {
        index["IndexName"]: (
            *(key["AttributeName"] for key in index["KeySchema"]),
            tuple(index["Projection"]["NonKeyAttributes"]),
        )
        for index in properties.get("GlobalSecondaryIndexes", [])
    } == indexes
    assert properties["TimeToLiveSpecification"] == {
        "AttributeName": shape.expiry,
        "Enabled": True,
    }


@pytest.mark.parametrize("shape", schema.TABLES, ids=lambda shape: shape.name)
def test_a_table_outlives_its_stack_and_can_be_restored(
    template: Template, shape: schema.Table
) -> None:
    found = table(template, shape)
    [replica] = found["Properties"]["Replicas"]
    assert found["DeletionPolicy"] == found["UpdateReplacePolicy"] == "Retain"
    assert replica["DeletionProtectionEnabled"] is True
    assert replica["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert found["Properties"]["BillingMode"] == "PAY_PER_REQUEST"


def test_a_disposable_stack_leaves_nothing() -> None:
    template = synthesize(disposable="true")
    for shape in schema.TABLES:
        found = table(template, shape)
        assert found["DeletionPolicy"] == "Delete"
        assert found["Properties"]["Replicas"][0]["DeletionProtectionEnabled"] is False
    assert not [
        name
        for name, resource in template["Resources"].items()
        if resource.get("DeletionPolicy") == "Retain"
    ]


def test_what_a_table_may_cost_has_a_bound_where_one_is_set(template: Template) -> None:
    capped = synthesize(maxReadUnits=2000, maxWriteUnits=1000)
    reads = {"MaxReadRequestUnits": 2000}
    writes = {"MaxWriteRequestUnits": 1000}
    for shape in schema.TABLES:
        properties = table(capped, shape)["Properties"]
        assert properties["WriteOnDemandThroughputSettings"] == writes
        [replica] = properties["Replicas"]
        assert replica["ReadOnDemandThroughputSettings"] == reads
        for index in replica.get("GlobalSecondaryIndexes", []):
            assert index["ReadOnDemandThroughputSettings"] == reads
        for index in properties.get("GlobalSecondaryIndexes", []):
            assert index["WriteOnDemandThroughputSettings"] == writes
        assert "OnDemandThroughput" not in str(table(template, shape))
