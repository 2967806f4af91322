"""Pictures for tests, as the bytes of a file."""

from io import BytesIO
from typing import Any
from zlib import crc32

from PIL import Image


def gradient(size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Dark and blue at the top, light and yellow at the bottom."""
    ramp = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (ramp, ramp, Image.new("L", size, 128)))


def upright(size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Red in the upper left quarter, white elsewhere."""
    picture = Image.new("RGB", size, "white")
    picture.paste((255, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    return picture


def encoded(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    """The file's bytes."""
    file = BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    """The picture, decoded."""
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises that many pixels and whose body has none."""
    small = encoded(Image.new("L", (1, 1)), "PNG")
    header = width.to_bytes(4) + height.to_bytes(4) + small[24:29]
    return small[:16] + header + _crc(b"IHDR" + header) + small[33:]


def _crc(chunk: bytes) -> bytes:
    return crc32(chunk).to_bytes(4)
