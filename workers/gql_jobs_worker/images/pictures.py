"""Reading untrusted files as pictures, upright, in sRGB and without metadata, and writing pictures to files.

The pixels are counted before they are decoded. A picture that has been read has the mode L, LA, RGB or RGBA.
"""

import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features

from gql_jobs.jobs.errors import PermanentError

READABLE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
"""The formats that are tried; each further one would be one more parser of untrusted bytes."""
_DRAFT = 1.5
"""How many times larger than needed a JPEG is decoded at least, by one of the scales 1, 1/2, 1/4 and 1/8."""
_NEAREST = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}
_STEPS_16 = 256
"""Values of 16 bits for each value of 8."""
_SRGB = ImageCms.createProfile("sRGB")
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "PNG": {},
    "WEBP": {"quality": 82},
    "AVIF": {"quality": 70, "speed": 8},
}
"""Options of the encoders: qualities that look alike; a speed of AVIF that large pictures can be written with."""
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 65_536}
"""Pixels that the longer side may have in the format or its library."""
_OPTIONAL = {"WEBP": "webp", "AVIF": "avif"}
"""Formats that not every build of Pillow can write, and the names it has for them."""


def read_picture(file: BinaryIO, max_pixels: int, box: int | None = None) -> Image.Image:
    """Return the first picture of a file.

    :param max_pixels: width times height that the picture may have.
    :param box: side of a square in pixels that the picture is shrunk into while it is decoded; None to keep its size.
    :raises PermanentError: if it is no picture, too large, or broken.
    """
    # Also for sizes that only decoding shows, such as frames larger than their screen. Pillow raises above twice this.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about untrusted files help nobody
        try:
            return _upright(_decoded(file, max_pixels, box))
        except PermanentError:
            raise
        except UnidentifiedImageError as error:
            raise PermanentError(f"The file is no picture that can be read ({', '.join(READABLE_FORMATS)}).") from error
        except Image.DecompressionBombError as error:
            raise PermanentError(f"The picture has more than {max_pixels} pixels, which is the limit.") from error
        except MemoryError:
            raise
        except Exception as error:
            # Decoders fail with nearly anything on broken bytes, but only the system sets errno.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise PermanentError(f"The picture is broken: {error or type(error).__name__}") from error


def fit(size: tuple[int, int], box: int) -> tuple[int, int]:
    """Return the largest size of the same proportions within a square, at most the size itself, at least 1 x 1."""
    factor = min(box / max(size), 1.0)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def shrink(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture resampled to that size, or itself if it has it."""
    if picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _decoded(file: BinaryIO, max_pixels: int, box: int | None) -> Image.Image:
    picture = Image.open(file, formats=READABLE_FORMATS)
    width, height = picture.size
    if width * height > max_pixels:
        raise PermanentError(f"The picture has {width} x {height} pixels; the limit is {max_pixels} pixels.")
    size = picture.size if box is None else fit(picture.size, box)
    if size != picture.size:
        picture.draft(None, (int(size[0] * _DRAFT), int(size[1] * _DRAFT)))
    picture.load()
    return shrink(_plain(picture), size)


def _plain(picture: Image.Image) -> Image.Image:
    """Return the picture in a mode that can be resampled: no palette, 8 bits, transparency as a channel."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return _from_16_bits(picture)
    if mode in {"1", "L", "P", "RGB"} and "transparency" in picture.info:
        return picture.convert("RGBA")
    if mode == "P":
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if mode in {"L", "LA", "RGB", "RGBA", "CMYK", "LAB"}:
        return picture
    if mode in _NEAREST:
        return picture.convert(_NEAREST[mode])
    raise PermanentError(f"Pictures with pixels of the kind {mode!r} cannot be processed.")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Return a grey picture of 16 bits in 8. A plain conversion would cut every value above 255 to white."""
    plain = picture.convert("I").point(lambda value: value * (1 / _STEPS_16)).convert("L")
    plain.info = picture.info
    return plain


def _upright(picture: Image.Image) -> Image.Image:
    info = dict(picture.info)
    picture = _in_srgb(picture, info.get("icc_profile"))
    picture.info = info
    with suppress(Exception):  # broken EXIF data do not make a broken picture
        ImageOps.exif_transpose(picture, in_place=True)
    # Some writers take profile, comment or EXIF from here when they are given none.
    picture.info = {}
    return picture


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    grey = picture.mode in {"L", "LA"}
    if profile:
        try:
            return _converted(picture, ImageCms.ImageCmsProfile(BytesIO(profile)), grey=grey)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # an unreadable profile, or one for another mode, is ignored
    return picture if grey or picture.mode in {"RGB", "RGBA"} else picture.convert("RGB")


def _converted(picture: Image.Image, profile: ImageCms.ImageCmsProfile, *, grey: bool) -> Image.Image:
    if "srgb" in ImageCms.getProfileDescription(profile).lower() and picture.mode in {"RGB", "RGBA"}:
        return picture
    alpha = picture.getchannel("A") if "A" in picture.getbands() and picture.mode != "LAB" else None
    opaque = picture if alpha is None else picture.convert("L" if grey else "RGB")
    converted = ImageCms.profileToProfile(opaque, profile, _SRGB, outputMode="RGB")
    assert converted is not None
    if grey:
        converted = converted.convert("L")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def write_picture(picture: Image.Image, path: Path, image_format: str) -> None:
    """Write a picture as a file, without metadata.

    :param image_format: JPEG, PNG, WEBP or AVIF.
    :raises PermanentError: if the format cannot hold the picture, or is not available here.
    """
    if image_format in _OPTIONAL and not features.check(_OPTIONAL[image_format]):
        raise PermanentError(f"The imaging library of this worker cannot write {image_format}.")
    longest = _LONGEST_SIDE.get(image_format)
    if longest is not None and max(picture.size) > longest:
        raise PermanentError(f"{image_format} cannot hold {max(picture.size)} pixels in a row; the limit is {longest}.")
    _storable(picture, image_format).save(path, image_format, **_OPTIONS[image_format])


def _storable(picture: Image.Image, image_format: str) -> Image.Image:
    """Return the picture in a mode that the format can hold; JPEG has no transparency, so white shines through."""
    if "A" not in picture.getbands():
        return picture
    if image_format == "JPEG":
        opaque = picture.mode.removesuffix("A")
        white = Image.new(opaque, picture.size, "white")
        white.paste(picture.convert(opaque), mask=picture.getchannel("A"))
        return white
    return picture if image_format == "PNG" else picture.convert("RGBA")
