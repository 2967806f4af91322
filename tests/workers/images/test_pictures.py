"""From files of every kind to upright pictures in sRGB without metadata."""

from io import BytesIO

import pytest
from PIL import Image, ImageCms

from gql_jobs.jobs.errors import PermanentError
from gql_jobs_worker.images.pictures import fit, read_picture, shrink
from tests.pictures import bomb, encoded, gradient, upright

LIMIT = 1_000_000
ORIENTATION, GPS = 0x0112, 0x8825


def _read(data: bytes, box: int | None = None) -> Image.Image:
    return read_picture(BytesIO(data), LIMIT, box)


def _is_gradient(picture: Image.Image) -> bool:
    """Whether the top is dark and the bottom is light, whatever the mode."""
    grey = picture.convert("RGBA").convert("L")
    column = grey.crop((grey.width // 2, 0, grey.width // 2 + 1, grey.height)).tobytes()
    return column[2] < 50 and 90 < column[len(column) // 2] < 170 and column[-3] > 200


def _files() -> dict[str, bytes]:
    colours, grey = gradient(), gradient().getchannel("R")
    deep = grey.convert("I").point(lambda value: value * 256).convert("I;16")
    lab = ImageCms.profileToProfile(
        colours, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    clear = colours.convert("RGBA")
    clear.putpixel((200, 2), (0, 0, 0, 0))
    frames = [gradient(), Image.new("RGB", (400, 300), "red")]
    return {
        "JPEG": encoded(colours, "JPEG"),
        "JPEG, progressive": encoded(colours, "JPEG", progressive=True),
        "JPEG, grey": encoded(grey, "JPEG"),
        "JPEG, CMYK": encoded(colours.convert("CMYK"), "JPEG"),
        "JPEG, several": encoded(colours, "MPO", save_all=True, append_images=[frames[1]]),
        "PNG": encoded(colours, "PNG"),
        "PNG, palette": encoded(colours.quantize(64), "PNG"),
        "PNG, palette, transparent": encoded(colours.quantize(64), "PNG", transparency=40),
        "PNG, one colour transparent": encoded(colours, "PNG", transparency=(1, 2, 3)),
        "PNG, alpha": encoded(clear, "PNG"),
        "PNG, grey": encoded(grey, "PNG"),
        "PNG, grey, one transparent": encoded(grey, "PNG", transparency=3),
        "PNG, grey, alpha": encoded(grey.convert("LA"), "PNG"),
        "PNG, grey, 16 bits": encoded(deep, "PNG"),
        "PNG, black and white": encoded(grey.convert("1"), "PNG"),
        "PNG, animated": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "WebP": encoded(colours, "WEBP"),
        "WebP, alpha": encoded(clear, "WEBP"),
        "WebP, animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "AVIF": encoded(colours, "AVIF"),
        "AVIF, animated": encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:]),
        "GIF": encoded(colours, "GIF"),
        "GIF, animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "TIFF": encoded(colours, "TIFF"),
        "TIFF, CMYK": encoded(colours.convert("CMYK"), "TIFF"),
        "TIFF, 16 bits": encoded(deep, "TIFF"),
        "TIFF, LAB": encoded(lab, "TIFF"),
        "BMP": encoded(colours, "BMP"),
    }


FILES = _files()


@pytest.mark.parametrize("kind", FILES)
def test_it_can_be_read(kind: str) -> None:
    picture = _read(FILES[kind])
    assert picture.size == (400, 300)
    assert picture.mode in {"L", "LA", "RGB", "RGBA"}
    assert ("A" in picture.getbands()) == ("alpha" in kind or "transparent" in kind)
    assert picture.info == {}
    if kind != "PNG, black and white":
        assert _is_gradient(picture)


@pytest.mark.parametrize("kind", FILES)
def test_it_can_be_shrunk_while_it_is_read(kind: str) -> None:
    picture = _read(FILES[kind], box=100)
    assert picture.size == (100, 75)
    if kind != "PNG, black and white":
        assert _is_gradient(picture)


@pytest.mark.parametrize("size", [(4001, 3001), (3000, 4001), (2999, 10), (10, 2999), (1281, 1280)])
def test_the_size_does_not_depend_on_how_the_decoder_shrinks(size: tuple[int, int]) -> None:
    data = encoded(Image.new("L", size), "JPEG")
    assert read_picture(BytesIO(data), 20_000_000, 1280).size == fit(size, 1280)


def test_proportions_are_kept_and_nothing_is_enlarged() -> None:
    assert fit((4000, 3000), 1280) == (1280, 960)
    assert fit((3000, 4000), 1280) == (960, 1280)
    assert fit((640, 480), 1280) == (640, 480)
    assert fit((10_000, 1), 256) == (256, 1)
    assert fit((1, 10_000), 256) == (1, 256)
    assert shrink(Image.new("L", (10_000, 1)), (256, 1)).size == (256, 1)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("box", [None, 200])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_the_picture_is_turned_as_the_camera_noted(
    image_format: str, box: int | None, orientation: int, turn: Image.Transpose | None
) -> None:
    stored = upright() if turn is None else upright().transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = _read(encoded(stored, image_format, exif=exif), box).convert("RGB")
    assert picture.size == ((400, 300) if box is None else (200, 150))
    width, height = picture.size
    corners = [picture.getpixel((x, y)) for x in (9, width - 10) for y in (9, height - 10)]
    assert [isinstance(c, tuple) and c[1] < 80 for c in corners] == [True, False, False, False]


def test_a_broken_note_of_the_camera_is_passed_over() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense" * 9):
        assert _read(encoded(gradient(), "JPEG", exif=exif)).size == (400, 300)


def _profile_with_swapped_primaries() -> bytes:
    """An RGB profile in which red is green: a picture that ignores it has the wrong colours."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"s\0R\0G\0B", b"s\0W\0A\0P").replace(b"sRGB", b"SWAP")
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_converted_by_the_profile_of_the_file(mode: str) -> None:
    colours = Image.new(mode, (20, 20), (255, 0, 0))
    data = encoded(colours, "PNG", icc_profile=_profile_with_swapped_primaries())
    picture = _read(data)
    pixel = picture.getpixel((5, 5))
    assert picture.mode == mode
    assert isinstance(pixel, tuple)
    assert pixel[0] < 40
    assert pixel[1] > 215
    assert pixel[3:] == (255,) * (len(mode) - 3)


def test_srgb_is_left_as_it_is() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = _read(encoded(gradient(), "PNG", icc_profile=profile))
    assert picture.tobytes() == gradient().tobytes()


def test_a_profile_that_is_none_or_of_another_kind_is_passed_over() -> None:
    for profile in (b"nonsense", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        assert _read(encoded(gradient(), "PNG", icc_profile=profile)).tobytes() == gradient().tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x00" * 4096,
        encoded(gradient(), "ICO"),
        encoded(gradient(), "PPM"),
    ],
    ids=["empty", "html", "pdf", "svg", "eps", "zeros", "ico", "ppm"],
)
def test_what_is_no_picture_is_permanent(data: bytes) -> None:
    with pytest.raises(PermanentError, match="no picture that can be read"):
        _read(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "AVIF", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("box", [None, 100])
def test_a_file_cut_off_is_permanent(kind: str, box: int | None) -> None:
    data = FILES[kind]
    for share in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(PermanentError):
            _read(data[: int(len(data) * share)], box)


def test_bytes_flipped_anywhere_do_no_harm() -> None:
    for kind, data in FILES.items():
        for place in range(0, len(data), max(len(data) // 40, 1)):
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            try:
                _read(bytes(damaged))
            except PermanentError:
                assert kind


@pytest.mark.parametrize("size", [(1001, 1000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_permanent_before_any_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(PermanentError, match="the limit"):
        _read(bomb(*size))


def test_as_many_pixels_as_are_allowed_are_decoded() -> None:
    with pytest.raises(PermanentError, match="broken"):
        _read(bomb(1000, 1000))
    assert _read(encoded(Image.new("1", (1000, 1000)), "PNG")).size == (1000, 1000)


def test_pixels_of_unknown_range_are_permanent() -> None:
    with pytest.raises(PermanentError, match="of the kind 'F'"):
        _read(encoded(gradient().convert("F"), "TIFF"))
