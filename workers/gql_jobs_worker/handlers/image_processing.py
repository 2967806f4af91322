"""The handler of the job type `image_processing`. Needs the extra ``images``.

Only this module and the package ``images`` may import those libraries. It runs in a process of its own, so decoding
and encoding may block. An attempt that is repeated does everything again and replaces the artifact.
"""

import tempfile
from pathlib import Path

from gql_jobs.jobs.handler import JobContext
from gql_jobs.jobs.model import artifact_name
from gql_jobs.jobs.types.image_processing import ImageProcessingPayload, ImageProcessingResult, image_format
from gql_jobs.settings import Settings
from gql_jobs_worker.handlers import environment_settings
from gql_jobs_worker.images.download import DownloadLimits, ReportReceived, download
from gql_jobs_worker.images.operations import first_box, steps
from gql_jobs_worker.images.pictures import read_picture, write_picture
from gql_jobs_worker.images.transport import AllowedNetworks

_DOWNLOADED, _READ, _CHANGED, _WRITTEN = 50, 60, 90, 95
"""Progress in percent at the end of each part of the work."""


async def process_image(context: JobContext, payload: ImageProcessingPayload) -> ImageProcessingResult:
    """Fetch a picture, change it as asked, and keep it as an artifact of the job.

    :raises PermanentError: if the file is no picture, is too large, or may not be fetched.
    :raises TransientError: if the network, the server or the artifact store failed in a way that may pass.
    """
    config = environment_settings()
    name = artifact_name(payload.output_path)
    extension = Path(name).suffix
    # The download has no name, so that nothing of it is left when this process is killed.
    with tempfile.TemporaryFile() as source, tempfile.NamedTemporaryFile(suffix=extension) as made:
        await download(payload.image_url, source, _limits(config), _reporter(context))
        context.progress(_DOWNLOADED, "Reading the picture")
        picture = read_picture(source, config.image_max_pixels, first_box(payload.operations))
        todo = steps(payload.operations, config.image_watermark)
        for done, (operation, step) in enumerate(todo):
            percent = _READ + (_CHANGED - _READ) * done / len(todo)
            context.progress(percent, f"{operation} ({done + 1} of {len(todo)})")
            picture = step(picture)
        kind = image_format(name)
        context.progress(_CHANGED, f"Writing {picture.width} x {picture.height} pixels as {kind}")
        path = Path(made.name)
        write_picture(picture, path, kind)
        context.progress(_WRITTEN, f"Storing {name}")
        artifact = await context.save_artifact(name, path)
    return ImageProcessingResult(
        url=context.artifact_url(name),
        width=picture.width,
        height=picture.height,
        size_bytes=artifact.size_bytes,
    )


def _limits(config: Settings) -> DownloadLimits:
    return DownloadLimits(
        bytes=config.download_max_bytes,
        seconds=config.download_timeout,
        redirects=config.download_max_redirects,
        networks=AllowedNetworks(
            loopback=config.download_allow_loopback, private=config.download_allow_private_networks
        ),
    )


def _reporter(context: JobContext) -> ReportReceived:
    """Return a callback that reports a download as progress; where its length is unknown, as if 4 MiB were left."""
    last = -1

    def report(received: int, total: int | None) -> None:
        nonlocal last
        share = received / total if total else received / (received + (4 << 20))
        percent = int(_DOWNLOADED * min(share, 1.0))
        if percent > last:
            last = percent
            of = f" of {total / 1e6:.1f}" if total else ""
            context.progress(percent, f"Downloaded {received / 1e6:.1f}{of} MB")

    return report
