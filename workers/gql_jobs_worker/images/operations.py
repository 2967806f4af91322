"""The operations on pictures of the mode L, LA, RGB or RGBA, each a function from a picture to a picture."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image, ImageDraw, ImageFont

from gql_jobs.jobs.types.image_processing import RESIZE_BOX, THUMBNAIL_BOX, ImageOperation
from gql_jobs_worker.images.pictures import fit, shrink

Step = Callable[[Image.Image], Image.Image]

_BOXES = {ImageOperation.RESIZE: RESIZE_BOX, ImageOperation.THUMBNAIL: THUMBNAIL_BOX}
_MARK_WIDTH, _MARK_HEIGHT = 0.25, 0.1
"""Shares of the picture's width and height that a watermark of ``_LETTERS`` characters has at most."""
_LETTERS, _WIDEST = 12, 0.9
"""A longer text may be wider in proportion, up to this share, so that it can be read as well."""
_MARGIN = 0.02
"""The margin beside the watermark, as a share of the picture's shorter side."""
_SMALLEST_TEXT = 6
"""Font size below which there is no watermark."""
_UNIT = 100
"""Font size at which the text is measured."""
_WHITE, _SHADOW = 190, 110
"""Opacities of the text and of its rim, of 255."""


def steps(operations: Sequence[ImageOperation], mark: str) -> list[tuple[ImageOperation, Step]]:
    """Return each operation with the function that does it, in the same order.

    :param mark: the text of the watermark; empty for none.
    """
    of: dict[ImageOperation, Step] = {
        ImageOperation.RESIZE: partial(_into, box=RESIZE_BOX),
        ImageOperation.THUMBNAIL: partial(_into, box=THUMBNAIL_BOX),
        ImageOperation.GRAYSCALE: _grayscale,
        ImageOperation.WATERMARK: partial(_watermark, mark=mark),
    }
    return [(operation, of[operation]) for operation in operations]


def first_box(operations: Sequence[ImageOperation]) -> int | None:
    """Return the side in pixels of the square that a picture can be shrunk into while it is decoded, or None."""
    for operation in operations:
        if operation in _BOXES:
            return _BOXES[operation]
        if operation is not ImageOperation.GRAYSCALE:
            return None
    return None


def _into(picture: Image.Image, box: int) -> Image.Image:
    return shrink(picture, fit(picture.size, box))


def _grayscale(picture: Image.Image) -> Image.Image:
    return picture.convert("LA" if "A" in picture.getbands() else "L")


def _watermark(picture: Image.Image, mark: str) -> Image.Image:
    """Draw white text with a dark rim, which can be read on any picture; return too small a picture as it is."""
    if not mark:
        return picture
    width, height = _measured(mark, _UNIT)
    share = min(_MARK_WIDTH * max(len(mark) / _LETTERS, 1), _WIDEST)
    scale = min(picture.width * share / width, picture.height * _MARK_HEIGHT / height)
    size = int(_UNIT * scale)
    if size < _SMALLEST_TEXT:
        return picture
    font, rim = _font(size), _rim(size)
    left, top, right, bottom = (math.floor(edge) for edge in font.getbbox(mark, stroke_width=rim))
    area = (right - left + 1, bottom - top + 1)
    margin = round(min(picture.size) * _MARGIN)
    corner = (picture.width - area[0] - margin, picture.height - area[1] - margin)
    for stroke, shade, strength in ((rim, 0, _SHADOW), (0, 255, _WHITE)):
        mask = Image.new("L", area)
        ImageDraw.Draw(mask).text((-left, -top), mark, fill=strength, font=font, stroke_width=stroke)
        picture.paste(_colour(picture.mode, shade), (*corner, corner[0] + area[0], corner[1] + area[1]), mask)
    return picture


def _measured(mark: str, size: int) -> tuple[float, float]:
    left, top, right, bottom = _font(size).getbbox(mark, stroke_width=_rim(size))
    return max(right - left, 1), max(bottom - top, 1)


def _rim(size: int) -> int:
    return max(size // 24, 1)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow: a slim container has none."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _colour(mode: str, shade: int) -> int | tuple[int, ...]:
    return shade if mode == "L" else (*(shade,) * (len(mode) - ("A" in mode)), *((255,) if "A" in mode else ()))
