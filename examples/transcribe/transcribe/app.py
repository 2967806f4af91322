"""The web application: takes videos, keeps a list of them in SQLite, and serves the page.

A video and its job belong together: the row of the one and the outbox's row of the other are written in one
transaction, so there is neither a video that nobody transcribes nor a job without a video. ``gql-jobs outbox`` hands
the jobs on.
"""

import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, UploadFile
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from gql_jobs import outbox
from transcribe.jobs import UPLOADS, Transcription

DATABASE = os.environ.get("TRANSCRIBE_DATABASE", "sqlite:///videos.db")
PAGE = Path(__file__).parent.parent / "web" / "dist"
"""The page, as ``npm run build`` makes it."""
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


class Table(DeclarativeBase):
    """The tables of the application, the outbox's among them."""


outbox.table(Table.metadata)
engine = create_engine(DATABASE)


class Video(Table):
    """A video that somebody has uploaded, and the job that transcribes it."""

    __tablename__ = "videos"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    uploaded_at: Mapped[datetime]
    job_id: Mapped[str]


class ShownVideo(BaseModel):
    """A video in the list of the page, which watches the job by its id."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    job_id: str


def transaction() -> Iterator[Session]:
    """Give a route a session, whose changes are written once it has returned and not if it raises."""
    with Session(engine) as session, session.begin():
        yield session


# With the scope of the function, the page is not told of a video before it is written.
InTransaction = Annotated[Session, Depends(transaction, scope="function")]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Make what is missing before the first request."""
    UPLOADS.mkdir(parents=True, exist_ok=True)
    Table.metadata.create_all(engine)
    yield
    engine.dispose()


app = FastAPI(title="Transcribe", lifespan=lifespan)


@app.get("/videos")
def videos(session: InTransaction) -> list[ShownVideo]:
    """Return all videos, the newest first."""
    return [ShownVideo.model_validate(one) for one in session.scalars(select(Video).order_by(Video.id.desc()))]


@app.post("/videos", status_code=201)
def upload(session: InTransaction, file: UploadFile) -> ShownVideo:
    """Take a video, and have it transcribed."""
    suffix = Path(file.filename or "").suffix.lower()
    if not SUFFIX.fullmatch(suffix):
        raise HTTPException(422, "The name of a video ends like .mp4.")
    stored = f"{uuid.uuid4()}{suffix}"
    with (UPLOADS / stored).open("wb") as kept:
        shutil.copyfileobj(file.file, kept)
    job_id = outbox.create(session, Transcription(video=stored), tags=["upload"])
    video = Video(name=file.filename, uploaded_at=datetime.now(UTC), job_id=job_id)
    session.add(video)
    session.flush()
    return ShownVideo.model_validate(video)


if PAGE.is_dir():
    app.mount("/", StaticFiles(directory=PAGE, html=True))
