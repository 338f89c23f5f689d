"""An answer in an experiment: its variant is kept, told, and gone on with."""

from typing import Any

from shared.metrics import ANSWER, PRODUCTION
from shared.pacing import Pacing
from shared.records import StreamKey
from shared.starting import Start
from tests.functions.conftest import Sluice, running, start_body
from tests.told import Told

HELD = {"name": "held", "pacing": {"first_chunk": "sentence"}}
BOTH = {"name": "first", "variants": [{**HELD, "name": "also"}, HELD]}


async def started(sluice: Sluice, **more: Any) -> tuple[StreamKey, Start]:
    answer = await sluice.stream.post("/v1/streams", json=start_body(**more))
    key = StreamKey("demo", answer.headers["stream-id"])
    opened, *_ = await sluice.services.log.all_records(key)
    return key, Start.from_body(opened.body)


async def test_a_stream_keeps_its_variant_and_metrics_tell_it() -> None:
    told = Told()
    async with running(metrics=told.metrics()) as sluice:
        await sluice.policy(experiment=BOTH)
        starts = [await started(sluice) for _ in range(12)]
    variants = {start.variant for _, start in starts}
    assert variants == {"first/also", "first/held"}
    assert all(start.pacing == Pacing(first_chunk="sentence") for _, start in starts)
    for line in (ANSWER, PRODUCTION):
        by = {said.properties["stream"]: said.dimensions["variant"] for said in told.of(line)}
        assert by == {key.stream: start.variant for key, start in starts}


async def test_a_users_streams_have_one_variant() -> None:
    async with running() as sluice:
        await sluice.policy(experiment=BOTH)
        await sluice.add_key("ada", user="ada")
        sluice.stream.headers["authorization"] = "Bearer ada"
        assert len({(await started(sluice))[1].variant for _ in range(8)}) == 1


async def test_who_sets_a_pacing_takes_no_part() -> None:
    async with running() as sluice:
        await sluice.policy(experiment=BOTH)
        _, start = await started(sluice, pacing={"boundary": "none"})
    assert (start.variant, start.pacing) == (None, Pacing(boundary="none"))
