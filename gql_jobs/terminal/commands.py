"""The commands that watch and steer jobs: what each is given, and what it asks and writes.

What takes more than that is imported by the command that needs it: this module is read by every command line.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gql_jobs.jobs.model import DependencyPolicy, JobPriority, JobStatus
from gql_jobs.jobs.unique_keys import KeyPolicy
from gql_jobs.terminal.command_line import EVERY_STATE, MOMENT_AHEAD, Exit, code_of, filtered, of_the_api
from gql_jobs.terminal.edit_command import edit_command, payload_text
from gql_jobs.terminal.queue_commands import QUEUE_COMMANDS
from gql_jobs.terminal.schedule_commands import schedules_command

if TYPE_CHECKING:
    from gql_jobs.terminal.client import ApiClient
    from gql_jobs.terminal.output import Output

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OUTCOMES = {"COMPLETED": Exit.DONE, "DEAD_LETTER": Exit.DEAD_LETTER, "CANCELLED": Exit.CANCELLED}


@click.command("job", short_help="Follow a job to its end.")
@click.argument("id")
@click.option("--no-follow", is_flag=True, help="Show it as it is, and end.")
@of_the_api
def job_command(api: "ApiClient", output: "Output", *, id: str, no_follow: bool) -> int:  # noqa: A002 - the argument
    """Show a job and follow it to its end, also across a restart of the API.

    Exit code: 0 completed, 3 dead letter, 4 cancelled, 5 no such job; 6 not ended yet, with --no-follow.
    """
    if no_follow or not output.as_json:
        job = api.job(id)
        if job is None:
            output.note(f"Error: There is no job {id[:100]!r}.")
            return Exit.UNKNOWN
        if no_follow:
            output.json(job) if output.as_json else output.job(job)
            return _OUTCOMES.get(job["status"], Exit.UNFINISHED)
        shown = (
            *("id", "type", "queue", "priority", "tags", "createdBy", "createdAt", "origin", "parent", "waiting"),
            "rawPayload",
        )
        output.job({name: job[name] for name in shown})
    return _follow(api, output, id)


def _follow(api: "ApiClient", output: "Output", job_id: str) -> int:
    """Write the events of a job until it has ended, then its result; return the exit code for its outcome."""
    last: dict[str, Any] = {"job": {"status": None}}
    with output.bar():
        for event in api.progress(job_id, output.note):
            last = event
            output.event(event, of_one=True)
            if event["job"]["status"] in _OUTCOMES:
                break
    if last["job"]["status"] not in _OUTCOMES:
        # The stream was cut behind the last event, and the job has expired since.
        job = api.job(job_id)
        return Exit.UNKNOWN if job is None else _OUTCOMES.get(job["status"], Exit.UNFINISHED)
    result = last["job"].get("rawResult")
    if result is not None and not output.as_json:
        output.job({"rawResult": result})
    return _OUTCOMES[last["job"]["status"]]


@click.command("tail", short_help="Write events of jobs as they happen.")
@filtered(*EVERY_STATE)
@click.option("--after", metavar="CURSOR", help="Go on behind this event; else with those from now on.")
@of_the_api
def tail_command(api: "ApiClient", output: "Output", *, wanted: dict[str, Any], after: str | None) -> int:
    """Write the events of all jobs that match, until Ctrl-C, also across a restart of the API."""
    for event in api.events(wanted, after, output.note):
        output.event(event, of_one=False)
    return Exit.DONE


@click.command("list", short_help="List jobs.")
@filtered(*EVERY_STATE)
@click.option("--first", type=click.IntRange(0, 500), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="CURSOR", help="Go on behind this page.")
@of_the_api
def list_command(api: "ApiClient", output: "Output", *, wanted: dict[str, Any], first: int, after: str | None) -> int:
    """List the jobs that match, the newest first."""
    page = api.jobs(wanted, first, after)
    if output.as_json:
        for edge in page["edges"]:
            output.json({**edge["node"], "cursor": edge["cursor"]})
    else:
        output.jobs([edge["node"] for edge in page["edges"]])
    if page["pageInfo"]["hasNextPage"] and page["pageInfo"]["endCursor"]:
        output.note(f"There are more: repeat this with --after {page['pageInfo']['endCursor']}")
    return Exit.DONE


@click.command("create", short_help="Create a job.")
@click.argument("words", nargs=-1, metavar="TYPE [@FILE | - | KEY=VALUE]...")
@click.option("--from", "origin", metavar="ID", help="Made of this job: its type, payload, priority, tags, retries.")
@click.option("--edit", is_flag=True, help="Change the payload in $VISUAL or $EDITOR before.")
@click.option("--key", metavar="KEY", help="Idempotency key: with the same one the same job is returned.")
@click.option("--unique", metavar="KEY", help="What no other job has until this one has ended.")
@click.option(
    "--if-taken",
    type=click.Choice([one.name for one in KeyPolicy], case_sensitive=False),
    help="While another job has the key of --unique: that one (RETURN), an error, or its payload replaced.",
)
@click.option(
    "--max-delay", type=int, metavar="SECONDS", help="With REPLACE, how far its start is pushed back at most."
)
@click.option("--priority", type=click.Choice([one.name for one in JobPriority], case_sensitive=False))
@click.option("--run-at", type=MOMENT_AHEAD, help="Not before: 2030-01-31T12:00Z, or from now 90s, 30min, 2h, 1d.")
@click.option("--tag", "tags", multiple=True, help="Repeatable.")
@click.option("--max-retries", type=int, help="Attempts after the first.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long one attempt may take.")
@click.option("--after", "after", multiple=True, metavar="ID", help="Run after this job has completed. Repeatable.")
@click.option(
    "--after-policy",
    type=click.Choice([one.name for one in DependencyPolicy], case_sensitive=False),
    help="When one of these does not complete: this one is cancelled (CANCEL), or run all the same.",
)
@click.option(
    "--start-before", type=MOMENT_AHEAD, help="Cancel it if it has not started by then, such as 30min from now."
)
@click.option("--concurrency-key", metavar="KEY", help="What it shares limits per key by.")
@click.option("--follow", is_flag=True, help="Follow it to its end, as `gql-jobs job` does.")
@of_the_api
def create_command(
    api: "ApiClient",
    output: "Output",
    *,
    words: tuple[str, ...],
    origin: str | None,
    edit: bool,
    key: str | None,
    unique: str | None,
    if_taken: str | None,
    max_delay: int | None,
    priority: str | None,
    run_at: str | None,
    tags: tuple[str, ...],
    max_retries: int | None,
    timeout: float | None,
    after: tuple[str, ...],
    after_policy: str | None,
    start_before: str | None,
    concurrency_key: str | None,
    follow: bool,
) -> int:
    """Create a job of TYPE and write its id.

    The payload is a JSON file (@payload.json), standard input (-), or pairs: key=value, a.b=value for what is nested,
    key:=value for JSON. Values of pairs are texts, unless the type's payload has something else there.

    With --from ID all of this is that of another job, TYPE too, but for what is given: pairs change its payload, a file
    takes its place, and --tag takes the place of all its tags.
    """
    from gql_jobs.terminal.creation import create_job, key_of_options  # noqa: PLC0415

    options = {
        "key": key_of_options(unique, if_taken, max_delay),
        "idempotencyKey": key,
        "priority": priority,
        "runAt": run_at,
        "tags": [*tags] or None,
        "maxRetries": max_retries,
        "timeoutSeconds": timeout,
        "after": [*after] or None,
        "afterPolicy": after_policy,
        "startBefore": start_before,
        "concurrencyKey": concurrency_key,
    }
    given = {name: value for name, value in options.items() if value is not None}
    created = create_job(api, output, words, given, origin=origin, edit=edit)
    if isinstance(created, Exit):
        return created
    job = created["job"]
    if created["deduplicated"]:
        output.note("It is not new: the key had made this job before, or belongs to it.")
    if output.as_json:
        output.json(created)
    elif output.is_rich:
        output.jobs([job])
    else:
        output.line(job["id"])
    return _follow(api, output, job["id"]) if follow else Exit.DONE


@click.command("dead-letters", short_help="List dead letters in groups of those that failed alike.")
@filtered()
@click.option("--first", type=click.IntRange(1, 100), default=20, show_default=True, help="How many groups at most.")
@of_the_api
def dead_letters_command(api: "ApiClient", output: "Output", *, wanted: dict[str, Any], first: int) -> int:
    """List the dead letters that match in groups of those that failed alike, the largest group first.

    The key of a group is for `gql-jobs retry --all --group KEY`.
    """
    groups = api.dead_letter_groups(wanted, first)
    if output.as_json:
        for one in groups:
            output.json(one)
    else:
        output.groups(groups)
        if groups and output.is_rich:
            output.note(
                "One of a group tells whether it can be retried: gql-jobs retry --all --group KEY --first 1 --follow"
            )
    if len(groups) == first:
        output.note(f"There may be more groups: repeat this with a larger --first, or a filter; {first} are shown.")
    return Exit.DONE


def _of_many(action: str) -> Callable[[_Command], _Command]:
    """Give a command the options of what is done to many jobs."""
    options = (
        click.option("--first", type=click.IntRange(min=1), metavar="N", help=f"{action} only N of them, the oldest."),
        click.option(
            "--max-per-second",
            type=click.FloatRange(0, 1000, min_open=True),
            metavar="RATE",
            help="Jobs a second, at most.",
        ),
        click.option("--follow", is_flag=True, help="With --first 1: follow that job to its end, as `gql-jobs job`."),
        click.option("--yes", is_flag=True, help="Do not ask before."),
    )

    def decorate(command: _Command) -> _Command:
        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


@click.command("retry", short_help="Run dead letters and cancelled jobs again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that match the filter; DEAD_LETTER unless it names states.")
@filtered("DEAD_LETTER", "CANCELLED")
@click.option("--group", metavar="KEY", help="Of this group of `gql-jobs dead-letters`.")
@click.option(
    "--payload", metavar="JSON", help="Of one job, another payload: @payload.json, - for standard input, or JSON."
)
@_of_many("Retry")
@of_the_api
def retry_command(
    api: "ApiClient",
    output: "Output",
    *,
    ids: tuple[str, ...],
    every: bool,
    wanted: dict[str, Any],
    payload: str | None,
    **given: Any,
) -> int:
    """Run jobs again that are dead letters or cancelled: those with an ID, or with --all those that match.

    With --all it is said how many jobs match, and asked before anything is done. Ctrl-C stops before the next job.

    Exit code of --all: 0 done, 7 some failed, 8 stopped by somebody else, 9 the API's process has ended, 130 Ctrl-C.
    """
    if payload is not None:
        if every or len(ids) != 1:
            raise click.UsageError("--payload is for one job: give its id.")
        text = payload_text(payload)
        return _each(output, lambda job_id: api.retry(job_id, text), ids, lambda job, _: _write(output, job))
    if every:
        wanted = {"status": ["DEAD_LETTER"], **wanted}
    return _each_or_all(api, output, "RETRY", ids, every=every, wanted=wanted, **given)


@click.command("cancel", short_help="Cancel jobs.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that match the filter and have not ended.")
@filtered(*(one.name for one in JobStatus if not one.is_terminal))
@_of_many("Cancel")
@of_the_api
def cancel_command(
    api: "ApiClient", output: "Output", *, ids: tuple[str, ...], every: bool, wanted: dict[str, Any], **given: Any
) -> int:
    """Cancel jobs that have not ended yet: those with an ID, or with --all those that match.

    With --all it is said how many jobs match, and asked before anything is done. Ctrl-C stops before the next job.

    Exit code of --all: 0 done, 7 some failed, 8 stopped by somebody else, 9 the API's process has ended, 130 Ctrl-C.
    """
    return _each_or_all(api, output, "CANCEL", ids, every=every, wanted=wanted, **given)


@click.command("delete", short_help="Delete jobs for good.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All that match the filter and do not run.")
@filtered(*(one.name for one in JobStatus if one is not JobStatus.PROCESSING))
@_of_many("Delete")
@of_the_api
def delete_command(
    api: "ApiClient", output: "Output", *, ids: tuple[str, ...], every: bool, wanted: dict[str, Any], **given: Any
) -> int:
    """Delete jobs for good, with everything that was stored of them: those with an ID, or with --all those that match.

    A job that runs is refused: cancel it first. With --all it is said how many jobs match, and asked before anything is
    done. Ctrl-C stops before the next job.

    Exit code of --all: 0 done, 7 some failed, 8 stopped by somebody else, 9 the API's process has ended, 130 Ctrl-C.
    """
    if given.pop("follow"):
        raise click.UsageError("There is nothing to follow of a job that is deleted.")
    return _each_or_all(api, output, "DELETE", ids, every=every, wanted=wanted, follow=False, **given)


def _each_or_all(
    api: "ApiClient",
    output: "Output",
    action: str,
    ids: tuple[str, ...],
    *,
    every: bool,
    wanted: dict[str, Any],
    follow: bool,
    **given: Any,
) -> int:
    if every == bool(ids):
        raise click.UsageError("Give either the ids of jobs or --all.")
    if not every:
        if wanted or follow or any(given.values()):
            raise click.UsageError("A filter, --group, --first, --max-per-second, --follow and --yes are for --all.")
        if action == "DELETE":
            return _each(output, api.delete, ids, lambda outcome, job_id: _write_deletion(output, outcome, job_id))
        return _each(output, api.retry if action == "RETRY" else api.cancel, ids, lambda job, _: _write(output, job))
    if follow and given["first"] != 1:
        raise click.UsageError("--follow is for --first 1: one job is followed.")
    from gql_jobs.terminal.bulk_action import act_on_all  # noqa: PLC0415

    follower = functools.partial(_follow, api, output) if follow else None
    return act_on_all(api, output, action, wanted, follow=follower, **given)


def _each(
    output: "Output",
    act: Callable[[str], dict[str, Any]],
    ids: tuple[str, ...],
    write: Callable[[dict[str, Any], str], None],
) -> int:
    """Do one thing to each job, whatever becomes of the others; return the code of the first that was refused.

    :param write: writes what has come of it for the job of an id.
    """
    from gql_jobs.terminal.client import Refused  # noqa: PLC0415

    first_code = Exit.DONE
    for job_id in ids:
        try:
            outcome = act(job_id)
        except Refused as refused:
            output.refusal(refused)
            first_code = first_code or code_of(refused.codes)
            continue
        write(outcome, job_id)
    return first_code


def _write(output: "Output", job: dict[str, Any]) -> None:
    output.json(job) if output.as_json else output.jobs([job])


def _write_deletion(output: "Output", outcome: dict[str, Any], job_id: str) -> None:
    if output.as_json:
        output.json({"id": job_id, **outcome})
    elif outcome["deleted"]:
        output.line(job_id)
    else:
        output.note(f"The job {job_id} had expired or was deleted before.")


@click.command("workers", short_help="List the workers.")
@of_the_api
def workers_command(api: "ApiClient", output: "Output") -> int:
    """List the workers that run at the moment."""
    from gql_jobs.terminal.output import age_of  # noqa: PLC0415

    workers = api.workers()
    if output.as_json:
        for one in workers:
            output.json(one)
        return Exit.DONE
    rows = [
        (
            *(one["id"], one["hostname"], f"{one['running']}/{one['concurrency']}", ",".join(one["queues"])),
            *(age_of(one["startedAt"]), age_of(one["lastSeenAt"])),
        )
        for one in workers
    ]
    output.table(("WORKER", "HOST", "RUNNING", "QUEUES", "UP", "HEARD OF"), rows, ("HOST", "UP"))
    for one in workers:
        for unable in one["unable"]:
            output.note(f"{one['id']} cannot run {unable['jobType']}: {unable['reason']}")
    return Exit.DONE


COMMANDS = (
    *(job_command, tail_command, create_command, list_command),
    *(
        dead_letters_command,
        edit_command,
        retry_command,
        cancel_command,
        delete_command,
        *QUEUE_COMMANDS,
        schedules_command,
        workers_command,
    ),
)
"""What ``gql-jobs`` has for those who watch and steer jobs."""
