"""The job types of the application: what each is asked for, and what it answers.

The API, the workers and whoever creates jobs import this module. It names the handlers and imports none of them, so
only workers need the libraries that read videos and recognise speech.
"""

import os
from pathlib import Path

from pydantic import Field

from gql_jobs import Model, Payload, job_type

UPLOADS = Path(os.environ.get("TRANSCRIBE_UPLOADS", "uploads"))
"""The folder of videos, which the application and its workers share."""


class Line(Model):
    """What is said from one moment to another, in seconds from the beginning of the video."""

    begin: float = Field(ge=0)
    end: float = Field(ge=0)
    text: str


class Recognised(Model):
    """What was said in one part of a video."""

    line: Line


class Recognition(Payload[Recognised]):
    """The speech of one part of a video, which is an artifact of the job that has cut it out."""

    transcription: str = Field(description="The id of the job that has the part.")
    part: str = Field(description="The name of its artifact, a WAV file.")
    begin: float = Field(ge=0, description="Where the part begins, in seconds.")
    end: float = Field(ge=0)


class Subtitled(Model):
    """The names of the artifacts that were made."""

    files: list[str]


class Subtitles(Payload[Subtitled]):
    """Files of subtitles, in the formats that players and browsers read."""

    lines: list[Line]


class Transcript(Model):
    """All that is said in a video, and where it can be fetched as a text file."""

    text: str
    parts: int
    url: str


class Transcription(Payload[Transcript]):
    """The transcript of a video that was uploaded."""

    video: str = Field(pattern=r"^[0-9a-f-]{36}\.[a-z0-9]{1,8}$", description="Its file in the folder of uploads.")


job_type(
    "transcription",
    payload=Transcription,
    handler="transcribe.handlers:transcribe",
    timeout=3600,
    description="Cut a video into parts, have each recognised, and put the transcript together.",
)
# Recognition fills a core, so it has a queue, and with it workers, of its own: a transcription waits for its parts, and
# in one queue with them transcriptions could take all the places that the parts need.
job_type(
    "recognition",
    payload=Recognition,
    handler="transcribe.speech:recognise",
    queue="speech",
    cpu_bound=True,
    timeout=600,
    description="Write down what is said in one part of a video.",
)
job_type(
    "subtitles",
    payload=Subtitles,
    handler="transcribe.handlers:write_subtitles",
    description="Make subtitles of a transcript.",
)
