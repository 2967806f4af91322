"""Are the streams as they have to be, and is the server able to hold them?"""

from gql_jobs.doctor.finding import Finding
from gql_jobs.log.connection import ApiError, Connection
from gql_jobs.log.topology import OLDEST_SERVER, dead_letter_stream, is_too_old, jobs_stream, missing, stream_info
from gql_jobs.settings import Settings

CHECK = "streams"


async def check_streams(connection: Connection, settings: Settings) -> list[Finding]:
    """The server's version, and each stream against what the API would make. Needs no stream to be there."""
    found: list[Finding] = []
    if is_too_old(connection):
        oldest = ".".join(map(str, OLDEST_SERVER))
        found.append(
            Finding(
                CHECK,
                f"The NATS server is version {connection.server_version}.",
                f"Update it to {oldest} or newer.",
            )
        )
    for wanted in (jobs_stream(settings.replicas), dead_letter_stream(settings.replicas)):
        name = wanted["name"]
        try:
            present = (await stream_info(connection, name)).config
        except ApiError as error:
            found.append(
                Finding(
                    CHECK, f"The stream {name} cannot be had: {error.description}.", "Start an API, which makes it."
                )
            )
            continue
        found += [
            Finding(
                CHECK,
                f"The stream {name} has {key} {present.get(key)!r}, not {wanted[key]!r}.",
                "Nothing is lost by that yet; restart an API process with these settings, which updates the stream.",
            )
            for key in missing(present, wanted)
        ]
    return found
