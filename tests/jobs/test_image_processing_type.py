"""What may be asked of image_processing is decided when the job is created."""

import subprocess
import sys
from typing import Any

import pytest

from gql_jobs.graphql.inputs import accepted_payload
from gql_jobs.jobs.errors import InvalidPayload
from gql_jobs.jobs.payloads import canonical_json
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.types.image_processing import ImageOperation, ImageProcessingPayload, image_format

GOOD: dict[str, Any] = {
    "image_url": "https://example.com/a.jpg",
    "operations": [ImageOperation.RESIZE],
    "output_path": "/output/processed.jpg",
}


def _validate(**changes: Any) -> ImageProcessingPayload:
    job_type = load_job_types().get("image_processing")
    assert job_type is not None
    payload = accepted_payload(job_type, GOOD | changes, "input.payload.imageProcessing").value
    assert isinstance(payload, ImageProcessingPayload)
    return payload


def test_it_is_registered_as_cpu_bound() -> None:
    job_type = load_job_types().get("image_processing")
    assert job_type is not None
    assert job_type.cpu_bound


def test_what_is_stored_is_what_was_given() -> None:
    assert canonical_json(_validate()) == (
        b'{"imageUrl":"https://example.com/a.jpg","operations":["RESIZE"],"outputPath":"/output/processed.jpg"}'
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://EXAMPLE.COM/A.JPG",
        "https://bücher.example/größe.jpg?x=1#y",
        "http://127.0.0.1:8080/a.png",
        "http://[::1]/a.png",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_an_http_url_with_a_host_is_accepted_wherever_it_leads(url: str) -> None:
    assert _validate(image_url=url).image_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a.jpg",
        "//example.com/a.jpg",
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "data:image/png;base64,AAAA",
        "gopher://example.com",
        "http://",
        "http:///a.jpg",
        "http://:80/a.jpg",
        "http://user@example.com/a.jpg",
        "http://user:secret@example.com/a.jpg",
        "http://@example.com/a.jpg",
        "http://example.com:0/a.jpg",
        "http://example.com:65536/a.jpg",
        "http://example.com:x/a.jpg",
        "http://[::1/a.jpg",
        "http://example.com/a b.jpg",
        "http://example.com\\@localhost/a.jpg",
        "http://example.com/\na.jpg",
        "java\tscript:http://example.com",
        " http://example.com",
        "http://exam\u200bple.com/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_any_other_url_is_refused_by_the_name_of_its_field(url: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        _validate(image_url=url)
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == "input.payload.imageProcessing.imageUrl"


def test_one_to_twenty_operations_can_be_asked_for_even_the_same_twice() -> None:
    assert len(_validate(operations=[ImageOperation.WATERMARK] * 20).operations) == 20
    for count in (0, 21):
        with pytest.raises(InvalidPayload, match="operations"):
            _validate(operations=[ImageOperation.WATERMARK] * count)
    with pytest.raises(InvalidPayload, match="operations"):
        _validate(operations=["SHARPEN"])


@pytest.mark.parametrize("path", ["a.jpg", "/a.jpeg", "/a/b/c.PNG", "ä ö.webp", "a.b.avif", "a/.b.jpg"])
def test_a_path_below_the_root_with_a_known_extension_is_kept_as_given(path: str) -> None:
    assert _validate(output_path=path).output_path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "a",
        "a.gif",
        "a.jpg.exe",
        ".jpg",
        "a/.png",
        "a.jpg/",
        "../a.jpg",
        "/../a.jpg",
        "a/../../b.jpg",
        "a/./b.jpg",
        "//a.jpg",
        "a//b.jpg",
        "a\\b.jpg",
        "..\\a.jpg",
        "a\x00.jpg",
        "a\n.jpg",
        "a\x7f.jpg",
        "a" * 200 + ".jpg",
    ],
)
def test_a_path_that_escapes_or_cannot_be_written_is_refused(path: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        _validate(output_path=path)
    (fault,) = refused.value.extensions["fields"]
    assert fault["path"] == "input.payload.imageProcessing.outputPath"


def test_the_extension_decides_the_format() -> None:
    assert [image_format(f"a.{e}") for e in ("jpg", "JPEG", "png", "webp", "avif")] == [
        "JPEG",
        "JPEG",
        "PNG",
        "WEBP",
        "AVIF",
    ]


def test_the_api_knows_the_type_without_the_libraries_that_do_the_work() -> None:
    code = (
        "import sys, gql_jobs.jobs.types.image_processing as _;"
        "print([m for m in ('PIL', 'httpx', 'httpcore', 'gql_jobs_worker') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
