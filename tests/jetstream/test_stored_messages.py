"""Single messages, read from the leader and removed by sequence."""

import pytest

from gql_jobs.jetstream.client import EXPECTED_SEQ_HEADER, EXPECTED_SUBJECT_HEADER
from gql_jobs.jetstream.connection import Connection
from gql_jobs.jetstream.errors import ApiError
from gql_jobs.jetstream.stored_messages import delete_message, last_message, messages_of
from gql_jobs.log import codec
from gql_jobs.log.codec import JobMessage
from gql_jobs.log.commands import creation
from gql_jobs.log.job_log import JobLog
from tests.by_hand import stored
from tests.stories import JOB, OTHER, spec


async def test_a_message_is_read_with_its_headers(job_log: JobLog, connection: Connection) -> None:
    await job_log.append(creation(JOB, spec()))
    message = await last_message(connection, codec.JOBS_STREAM, codec.job_subjects(JOB))
    assert message is not None
    assert message.header(EXPECTED_SEQ_HEADER) == "0"
    assert message.header(EXPECTED_SUBJECT_HEADER) == codec.job_subjects(JOB)
    assert message.header("Nats-Nothing") is None
    assert JobMessage.of(message).nonce == message.header(codec.NONCE_HEADER)


async def test_nothing_that_matches_is_no_error(connection: Connection) -> None:
    assert await last_message(connection, codec.JOBS_STREAM, codec.job_subjects(JOB)) is None
    assert await stored(connection) == []


async def test_a_history_is_read_from_a_sequence_on_and_is_one_jobs_alone(
    job_log: JobLog, connection: Connection
) -> None:
    await job_log.append_in_order([creation(job_id, spec()) for job_id in (JOB, OTHER)])
    assert [message.seq async for message in messages_of(connection, codec.JOBS_STREAM, codec.job_subjects(OTHER))] == [
        2
    ]
    assert [message.seq async for message in messages_of(connection, codec.JOBS_STREAM, codec.ALL_JOBS, 2)] == [2]


async def test_a_message_is_removed_once_and_one_that_is_gone_is_no_error(
    job_log: JobLog, connection: Connection
) -> None:
    for _ in range(5):
        await connection.request(codec.note_subject(JOB), b"")
    for seq in (3, 3, 1, 1, 2, 2, 5, 5):
        await delete_message(connection, codec.JOBS_STREAM, seq)
    assert [message.seq for message in await stored(connection)] == [4]
    assert await job_log.last(codec.note_subject(JOB)) is not None


async def test_a_removal_that_fails_for_another_reason_is_an_error(connection: Connection) -> None:
    with pytest.raises(ApiError, match="stream not found"):
        await delete_message(connection, "NO-SUCH-STREAM", 1)
