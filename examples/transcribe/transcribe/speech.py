"""Recognises the parts of videos: what the processes for CPU-bound handlers run."""

from typing import Protocol

from gql_jobs import JobContext, WorkerState, worker_startup
from gql_jobs.client import Client
from transcribe.jobs import Line, Recognised, Recognition
from transcribe.sound import Recogniser


class Loaded(Protocol):
    """What each process keeps from one part to the next."""

    recogniser: Recogniser
    client: Client


@worker_startup
def load_model(state: WorkerState) -> None:
    """Load the model of the recogniser, which takes longer than some parts do."""
    state.recogniser = Recogniser()
    state.client = Client()


def recognise(context: JobContext[Loaded], payload: Recognition) -> Recognised:
    """Write down what is said in one part of a video."""
    state = context.state
    files = {file.name: file for file in state.client.job(payload.transcription).artifacts()}
    text = state.recogniser.text_of(files[payload.part].read())
    return Recognised(line=Line(begin=payload.begin, end=payload.end, text=text))
