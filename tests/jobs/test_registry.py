"""The registry: names, validation, the one spelling of a payload."""

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field

from gql_jobs import Model
from gql_jobs.jobs.payloads import canonical_json
from gql_jobs.jobs.registry import JobType, Registry, load_job_types


class Part(Model):
    """Nested."""

    size_bytes: int = Field(ge=0)
    scale: float = 1.0


class Upload(Model):
    """With nested models and free JSON."""

    parts: list[Part]
    meta_data: dict[str, Any] = Field(default_factory=dict)


class Uploaded(Model):
    """Nothing."""


UPLOAD = JobType("upload", Upload, Uploaded, "nowhere:run")


def test_stored_json_has_no_infinity() -> None:
    payload = Upload(parts=[], meta_data={"a": float("inf"), "b": float("nan")})
    assert b'"metaData":{"a":null,"b":null}' in canonical_json(payload)
    assert b'"scale":null' in canonical_json(Part.model_construct(size_bytes=1, scale=float("inf")))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Upload"}, "The job type name 'Upload' must match"),
        ({"name": "up.load"}, "The job type name 'up.load' must match"),
        ({"name": ""}, "The job type name '' must match"),
        ({"name": "a" * 64}, "must match"),
        ({"queue": "a.b"}, "The queue name 'a.b' must match"),
        ({"queue": "*"}, "The queue name '\\*' must match"),
        ({"queue": ""}, "must match"),
        ({"handler": "nowhere.run"}, "must be written as module:function"),
        ({"name": 5}, "name of the job type 5 is 5; it must be a text"),
        ({"queue": 5}, "queue of the job type 'upload' is 5; it must be a text"),
        ({"queue": None}, "queue of the job type 'upload' is None"),
        ({"handler": print}, "handler of the job type 'upload' is <built-in function print>; it must be a text"),
        ({"description": b"x"}, "description of the job type 'upload' is b'x'"),
        ({"concurrency": 0}, "concurrency of the job type 'upload' is 0; it must be a whole number from 1 to"),
        ({"concurrency": True}, "concurrency of the job type 'upload' is True; it must be a whole number"),
        ({"concurrency": 0, "concurrency_key": str}, "concurrency of the job type 'upload' is 0"),
        ({"rate": "10"}, "rate of the job type 'upload' is '10'; it must be written as a number of starts in a time"),
        ({"rate": 10}, "rate of the job type 'upload' is 10; it must be written as"),
        ({"rate": "0/s"}, "rate of the job type 'upload' is '0/s'; it must allow from one start a day"),
        ({"concurrency_key": "tenant"}, "concurrency_key of the job type 'upload' is 'tenant'; it must be a plain"),
        ({"concurrency_key": asyncio.sleep}, "it must be a plain function that returns the key of a payload"),
        ({"cpu_bound": "yes"}, "cpu_bound of the job type 'upload' is 'yes'; it must be True or False"),
        ({"timeout": math.inf}, "timeout of the job type 'upload' is inf; it must be a number of seconds from 0.1 to"),
        ({"timeout": math.nan}, "timeout of the job type 'upload' is nan"),
        ({"timeout": 0}, "timeout of the job type 'upload' is 0"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": 86_401}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": "60"}, "timeout of the job type 'upload' is '60'"),
        ({"timeout": timedelta(minutes=1)}, "timeout"),
        ({"max_retries": -1}, "max_retries of the job type 'upload' is -1; it must be a whole number from 0 to 100"),
        ({"max_retries": 101}, "max_retries"),
        ({"max_retries": 2**40}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": math.inf}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
    ],
)
def test_a_type_that_cannot_be_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    facts: dict[str, Any] = {
        "name": "upload", "payload": Upload, "result": Uploaded, "handler": "nowhere:run", **changes
    }  # fmt: skip
    with pytest.raises(ValueError, match=sentence):
        Registry().add(JobType(**facts))


def test_a_name_is_registered_once_but_importing_a_module_again_is_no_error() -> None:
    registry = Registry()
    assert registry.add(UPLOAD) is UPLOAD
    registry.add(JobType("upload", Upload, Uploaded, "nowhere:run"))
    with pytest.raises(
        ValueError, match=r"'upload' is registered twice, with the handlers nowhere:run and elsewhere:run\.$"
    ):
        registry.add(JobType("upload", Upload, Uploaded, "elsewhere:run"))
    assert list(registry) == [UPLOAD]


def test_types_are_found_by_name_and_queues_are_sorted() -> None:
    registry = Registry()
    registry.add(JobType("a", Upload, Uploaded, "m:f", queue="z"))
    registry.add(JobType("b", Upload, Uploaded, "m:f"))
    assert registry.queues == ["default", "z"]
    assert registry.get("c") is None


def test_installed_types_are_loaded_and_a_missing_module_is_named() -> None:
    assert load_job_types().get("email") is not None
    with pytest.raises(ImportError, match="no_such_jobs"):
        load_job_types(("no_such_jobs",))
