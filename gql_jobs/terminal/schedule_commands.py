"""The commands that are about schedules: list, show and preview them, define and delete them, run and pause them."""

import json
from typing import TYPE_CHECKING, Any

import click

from gql_jobs.terminal.command_line import MOMENT_AHEAD, Exit, of_the_api

if TYPE_CHECKING:
    from gql_jobs.terminal.client import ApiClient
    from gql_jobs.terminal.output import Output

_PRIORITIES = click.Choice(["LOW", "NORMAL", "HIGH", "CRITICAL"], case_sensitive=False)
_OVERLAPS = click.Choice(["SKIP", "ALLOW", "CANCEL_OTHER"], case_sensitive=False)


@click.group("schedules", short_help="Have jobs created again and again.")
def schedules_command() -> None:
    """List schedules, say when they are due, define, delete, run and pause them."""


@schedules_command.command("list", short_help="List the schedules.")
@of_the_api
def _list(api: "ApiClient", output: "Output") -> int:
    """List the schedules: when they are due, when next, and how many ticks had no run."""
    _show_all(output, api.schedules())
    return Exit.DONE


@schedules_command.command("show", short_help="Show one schedule.")
@click.argument("name")
@of_the_api
def _show(api: "ApiClient", output: "Output", *, name: str) -> int:
    """Show the schedule NAME: its payload, its next runs, and which of its ticks had no run."""
    shown = api.schedule(name)
    if shown is None:
        output.note(f"There is no schedule {name}.")
        return Exit.UNKNOWN
    if output.as_json:
        output.json(shown)
        return Exit.DONE
    _show_all(output, [shown])
    output.line("payload", json.dumps(shown["rawPayload"], ensure_ascii=False))
    for moment in shown["nextRuns"]:
        output.line("next", moment)
    for skips in shown["skips"]:
        output.line("skipped", str(skips["count"]), skips["reason"], f"last at {skips['lastAt']}")
    return Exit.DONE


@schedules_command.command("preview", short_help="Say when a schedule would be due.")
@click.option("--cron", metavar="FIELDS", help="Five fields, or six with the seconds first.")
@click.option("--every", type=int, metavar="SECONDS", help="Every so many seconds instead.")
@click.option("--time-zone", default="UTC", show_default=True, help="The zone in which --cron is meant.")
@click.option("--first", type=int, default=5, show_default=True, help="How many moments.")
@click.option(
    "--after", type=MOMENT_AHEAD, help="Those after this moment: 2027-03-27T00:00Z, or from now 30d; else now."
)
@of_the_api
def _preview(
    api: "ApiClient",
    output: "Output",
    *,
    cron: str | None,
    every: int | None,
    time_zone: str,
    first: int,
    after: str | None,
) -> int:
    """Say when a schedule would be due, in UTC, changes of clocks included."""
    asked = {"cron": cron, "everySeconds": every, "timeZone": time_zone, "first": first, "after": after}
    for moment in api.schedule_preview({name: value for name, value in asked.items() if value is not None}):
        if output.as_json:
            output.json({"at": moment})
        else:
            output.line(moment)
    return Exit.DONE


@schedules_command.command("upsert", short_help="Define a schedule.")
@click.argument("name")
@click.argument("type_name", metavar="TYPE")
@click.argument("payload", metavar="JSON", default="{}")
@click.option("--cron", metavar="FIELDS", help="Five fields, or six with the seconds first.")
@click.option("--every", type=int, metavar="SECONDS", help="Every so many seconds instead.")
@click.option("--time-zone", default="UTC", show_default=True, help="The zone in which --cron is meant.")
@click.option("--priority", type=_PRIORITIES, help="Which job starts first when workers are busy.")
@click.option("--tag", "tags", multiple=True, help="A tag of its jobs; may be given again.")
@click.option("--overlap", type=_OVERLAPS, help="What becomes of a tick while an earlier job has not ended.")
@click.option("--catch-up", type=int, metavar="SECONDS", help="How late a tick may be made up for after an outage.")
@click.option("--spread", type=int, metavar="SECONDS", help="Be late by a part of that, which follows from the name.")
@click.option("--paused", is_flag=True, help="Without ticks until it is resumed.")
@of_the_api
def _upsert(
    api: "ApiClient",
    output: "Output",
    *,
    name: str,
    type_name: str,
    payload: str,
    cron: str | None,
    every: int | None,
    time_zone: str,
    priority: str | None,
    tags: tuple[str, ...],
    overlap: str | None,
    catch_up: int | None,
    spread: int | None,
    paused: bool,
) -> int:
    """Define the schedule NAME of jobs of a TYPE with a payload, or replace the one of that name.

    To ask for the same again changes nothing.
    """
    asked = {
        "name": name,
        "type": type_name,
        "payload": payload,
        "cron": cron,
        "everySeconds": every,
        "timeZone": time_zone,
        "priority": priority.upper() if priority else None,
        "tags": list(tags) or None,
        "overlap": overlap.upper() if overlap else None,
        "catchUpSeconds": catch_up,
        "spreadSeconds": spread,
        "paused": paused or None,
    }
    _show_all(output, [api.upsert_schedule({name: value for name, value in asked.items() if value is not None})])
    return Exit.DONE


@schedules_command.command("delete", short_help="Delete a schedule.")
@click.argument("name")
@of_the_api
def _delete(api: "ApiClient", output: "Output", *, name: str) -> int:
    """Delete the schedule NAME, and cancel its jobs that have not been queued yet."""
    outcome = api.delete_schedule(name)
    if output.as_json:
        output.json(outcome)
    else:
        output.note(f"{name} is deleted." if outcome["deleted"] else f"There is no schedule {name}.")
    return Exit.DONE if outcome["deleted"] else Exit.UNKNOWN


@schedules_command.command("run", short_help="Create a job of a schedule at once.")
@click.argument("name")
@of_the_api
def _run(api: "ApiClient", output: "Output", *, name: str) -> int:
    """Create a job of the schedule NAME at once, outside of its ticks."""
    output.job(api.run_schedule(name))
    return Exit.DONE


@schedules_command.command("pause", short_help="Have a schedule be without ticks.")
@click.argument("name")
@of_the_api
def _pause_schedule(api: "ApiClient", output: "Output", *, name: str) -> int:
    """Have the schedule NAME be without ticks until it is resumed, and cancel what is ahead of it."""
    _show_all(output, [api.pause_schedule(name, paused=True)])
    return Exit.DONE


@schedules_command.command("resume", short_help="Have a schedule have ticks again.")
@click.argument("name")
@of_the_api
def _resume_schedule(api: "ApiClient", output: "Output", *, name: str) -> int:
    """Have the schedule NAME have ticks again, from now on."""
    _show_all(output, [api.pause_schedule(name, paused=False)])
    return Exit.DONE


def _show_all(output: "Output", schedules: list[dict[str, Any]]) -> None:
    if output.as_json:
        for one in schedules:
            output.json(one)
        return
    rows = []
    for one in schedules:
        due = f"{one['cron']} {one['timeZone']}" if one["cron"] else f"every {one['everySeconds']} s"
        following = "paused" if one["paused"] else next(iter(one["nextRuns"]), "never")
        last = one["lastJob"]["status"] if one["lastJob"] else "-"
        rows.append((one["name"], one["type"], due, following, last, str(one["skipped"])))
    output.table(("SCHEDULE", "TYPE", "DUE", "NEXT", "LAST JOB", "SKIPPED"), rows, ())
