"""The command that changes a job which has not started, and the payload that it is given, as a retry is."""

from typing import TYPE_CHECKING, Any

import click

from gql_jobs.jobs.model import JobPriority
from gql_jobs.terminal.command_line import MOMENT_AHEAD, Exit, of_the_api

if TYPE_CHECKING:
    from gql_jobs.terminal.client import ApiClient
    from gql_jobs.terminal.output import Output

_NOW = "now"


@click.command("edit", short_help="Change a job that has not started.")
@click.argument("job_id", metavar="ID")
@click.option(
    "--run-at", type=MOMENT_AHEAD, help="Not before: 2030-01-31T12:00Z, or from now 30min; `now` for at once."
)
@click.option("--priority", type=click.Choice([one.name for one in JobPriority], case_sensitive=False))
@click.option("--tag", "tags", multiple=True, help="In the place of all its tags. Repeatable.")
@click.option("--no-tags", is_flag=True, help="Take all its tags away.")
@click.option(
    "--payload", metavar="JSON", help="In the place of its payload: @payload.json, - for standard input, or JSON."
)
@of_the_api
def edit_command(
    api: "ApiClient",
    output: "Output",
    *,
    job_id: str,
    run_at: str | None,
    priority: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    payload: str | None,
) -> int:
    """Change when the job ID runs, how urgently, with what payload, and its tags; what is not given stays as it is.

    A job that has started is refused, and nothing is done where nothing would be another.
    """
    if tags and no_tags:
        raise click.UsageError("--tag gives tags, and --no-tags takes them away.")
    changes: dict[str, Any] = {}
    if run_at is not None:
        changes["runAt"] = None if run_at.lower() == _NOW else run_at
    if priority is not None:
        changes["priority"] = priority.upper()
    if tags or no_tags:
        changes["tags"] = list(tags)
    if payload is not None:
        changes["rawPayload"] = payload_text(payload)
    if not changes:
        raise click.UsageError("Nothing is to be changed: give --run-at, --priority, --tag, --no-tags or --payload.")
    job = api.update(job_id, changes)
    output.json(job) if output.as_json else output.jobs([job])
    return Exit.DONE


def payload_text(given: str) -> str:
    """Return the JSON text that an option gives: in a file (@payload.json), in standard input (-), or as such.

    Its numbers stay as they are written.

    :raises UsageError: if it cannot be read, or is no JSON object.
    """
    from gql_jobs.terminal.payload_source import is_file, payload_in, text_in  # noqa: PLC0415

    text, shown = text_in(given.removeprefix("@")) if is_file((given,)) else (given.encode(), "The payload")
    payload_in(text, shown)
    return text.decode()
