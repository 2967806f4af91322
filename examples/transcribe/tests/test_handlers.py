"""Each handler by itself, without a server."""

from pathlib import Path

import pytest

from gql_jobs.testing import run_handler
from transcribe.handlers import write_subtitles
from transcribe.jobs import Line, Subtitles
from transcribe.sound import Recogniser, UnreadableVideo, parts_of_sound, sound_of

MEETING = Path(__file__).parent.parent / "media" / "meeting.mp4"
SAID = [
    "good morning and welcome the meeting begins at nine o'clock",
    "please bring the report we will talk about the new house by the river",
    "the next meeting will be on friday we will see you again next week",
]


def test_sound_is_cut_where_nobody_speaks() -> None:
    parts = list(parts_of_sound(sound_of(MEETING)))
    assert [round(part.begin) for part in parts] == [0, 5, 11]
    assert [round(part.end) for part in parts] == [4, 10, 15]


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(UnreadableVideo):
        sound_of(tmp_path / "notes.mp4")


def test_what_is_said_is_understood() -> None:
    recogniser = Recogniser()
    assert [recogniser.text_of(part.as_wav()) for part in parts_of_sound(sound_of(MEETING))] == SAID


def test_subtitles_say_each_line_at_its_time() -> None:
    lines = [Line(begin=0.06, end=4.08, text="good morning"), Line(begin=3605.2, end=3609.54, text="good bye")]
    outcome = run_handler(write_subtitles, Subtitles(lines=lines))
    assert outcome.result.files == ["subtitles.srt", "subtitles.vtt"]
    assert outcome.artifacts["subtitles.srt"].data.decode() == (
        "1\n00:00:00,060 --> 00:00:04,080\ngood morning\n\n2\n01:00:05,200 --> 01:00:09,540\ngood bye\n"
    )
    assert outcome.artifacts["subtitles.vtt"].data.startswith(b"WEBVTT\n\n00:00:00.060 --> 00:00:04.080\n")
