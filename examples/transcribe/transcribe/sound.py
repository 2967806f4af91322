"""The sound of videos: read by FFmpeg, cut where nobody speaks, and understood by PocketSphinx.

Sound is 16 000 signed 16-bit numbers a second, one channel: what the recogniser was trained with.
"""

import io
import wave
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
from av.error import InvalidDataError
from pocketsphinx import Decoder

RATE = 16_000
_FRAME = RATE // 50
"""Numbers in a frame of 20 ms, the unit in which pauses are looked for."""
_SILENT_BELOW = 300
"""The mean deviation of a frame that counts as silence; speech has thousands."""
_PAUSE = 0.6
"""Seconds of silence at which the sound is cut."""


class Part(NamedTuple):
    """Sound between two pauses; ``begin`` and ``end`` in seconds from the beginning of the video."""

    begin: float
    end: float
    samples: "array[int]"

    def as_wav(self) -> bytes:
        """Return the part as a WAV file."""
        file = io.BytesIO()
        with wave.open(file, "wb") as written:
            written.setnchannels(1)
            written.setsampwidth(2)
            written.setframerate(RATE)
            written.writeframes(self.samples.tobytes())
        return file.getvalue()


class UnreadableVideo(Exception):
    """A file is no video, or has no sound; the message is a sentence."""


def sound_of(video: Path) -> "array[int]":
    """Return the sound of a video.

    :raises UnreadableVideo: if the file is no video, or has no sound.
    :raises OSError: if there is no such file.
    """
    samples = array("h")
    try:
        with av.open(str(video)) as opened:
            if not opened.streams.audio:
                raise UnreadableVideo("The video has no sound.")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            # The last piece comes out when there is nothing more to put in.
            for frame in chain(opened.decode(audio=0), [None]):
                for piece in resampler.resample(frame):
                    samples.frombytes(bytes(piece.planes[0])[: piece.samples * 2])
    except (InvalidDataError, EOFError) as error:
        raise UnreadableVideo("The file is no video that can be read.") from error
    return samples


def parts_of_sound(samples: "array[int]", longest: float = 30.0) -> Iterator[Part]:
    """Yield the stretches in which somebody speaks, cut at pauses, and at ``longest`` seconds where there is none."""
    begin: int | None = None
    quiet = 0
    for place in range(0, len(samples), _FRAME):
        frame = samples[place : place + _FRAME]
        if sum(map(abs, frame)) / len(frame) >= _SILENT_BELOW:
            begin, quiet = place if begin is None else begin, 0
        elif begin is not None:
            quiet += len(frame)
        if begin is not None and (quiet >= _PAUSE * RATE or place - begin >= longest * RATE):
            yield _part(samples, begin, place + len(frame) - max(quiet - _FRAME * 10, 0))
            begin, quiet = None, 0
    if begin is not None:
        yield _part(samples, begin, len(samples))


def _part(samples: "array[int]", begin: int, end: int) -> Part:
    # A recogniser wants to hear the silence before the first word.
    begin = max(0, begin - _FRAME * 10)
    return Part(begin / RATE, end / RATE, samples[begin:end])


class Recogniser:
    """Understands English speech. Its model takes a moment to load, so a process makes one and keeps it."""

    def __init__(self) -> None:
        self._decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def text_of(self, wav: bytes) -> str:
        """Return what is said in a WAV file of ours; an empty text if nothing is understood."""
        with wave.open(io.BytesIO(wav)) as file:
            samples = file.readframes(file.getnframes())
        self._decoder.start_utt()
        self._decoder.process_raw(samples, full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return str(heard.hypstr) if heard is not None else ""
