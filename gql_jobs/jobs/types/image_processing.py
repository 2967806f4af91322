"""The job type `image_processing`: fetch a picture, change it, keep the outcome as an artifact.

Requests are validated here, without the libraries that do the work; whether an address may be connected to is decided
by the worker, when it connects.
"""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gql_jobs.jobs.model import artifact_name
from gql_jobs.jobs.registry import Model, Payload, job_type

MAX_URL = 2048
"""Characters of a URL, at most."""
MAX_OPERATIONS = 20
RESIZE_BOX = 1280
THUMBNAIL_BOX = 256
"""Pixels of the longer side."""
FORMAT_OF_EXTENSION = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF"}
"""The picture's format by the name's extension."""


class ImageOperation(StrEnum):
    """What to do with the picture."""

    RESIZE = "RESIZE"
    """Make it fit into 1280 x 1280 pixels, in its proportions; never enlarge it."""
    WATERMARK = "WATERMARK"
    """
    Write a translucent text into the lower right corner, at most a quarter as wide as the picture unless it is long.
    """
    GRAYSCALE = "GRAYSCALE"
    """Take the colours away."""
    THUMBNAIL = "THUMBNAIL"
    """Make it fit into 256 x 256 pixels, in its proportions; never enlarge it."""


def image_format(path: str) -> str:
    """Return the format for a path's extension: JPEG, PNG, WEBP or AVIF.

    :raises ValueError: for any other extension.
    """
    found = FORMAT_OF_EXTENSION.get(PurePosixPath(path).suffix.lower())
    if found is None:
        raise ValueError(
            f"The output path must end in {', '.join(FORMAT_OF_EXTENSION)}: the extension decides the format."
        )
    return found


def _fetchable(url: str) -> str:
    """Return the URL unchanged.

    :raises ValueError: if the worker would refuse it, or URL parsers disagree about one of its characters.
    """
    if "\\" in url or not url.isprintable() or any(character.isspace() for character in url):
        raise ValueError("The URL must not contain spaces, backslashes or control characters.")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("The URL must begin with http:// or https://.")
    if not parts.hostname:
        raise ValueError("The URL must name a host.")
    if "@" in parts.netloc:
        raise ValueError("The URL must not contain credentials: payloads are shown to clients.")
    if parts.port == 0:
        raise ValueError("Port out of range 0-65535")
    return url


def _writable(path: str) -> str:
    """Return the path unchanged.

    :raises ValueError: for an invalid name or extension.
    """
    image_format(artifact_name(path))
    return path


class ImageProcessingResult(Model):
    """The picture that was made."""

    url: str = Field(description="Its path below the API's address.")
    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    size_bytes: int = Field(description="Size of the file, in bytes.")


class ImageProcessingPayload(Payload[ImageProcessingResult]):
    """A picture to fetch and what to make of it."""

    image_url: Annotated[str, AfterValidator(_fetchable)] = Field(
        description="Where the picture is: an http or https URL without credentials. JPEG, PNG, WebP, AVIF, GIF, TIFF "
        "and BMP can be read; of an animation, the first frame. Addresses of private networks are refused when the "
        "job runs, unless the server allows them.",
        max_length=MAX_URL,
    )
    operations: list[ImageOperation] = Field(
        description="What to do, in this order: 1 to 20 steps. Before them the picture is turned upright as its "
        "camera noted, and converted to sRGB.",
        min_length=1,
        max_length=MAX_OPERATIONS,
    )
    output_path: Annotated[str, AfterValidator(_writable)] = Field(
        description="The name of the artifact to make, such as `output/processed.jpg`; a leading `/` is the root of "
        "the job's artifacts. The extension decides the format: jpg or jpeg (on white, where the picture is "
        "transparent), png, webp, avif. No metadata, such as the place a photograph was taken at, is kept.",
    )


job_type(
    "image_processing",
    payload=ImageProcessingPayload,
    handler="gql_jobs_worker.handlers.image_processing:process_image",
    cpu_bound=True,
    description="Fetches a picture over HTTP, changes it step by step and keeps the outcome as an artifact.",
)
