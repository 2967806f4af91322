"""A picture as a file: JPEG, PNG, WebP or AVIF, without metadata."""

from pathlib import Path
from typing import Any

from PIL import Image, features

from gql_jobs.jobs.errors import PermanentError

_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "PNG": {},
    "WEBP": {"quality": 82},
    "AVIF": {"quality": 70, "speed": 8},
}
"""Qualities that look alike; AVIF faster than its default, which takes seconds for 12 megapixels."""
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 65_536}
"""Pixels that the format or its library can hold."""
_OPTIONAL = {"WEBP": "webp", "AVIF": "avif"}


def write_picture(picture: Image.Image, path: Path, image_format: str) -> None:
    """:param image_format: JPEG, PNG, WEBP or AVIF.
    :raises PermanentError: if the format cannot hold the picture, or is not available here.
    """
    if image_format in _OPTIONAL and not features.check(_OPTIONAL[image_format]):
        raise PermanentError(f"The imaging library of this worker cannot write {image_format}.")
    longest = _LONGEST_SIDE.get(image_format)
    if longest is not None and max(picture.size) > longest:
        raise PermanentError(f"{image_format} cannot hold {max(picture.size)} pixels in a row; the limit is {longest}.")
    _fitting(picture, image_format).save(path, image_format, **_OPTIONS[image_format])


def _fitting(picture: Image.Image, image_format: str) -> Image.Image:
    if "A" not in picture.getbands():
        return picture
    if image_format == "JPEG":
        opaque = picture.mode.removesuffix("A")
        white = Image.new(opaque, picture.size, "white")
        white.paste(picture.convert(opaque), mask=picture.getchannel("A"))
        return white
    return picture if image_format == "PNG" else picture.convert("RGBA")
