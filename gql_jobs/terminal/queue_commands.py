"""The commands that are about queues: list them, pause and resume them, and limit them."""

from typing import TYPE_CHECKING, Any

import click

from gql_jobs.jobs.errors import no_such_queue
from gql_jobs.jobs.limits import Limits
from gql_jobs.terminal.command_line import EVERY_STATE, MOMENT_AHEAD, Exit, of_the_api

if TYPE_CHECKING:
    from gql_jobs.terminal.client import ApiClient
    from gql_jobs.terminal.output import Output


@click.command("queues", short_help="List the queues and how many jobs stand where.")
@of_the_api
def queues_command(api: "ApiClient", output: "Output") -> int:
    """List the queues: how many of their jobs are in each state, and how many workers serve them."""
    _show(output, api.queues())
    return Exit.DONE


@click.command("pause", short_help="Have nothing of a queue start.")
@click.argument("queue")
@click.option("--reason", metavar="TEXT", help="Why, for all who wonder why their jobs wait.")
@click.option(
    "--until", type=MOMENT_AHEAD, help="When it goes on by itself: 2026-01-31T12:00Z, or from now 90s, 30min, 2h, 1d."
)
@of_the_api
def pause_command(api: "ApiClient", output: "Output", *, queue: str, reason: str | None, until: str | None) -> int:
    """Have no job of a QUEUE start any more, on any worker, until it is resumed.

    What runs may finish, and jobs can be created as ever. A queue that is paused already gets this reason and this end.
    """
    _show(output, [api.pause_queue(queue, reason, until)])
    return Exit.DONE


@click.command("resume", short_help="Have a paused queue go on.")
@click.argument("queue")
@of_the_api
def resume_command(api: "ApiClient", output: "Output", *, queue: str) -> int:
    """Have the jobs of a paused QUEUE start again."""
    _show(output, [api.resume_queue(queue)])
    return Exit.DONE


@click.command("limits", short_help="Show or set what a queue is limited to.")
@click.argument("queue")
@click.option("--concurrency", type=int, metavar="NUMBER", help="How many of its jobs run at a time.")
@click.option("--per-key", type=int, metavar="NUMBER", help="How many of those with one concurrency key do.")
@click.option("--per-second", type=float, metavar="NUMBER", help="How many start in a second; 0.1: one in ten.")
@click.option("--none", "unlimited", is_flag=True, help="Take all limits away.")
@of_the_api
def limits_command(
    api: "ApiClient",
    output: "Output",
    *,
    queue: str,
    concurrency: int | None,
    per_key: int | None,
    per_second: float | None,
    unlimited: bool,
) -> int:
    """Show what a QUEUE is limited to, or limit it from now on, in the place of all limits that it has."""
    named = {"concurrency": concurrency, "concurrencyPerKey": per_key, "perSecond": per_second}
    given = {name: number for name, number in named.items() if number is not None}
    if unlimited and given:
        raise click.UsageError("--none takes all limits away; give limits without it.")
    if given or unlimited:
        answer = api.set_limits(queue, given)
        found = [answer["queue"]]
        if answer["ungated"] and given:
            output.note(f"{queue}: {answer['ungated']} jobs were submitted before and start whatever the limits say.")
    else:
        queues = api.queues()
        found = [one for one in queues if one["name"] == queue]
        if not found:
            output.note(f"Error: {no_such_queue(queue, [one['name'] for one in queues])}")
            return Exit.UNKNOWN
    if output.as_json:
        output.json(found[0])
    else:
        output.line(limits_in_words(found[0]["limits"]))
    return Exit.DONE


def limits_in_words(limits: dict[str, Any]) -> str:
    """Return what a queue is limited to, as ``5 at a time, 1 per key, 10/s``."""
    return str(Limits(limits["concurrency"], limits["concurrencyPerKey"], limits["perSecond"]))


def _show(output: "Output", queues: list[dict[str, Any]]) -> None:
    from gql_jobs.terminal.output import age_of  # noqa: PLC0415

    if output.as_json:
        for one in queues:
            output.json(one)
        return
    rows = []
    for one in queues:
        counts = {each["status"]: str(each["count"]) for each in one["counts"]}
        waits = age_of(one["oldestQueuedAt"])
        rows.append((one["name"], str(one["workers"]), *(counts.get(name, "0") for name in EVERY_STATE), waits))
        if one["paused"]:
            output.note(f"{one['name']} {_described(one['paused'])}.")
        if any(one["limits"].values()):
            output.note(f"{one['name']} is limited to {limits_in_words(one['limits'])}.")
        if one["unservedTypes"]:
            output.note(f"{one['name']}: no worker can run all jobs of {', '.join(one['unservedTypes'])}.")
    # Columns without a job first.
    spare = sorted(EVERY_STATE, key=lambda name: any(row[2 + EVERY_STATE.index(name)] != "0" for row in rows))
    output.table(("QUEUE", "WORKERS", *EVERY_STATE, "OLDEST WAITS"), rows, tuple(spare[:-1]))


def _described(pause: dict[str, Any]) -> str:
    """Return since when, until when, by whom and why a queue is paused."""
    until = f" until {pause['until']}" if pause["until"] else ""
    by = f" by {pause['by']}" if pause["by"] else ""
    reason = f": {pause['reason'].rstrip('.')}" if pause["reason"] else ""
    return f"is paused since {pause['at']}{until}{by}{reason}"


QUEUE_COMMANDS = (queues_command, pause_command, resume_command, limits_command)
"""What ``gql-jobs`` has for those who steer queues."""
