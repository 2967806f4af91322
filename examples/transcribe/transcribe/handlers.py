"""What workers do for a video: cut it into parts, put the transcript together, write its subtitles.

The parts are recognised by ``transcribe.speech``, in processes of their own.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from gql_jobs import JobContext, PermanentError, WorkerState, worker_shutdown, worker_startup
from gql_jobs.client import AsyncClient, JobCancelled, JobFailed
from transcribe.jobs import (
    UPLOADS,
    Line,
    Recognised,
    Recognition,
    Subtitled,
    Subtitles,
    Transcript,
    Transcription,
)
from transcribe.sound import Part, UnreadableVideo, parts_of_sound, sound_of


class Opened(Protocol):
    """What each worker has opened for its handlers."""

    client: AsyncClient


@worker_startup
async def open_client(state: WorkerState) -> None:
    """Open the client by which transcriptions wait for their parts."""
    state.client = AsyncClient()


@worker_shutdown
async def close_client(state: WorkerState) -> None:
    """Close it."""
    await state.client.close()


async def transcribe(context: JobContext[Opened], payload: Transcription) -> Transcript:
    """Cut a video into parts, have each recognised, and put the transcript together."""
    context.progress(0, "Listening for pauses")
    try:
        parts = await asyncio.to_thread(_parts, UPLOADS / payload.video)
    except (UnreadableVideo, FileNotFoundError) as error:
        raise PermanentError(str(error)) from error
    children = []
    for number, part in enumerate(parts):
        name = f"parts/{number:04}.wav"
        await context.save_artifact(name, part.as_wav())
        # An attempt that comes after a lost one makes the same children again, which are those that it has already.
        asked = Recognition(transcription=context.job_id, part=name, begin=part.begin, end=part.end)
        children.append(await context.create(asked, key=name))
    lines = []
    for number, child in enumerate(children, 1):
        lines.append(await _line(context, child.id))
        context.progress(100 * number / len(children), f"{number} of {len(children)} parts")
    text = "\n".join(line.text for line in lines)
    await context.save_artifact("transcript.txt", text.encode())
    await context.create(Subtitles(lines=lines))
    return Transcript(text=text, parts=len(lines), url=context.artifact_url("transcript.txt"))


def _parts(video: Path) -> list[Part]:
    return list(parts_of_sound(sound_of(video)))


async def _line(context: JobContext[Opened], job_id: str) -> Line:
    try:
        recognised = await context.state.client.job(job_id, Recognised).result()
    except (JobFailed, JobCancelled) as error:
        raise PermanentError(f"A part was not recognised. {error}") from error
    return recognised.line


async def write_subtitles(context: JobContext[Opened], payload: Subtitles) -> Subtitled:
    """Write the subtitles as SubRip and as WebVTT."""
    numbered = enumerate(payload.lines, 1)
    subrip = "\n".join(f"{n}\n{_time(at.begin, ',')} --> {_time(at.end, ',')}\n{at.text}\n" for n, at in numbered)
    cues = "\n".join(f"{_time(at.begin, '.')} --> {_time(at.end, '.')}\n{at.text}\n" for at in payload.lines)
    await context.save_artifact("subtitles.srt", subrip.encode(), "application/x-subrip")
    await context.save_artifact("subtitles.vtt", f"WEBVTT\n\n{cues}".encode(), "text/vtt")
    return Subtitled(files=["subtitles.srt", "subtitles.vtt"])


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
