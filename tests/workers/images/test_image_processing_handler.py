"""The handler of image_processing as a whole: from a server on loopback to an artifact."""

from collections.abc import AsyncIterator, Iterator
from io import BytesIO

import pytest
from PIL import Image

from gql_jobs.jobs.types.image_processing import ImageOperation, ImageProcessingPayload, ImageProcessingResult
from gql_jobs.testing import ErrorKind, HandlerOutcome, arun_handler
from gql_jobs_worker.handlers import environment_settings
from gql_jobs_worker.handlers import image_processing as handler
from tests.file_server import Answer, FileServer, file_server
from tests.pictures import bomb, encoded, gradient, upright

RESIZE, WATERMARK, GRAYSCALE, THUMBNAIL = (
    ImageOperation.RESIZE,
    ImageOperation.WATERMARK,
    ImageOperation.GRAYSCALE,
    ImageOperation.THUMBNAIL,
)
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "PNG": "PNG", "webp": "WEBP", "avif": "AVIF"}


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GQL_JOBS_DOWNLOAD_ALLOW_LOOPBACK", "true")
    monkeypatch.setenv("GQL_JOBS_DOWNLOAD_TIMEOUT", "10")
    environment_settings.cache_clear()
    yield
    environment_settings.cache_clear()


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


def _payload(url: str, *operations: ImageOperation, path: str = "/output/processed.jpg") -> ImageProcessingPayload:
    return ImageProcessingPayload(image_url=url, operations=list(operations), output_path=path)


async def _run(
    url: str, *operations: ImageOperation, path: str = "/output/processed.jpg"
) -> HandlerOutcome[ImageProcessingResult]:
    return await arun_handler(handler.process_image, _payload(url, *operations, path=path), in_process=True)


async def _made(url: str, *operations: ImageOperation, path: str = "/out/made.png") -> Image.Image:
    outcome = await _run(url, *operations, path=path)
    (file,) = outcome.artifacts.values()
    picture = Image.open(BytesIO(file.data))
    picture.load()
    assert file.name == path.removeprefix("/")
    assert picture.size == (outcome.result.width, outcome.result.height)
    assert len(file.data) == outcome.result.size_bytes
    return picture


def _assert_permanent(outcome: HandlerOutcome[ImageProcessingResult], message: str) -> None:
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.PERMANENT
    assert message in outcome.error.message


def _pixel(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    pixel = picture.convert("RGBA").getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def _darkest_and_lightest(picture: Image.Image) -> tuple[int, int]:
    shades = picture.convert("L").tobytes()
    return min(shades), max(shades)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("operation", list(ImageOperation))
async def test_every_operation_in_every_format(server: FileServer, extension: str, operation: ImageOperation) -> None:
    url = server.put("/photo.jpg", encoded(gradient((1600, 1200)), "JPEG"))
    picture = await _made(url, operation, path=f"/out/made.{extension}")
    sizes = {RESIZE: (1280, 960), THUMBNAIL: (256, 192)}
    assert picture.size == sizes.get(operation, (1600, 1200))
    assert picture.format == FORMATS[extension]
    red, _, blue, _ = _pixel(picture, 5, picture.height - 5)
    assert (abs(red - blue) < 4) == (operation is GRAYSCALE)


async def test_the_result_says_where_the_artifact_is(server: FileServer) -> None:
    url = server.put("/photo.jpg", encoded(gradient(), "JPEG"))
    outcome = await _run(url, RESIZE, path="/out put/ä.jpg")
    assert outcome.result.url == f"/artifacts/{outcome.job_id}/out%20put/%C3%A4.jpg"
    assert list(outcome.artifacts) == ["out put/ä.jpg"]


async def test_the_progress_counts_bytes_and_then_steps(server: FileServer) -> None:
    data = encoded(Image.effect_noise((900, 700), 90), "PNG")
    outcome = await _run(server.put("/a.png", data), RESIZE, WATERMARK, GRAYSCALE)
    percents = [percent for percent, _ in outcome.progress]
    assert percents == sorted(percents)
    assert any(0 < percent < 50 for percent in percents)
    assert (50, f"Downloaded {len(data) / 1e6:.1f} of {len(data) / 1e6:.1f} MB") in outcome.progress
    assert outcome.progress[-6:] == (
        (50, "Reading the picture"),
        (60, "RESIZE (1 of 3)"),
        (70, "WATERMARK (2 of 3)"),
        (80, "GRAYSCALE (3 of 3)"),
        (90, "Writing 900 x 700 pixels as JPEG"),
        (95, "Storing output/processed.jpg"),
    )


async def test_the_progress_moves_even_if_the_length_is_not_known(server: FileServer) -> None:
    data = encoded(Image.effect_noise((900, 700), 90), "PNG")
    url = server.put("/a.png", Answer(data, chunked=True))
    outcome = await _run(url, RESIZE)
    percents = [percent for percent, _ in outcome.progress]
    assert percents == sorted(percents)
    assert percents[0] < 50
    assert outcome.progress[0].message == "Downloaded 0.1 MB"


async def test_operations_are_done_in_their_order(server: FileServer) -> None:
    """A watermark made before the picture shrinks shrinks with it."""
    url = server.put("/a.png", encoded(Image.new("RGB", (1024, 1024), (90, 90, 90)), "PNG"))
    after = await _made(url, THUMBNAIL, WATERMARK)
    before = await _made(url, WATERMARK, THUMBNAIL)
    assert after.size == before.size == (256, 256)
    assert after.tobytes() != before.tobytes()
    assert _darkest_and_lightest(after)[1] > 150


async def test_a_small_picture_is_not_enlarged(server: FileServer) -> None:
    url = server.put("/a.png", encoded(gradient((100, 60)), "PNG"))
    picture = await _made(url, RESIZE, THUMBNAIL)
    assert picture.tobytes() == gradient((100, 60)).tobytes()


@pytest.mark.parametrize("shade", [0, 127, 255])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
async def test_the_watermark_can_be_read_on_any_ground(server: FileServer, mode: str, shade: int) -> None:
    ground = Image.new("L", (800, 600), shade).convert(mode)
    picture = await _made(server.put("/a.png", encoded(ground, "PNG")), WATERMARK)
    assert picture.mode == mode
    low, high = _darkest_and_lightest(picture.crop((560, 500, 800, 600)))
    assert high - low > 60
    assert _darkest_and_lightest(picture.crop((0, 0, 560, 600))) == (shade, shade)


async def test_the_watermark_is_seen_where_the_picture_is_transparent(server: FileServer) -> None:
    url = server.put("/a.png", encoded(Image.new("RGBA", (800, 600), (0, 0, 0, 0)), "PNG"))
    picture = await _made(url, WATERMARK)
    assert 128 < _darkest_and_lightest(picture.getchannel("A").crop((560, 500, 800, 600)))[1] < 255


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (3000, 8), (40, 40)])
async def test_odd_sizes_go_through_everything(server: FileServer, size: tuple[int, int]) -> None:
    url = server.put("/a.png", encoded(gradient(size), "PNG"))
    for extension in FORMATS:
        await _made(url, WATERMARK, RESIZE, GRAYSCALE, THUMBNAIL, WATERMARK, path=f"/a.{extension}")


@pytest.mark.parametrize("text", ["", "© Ada Lovelace, 1843", "x" * 100, "日本", " "])
async def test_the_text_of_the_watermark_is_a_setting(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("GQL_JOBS_IMAGE_WATERMARK", text)
    plain = Image.new("RGB", (800, 600), "blue")
    picture = await _made(server.put("/a.png", encoded(plain, "PNG")), WATERMARK)
    assert (picture.tobytes() == plain.tobytes()) == (text.strip() == "")


async def test_a_transparent_picture_is_laid_on_white_for_jpeg(server: FileServer) -> None:
    for mode in ("RGBA", "LA"):
        clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0)).convert(mode)
        url = server.put("/a.png", encoded(clear, "PNG"))
        picture = await _made(url, RESIZE, path="/a.jpg")
        assert _pixel(picture, 30, 30) == (255, 255, 255, 255)


@pytest.mark.parametrize("extension", ["png", "webp", "avif"])
async def test_transparency_is_kept_where_the_format_has_it(server: FileServer, extension: str) -> None:
    for mode in ("RGBA", "LA"):
        half = Image.new("RGBA", (64, 64), (200, 200, 200, 128)).convert(mode)
        url = server.put("/a.png", encoded(half, "PNG"))
        picture = await _made(url, RESIZE, path=f"/a.{extension}")
        assert abs(_pixel(picture, 30, 30)[3] - 128) < 5


@pytest.mark.parametrize("operation", list(ImageOperation))
@pytest.mark.parametrize("extension", FORMATS)
async def test_the_picture_is_upright_and_says_nothing_of_its_origin(
    server: FileServer, extension: str, operation: ImageOperation
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 24.0)
    exif[0x8825] = exif.get_ifd(0x8825)
    stored = upright((800, 600)).transpose(Image.Transpose.ROTATE_90)
    secrets = {"comment": b"SecretComment", "xmp": b"<x:xmpmeta>SecretPlace</x:xmpmeta>", "dpi": (301, 301)}
    url = server.put("/a.jpg", encoded(stored, "JPEG", exif=exif, **secrets))
    (file,) = (await _run(url, operation, path=f"/a.{extension}")).artifacts.values()
    picture = Image.open(BytesIO(file.data))
    assert _pixel(picture, 5, 5)[1] < 80
    assert _pixel(picture, 5, picture.height - 5)[1] > 200
    assert dict(picture.getexif()) == {}
    assert set(picture.info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "loop",
        "background",
        "timestamp",
        "duration",
    }
    assert b"Secret" not in file.data


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=404), "answered 404"),
        (Answer(b"<html>"), "no picture"),
        (Answer(b""), "no picture"),
        (Answer(encoded(gradient(), "JPEG")[:3000]), "broken"),
        (Answer(bomb(50_000, 50_000)), "the limit"),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), "not fetched"),
        (Answer(status=302, headers={"Location": "http://10.0.0.1/"}), "private address"),
        (Answer(b"", length=60 << 20, hangs=True), "62914560 bytes"),
    ],
)
async def test_what_can_never_work_is_permanent_and_leaves_nothing(
    server: FileServer, answer: Answer, message: str
) -> None:
    outcome = await _run(server.put("/a", answer), RESIZE)
    _assert_permanent(outcome, message)
    assert outcome.artifacts == {}


async def test_what_may_go_away_is_transient(server: FileServer) -> None:
    url = server.put("/a", Answer(status=429, headers={"Retry-After": "3"}))
    error = (await _run(url, RESIZE)).error
    assert error is not None
    assert (error.kind, error.retry_after) == (ErrorKind.TRANSIENT, 3)


async def test_this_host_is_out_of_reach_unless_a_setting_allows_it(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GQL_JOBS_DOWNLOAD_ALLOW_LOOPBACK")
    url = server.put("/a", encoded(gradient(), "JPEG"))
    _assert_permanent(await _run(url, RESIZE), "loopback")
    environment_settings.cache_clear()
    monkeypatch.setenv("GQL_JOBS_DOWNLOAD_ALLOW_PRIVATE_NETWORKS", "true")
    assert (await _run(url, RESIZE)).result.width == 400


async def test_the_limits_are_settings(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.put("/a", encoded(gradient(), "JPEG"))
    for variable, value, message in (
        ("DOWNLOAD_MAX_BYTES", "1000", "the limit is 1000"),
        ("IMAGE_MAX_PIXELS", "119999", "the limit is 119999"),
        ("DOWNLOAD_MAX_REDIRECTS", "0", "more than 0 times"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(f"GQL_JOBS_{variable}", value)
            environment_settings.cache_clear()
            if "REDIRECTS" in variable:
                url = server.put("/b", Answer(status=302, headers={"Location": "/a"}))
            _assert_permanent(await _run(url, RESIZE), message)


async def test_a_picture_too_wide_for_its_format_is_permanent(server: FileServer) -> None:
    url = server.put("/a.png", encoded(Image.new("L", (20_000, 10)), "PNG"))
    _assert_permanent(await _run(url, GRAYSCALE, path="/a.webp"), "WEBP cannot hold 20000 pixels in a row")
