"""createRawJobs: payloads that are given as the JSON that is stored."""

import json

import pytest

from tests.api.operations import FIND, UNKNOWN_ID, asked, create, find
from tests.serving import Data, ServedApi

CREATE_RAW = """mutation ($inputs: [RawJobInput!]!) {
  createRawJobs(inputs: $inputs) { deduplicated deduplicatedCount jobs { id rawPayload tags priority } }
}"""


def _raw(payload: object = None, **options: object) -> Data:
    return {"type": "probe", "payload": json.dumps(payload or {}), **options}


async def _created(api: ServedApi, *inputs: Data) -> Data:
    return dict((await api.ask(CREATE_RAW, inputs=list(inputs)))["createRawJobs"])


async def test_a_raw_payload_is_stored_as_it_is_written_and_its_job_is_like_any_other(api: ServedApi) -> None:
    payload = {"steps": 2, "saves": {"a" * 300: [1 << 62, 1.5, "½"]}}
    made = await _created(api, _raw(payload, tags=["raw"], priority="HIGH"))
    (job,) = made["jobs"]
    assert (job["rawPayload"], job["tags"], job["priority"]) == (payload, ["raw"], "HIGH")
    assert made["deduplicated"] == [False]
    assert (await find(api, job["id"]))["__typename"] == "ProbeJob"


async def test_a_raw_creation_and_a_typed_one_with_one_key_are_the_same_job(api: ServedApi) -> None:
    typed = await create(api, {"steps": 2}, idempotencyKey="one")
    made = await _created(api, _raw({"steps": 2}), _raw({"steps": 2}, idempotencyKey="one"))
    assert made["jobs"][1]["id"] == typed["id"]
    assert (made["deduplicated"], made["deduplicatedCount"]) == ([False, True], 1)


async def test_two_raw_creations_are_compared_by_what_was_sent(api: ServedApi) -> None:
    first = await _created(api, _raw({"steps": 1}, idempotencyKey="one", sent="{}"))
    again = await _created(api, _raw({"steps": 2}, idempotencyKey="one", sent=" {}"))
    assert again["jobs"][0]["id"] == first["jobs"][0]["id"]
    assert again["jobs"][0]["rawPayload"] == {"steps": 1}
    refusal = await api.refusal(CREATE_RAW, inputs=[_raw({"steps": 1}, idempotencyKey="one")])
    assert refusal["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize(
    ("given", "code", "place"),
    [
        ({"type": "probe", "payload": '{"steps": "many"}'}, "INVALID_PAYLOAD", "inputs.1.payload.steps"),
        ({"type": "probe", "payload": '{"none": 1}'}, "INVALID_PAYLOAD", "inputs.1.payload.none"),
        ({"type": "probe", "payload": "{"}, "INVALID_PAYLOAD", "inputs.1.payload"),
        ({"type": "probe", "payload": "[" * 100_000}, "INVALID_PAYLOAD", "inputs.1.payload"),
        ({"type": "probe", "payload": '{"seconds": NaN}'}, "INVALID_PAYLOAD", "inputs.1.payload"),
        ({"type": "probe", "payload": "{}", "sent": "{"}, "INVALID_PAYLOAD", "inputs.1.sent"),
        ({"type": "probe", "payload": 5}, "INVALID_PAYLOAD", "inputs.1.payload"),
        ({"type": "none", "payload": "{}"}, "INVALID_ARGUMENT", "inputs.1.type"),
        ({"type": "probe", "payload": "{}", "maxRetries": 101}, "INVALID_ARGUMENT", "inputs.1.maxRetries"),
        ({"type": "probe", "payload": "{}", "origin": UNKNOWN_ID}, "INVALID_ARGUMENT", "inputs.1.origin"),
    ],
)
async def test_what_cannot_be_stored_is_refused_with_its_place_and_nothing_is_stored(
    api: ServedApi, given: Data, code: str, place: str
) -> None:
    extensions = (await api.refusal(CREATE_RAW, inputs=[_raw(idempotencyKey="first"), given]))["extensions"]
    assert extensions["code"] == code
    assert place in {extensions.get("argument"), *(fault["path"] for fault in extensions.get("fields", ()))}
    made = await _created(api, _raw(idempotencyKey="first"))
    assert made["deduplicated"] == [False]


async def test_the_number_of_raw_creations_has_the_limit_of_all_batches(api: ServedApi) -> None:
    for number in (0, 1001):
        refusal = await api.refusal(CREATE_RAW, inputs=[_raw()] * number)
        assert refusal["extensions"]["argument"] == "inputs"


async def test_typed_creations_say_of_each_job_whether_its_key_had_made_it(api: ServedApi) -> None:
    document = "mutation ($inputs: [CreateJobInput!]!) { createJobs(inputs: $inputs) { deduplicated jobs { id } } }"
    inputs = [asked(idempotencyKey="one"), asked(), asked(idempotencyKey="one")]
    answer = (await api.ask(document, inputs=inputs))["createJobs"]
    assert answer["deduplicated"] == [False, False, True]
    assert (await api.ask(FIND, id=answer["jobs"][0]["id"]))["job"]["id"] == answer["jobs"][2]["id"]
