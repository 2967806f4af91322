"""The comparison: what lies in the log against what clients were told and what handlers wrote down.

Pure: it is given both sides as data, so that a test can plant what must be found.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from benchmarks.chaos.history import History, histories
from benchmarks.chaos.ledger import Ledger, Observation
from benchmarks.chaos.stream import Stored

_SHOWN = 20


@dataclass
class Findings:
    """``broken``: promise → the cases; every list has to be empty. ``figures``: what else there is to say."""

    broken: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)

    def add(self, promise: str, cases: Iterable[str]) -> None:
        """Note the cases that break a promise, if there are any."""
        self.broken.setdefault(promise, []).extend(cases)

    @property
    def kept(self) -> bool:
        """Whether every promise held."""
        return not any(self.broken.values())

    def shown(self) -> dict[str, list[str]]:
        """The first cases of each broken promise."""
        return {promise: cases[:_SHOWN] for promise, cases in self.broken.items() if cases}


@dataclass(frozen=True)
class Promised:
    """What steering had promised.

    ``places``: by queue, the largest limit that was set; ``places_of_key``: the same by type and for each of its keys;
    ``every``: by schedule that skips no tick, the seconds between two.
    """

    places: dict[str, int] = field(default_factory=dict)
    places_of_key: dict[str, int] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Both sides. ``runs``: job and attempt of every handler run. ``counts``: API → status → jobs, once all ended."""

    messages: list[Stored]
    dead_letters: list[Stored]
    ledger: Ledger
    runs: Counter[tuple[str, int]]
    counts: dict[str, dict[str, int]]
    promised: "Promised | None" = None


def check(evidence: Evidence) -> Findings:
    """Compare."""
    findings = Findings()
    jobs = histories(evidence.messages)
    _check_creations(findings, jobs, evidence.ledger)
    _check_histories(findings, jobs)
    _check_moves(findings, jobs, evidence.ledger)
    _check_runs(findings, jobs, evidence.runs)
    _check_dead_letters(findings, jobs, evidence.dead_letters)
    _check_index(findings, jobs, evidence.counts)
    _check_subscriptions(findings, jobs, evidence.ledger)
    _check_steering(findings, jobs, evidence.promised or Promised())
    return findings


def _check_creations(findings: Findings, jobs: dict[str, History], ledger: Ledger) -> None:
    told = set(ledger.acknowledged.values())
    findings.add("lost", (job_id for job_id in told if job_id not in jobs or not jobs[job_id].exists))
    by_key: dict[str, set[str]] = defaultdict(set)
    for job in jobs.values():
        if job.key is not None:
            by_key[job.key].add(job.job_id)
    findings.add("keys_with_more_jobs", (key for key, ids in by_key.items() if len(ids) > 1))
    findings.add("keys_with_more_jobs", ledger.contradicted)
    stored = {job.token for job in jobs.values()}
    findings.add("denied_but_stored", ledger.denied & stored)
    findings.add("vanished", ledger.vanished)
    findings.figures |= {
        "acknowledged": len(told),
        "jobs": len(jobs),
        "denied": len(ledger.denied),
        "outcome_unknown": len(ledger.unknown),
    }


def _check_histories(findings: Findings, jobs: dict[str, History]) -> None:
    submissions = [(job, submission) for job in jobs.values() for submission in job.submissions]
    missing = (f"{job.job_id} {job.status}" for job in jobs.values() if job.status not in _ENDED)
    findings.add("terminal_missing", missing)
    for job in jobs.values():
        findings.add("terminal_repeated", (f"{job.job_id} at {seq}" for seq in job.repeated))
        findings.add("illegal_events", (f"{job.job_id} at {seq}" for seq in job.illegal))
        findings.add("attempts_miscounted", (f"{job.job_id} at {seq}" for seq in job.miscounted))
    findings.figures |= {
        "submissions": len(submissions),
        "statuses": dict(sorted(Counter(job.status for job in jobs.values()).items())),
        "superseded": sum(submission.superseded for _, submission in submissions),
        "released": sum(submission.releases for _, submission in submissions),
    }


_ENDED = frozenset({"COMPLETED", "DEAD_LETTER", "CANCELLED"})


def _check_moves(findings: Findings, jobs: dict[str, History], ledger: Ledger) -> None:
    """What clients were told of cancelling, running again and poison."""
    known = jobs.keys()
    findings.add("cancels_lost", (i for i in ledger.cancelled if i in known and not jobs[i].cancelled))
    findings.add("retries_lost", (i for i in ledger.retried if i in known and len(jobs[i].submissions) < 2))  # noqa: PLR2004
    findings.add("poison_survived", (i for i in ledger.poisonous if i in known and jobs[i].status != "DEAD_LETTER"))


def _check_runs(findings: Findings, jobs: dict[str, History], runs: Counter[tuple[str, int]]) -> None:
    """A result without a run of its attempt would be invented. Runs themselves may be more than one."""
    results = ((job.job_id, attempt) for job in jobs.values() for attempt in job.completed_attempts)
    findings.add("results_without_run", (f"{job_id} {n}" for job_id, n in results if not runs[job_id, n]))
    findings.add("results_repeated", (j.job_id for j in jobs.values() if len(j.completed_attempts) > 1))
    per_job: Counter[str] = Counter()
    for (job_id, _), times in runs.items():
        per_job[job_id] += times
    findings.figures |= {
        "handler_runs": sum(per_job.values()),
        "runs_per_job": {str(n): count for n, count in sorted(Counter(per_job.values()).items())},
    }


def _check_steering(findings: Findings, jobs: dict[str, History], promised: Promised) -> None:
    gated = [job for job in jobs.values() if job.is_gated]
    most: dict[str, int] = {}
    for queue, limit in promised.places.items():
        most[queue] = _most([place for job in gated if job.spec["queue"] == queue for place in job.places])
        findings.add("places_exceeded", [f"{queue}: {most[queue]} of {limit}"] if most[queue] > limit else [])
    for kind, limit in promised.places_of_key.items():
        by_key: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
        for job in gated:
            if job.spec["type"] == kind and "concurrencyKey" in job.spec:
                by_key[job.spec["concurrencyKey"]] += job.places
        held = {key: _most(places) for key, places in by_key.items()}
        most |= {f"{kind} {key}": number for key, number in held.items()}
        findings.add("places_exceeded", (f"{kind} {key}: {n} of {limit}" for key, n in held.items() if n > limit))
    lives: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for job in jobs.values():
        if "key" in job.spec:
            lives[job.spec["key"]] += job.lives
    findings.add("keys_held_twice", (key for key, spans in lives.items() if _most(spans) > 1))
    for job in jobs.values():
        findings.add("dependencies_out_of_order", _out_of_order(job, jobs))
    _check_ticks(findings, jobs, promised.every)
    findings.figures |= {"passed_the_gate": len(gated), "most_places": most, "keys": len(lives)}


def _most(spans: list[tuple[int, int | None]]) -> int:
    """How many of these were at the same time."""
    steps = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans if end is not None])
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def _out_of_order(job: History, jobs: dict[str, History]) -> list[str]:
    """The jobs that had not ended, or not as they should have, when this one started for the first time."""
    if job.first_start is None:
        return []
    completes = job.spec.get("afterPolicy") != "run"
    wrong = []
    for needed in job.spec.get("after", ()):
        # One may have been retried by hand since.
        ends = [how for seq, how in jobs[needed].ends if seq < job.first_start] if needed in jobs else ["COMPLETED"]
        if not ends or (completes and "COMPLETED" not in ends):
            wrong.append(f"{job.job_id} after {needed}")
    return wrong


def _check_ticks(findings: Findings, jobs: dict[str, History], every: dict[str, int]) -> None:
    """Of a tick that was made late nothing says when it was due: those are counted, and have to fill the gaps."""
    ticks: dict[str, Counter[datetime]] = defaultdict(Counter)
    late: Counter[str] = Counter()
    for job in jobs.values():
        if (schedule := job.spec.get("schedule")) is None:
            continue
        due = (job.spec.get("gate") or {}).get("runAt") or job.spec.get("runAt")
        if due is None:
            late[schedule] += 1
        else:
            ticks[schedule][datetime.fromisoformat(due)] += 1
    for schedule, made in ticks.items():
        findings.add("ticks_repeated", (f"{schedule} at {tick}" for tick, times in made.items() if times > 1))
        if schedule not in every:
            continue
        wanted = 1 + (max(made) - min(made)) // timedelta(seconds=every[schedule])
        there = len(made) + late[schedule]
        findings.add("ticks_missing", [f"{schedule}: {there} of {wanted}"] if there < wanted else [])
        findings.add("ticks_repeated", [f"{schedule}: {there} of {wanted}"] if there > wanted else [])
    findings.figures["ticks"] = {schedule: len(made) + late[schedule] for schedule, made in sorted(ticks.items())}


def _check_dead_letters(findings: Findings, jobs: dict[str, History], dead_letters: list[Stored]) -> None:
    """One copy in ``jobs-dlq``. Running the job again takes it out; if NATS fails just then, it stays."""
    copies = Counter(message.job_id for message in dead_letters)
    dead = {job.job_id for job in jobs.values() if job.status == "DEAD_LETTER"}
    findings.add("dead_letters_missing", dead - copies.keys())
    deaths = Counter(job.job_id for job in jobs.values() for s in job.submissions if s.terminal == "event.dead_letter")
    findings.add("dead_letters_repeated", (job_id for job_id, times in copies.items() if times > deaths[job_id]))
    findings.figures["dead_letters_left_over"] = len(dead_letters) - len(dead & copies.keys())


def _check_index(findings: Findings, jobs: dict[str, History], counts: dict[str, dict[str, int]]) -> None:
    true = Counter(job.status for job in jobs.values())
    for api, told in counts.items():
        differing = {status: told[status] for status in told if told[status] != true[status]}
        findings.add("index_differs", [f"{api}: {differing}, in the log {dict(true)}"] if differing else [])


def _check_subscriptions(findings: Findings, jobs: dict[str, History], ledger: Ledger) -> None:
    told = sorted((seq, name, job.job_id) for job in jobs.values() for seq, name in job.lifecycle)
    by_tag: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for event in told:
        for tag in jobs[event[2]].tags:
            by_tag[tag].append(event)
    for number, observation in enumerate(ledger.observations):
        if observation.job_id is not None:
            job = jobs.get(observation.job_id)
            expected = [(seq, name, job.job_id) for seq, name in job.lifecycle] if job else []
        else:
            expected = by_tag[observation.tag] if observation.tag else told
        _check_subscription(findings, f"subscription {number}", observation, expected)
    findings.figures |= {
        "subscriptions": len(ledger.observations),
        "resumes": sum(o.resumes for o in ledger.observations),
        "events_seen": sum(len(o.seen) for o in ledger.observations),
    }


def _check_subscription(
    findings: Findings, name: str, observation: Observation, expected: list[tuple[int, str, str]]
) -> None:
    """Every lifecycle event from the first one seen on, exactly once and in order.

    A JobScheduled is left out of the order: its message is gone from the stream once it has fired. Twice is a
    duplicate all the same.
    """
    seen = observation.seen
    label = f"{name} ({observation.job_id or observation.tag or 'all'})"
    findings.add("disorder", (f"{label}: {b} after {a}" for a, b in pairwise(seen) if b[:2] <= a[:2]))
    scheduled = Counter(event.job_id for event in seen if event.kind == "JobScheduled")
    findings.add("duplicates", (f"{label}: JobScheduled of {job}" for job, times in scheduled.items() if times > 1))
    brought = Counter(
        (event.seq, event.kind, event.job_id) for event in seen if event.kind not in {"JobProgress", "JobScheduled"}
    )
    findings.add("duplicates", (f"{label}: {event}" for event, times in brought.items() if times > 1))
    if not seen:
        findings.add("subscriptions_unfinished", [f"{label}: nothing was brought: {dict(observation.refusals)}"])
        return
    until = seen[-1].seq if observation.completed else float("inf")
    wanted = {event for event in expected if seen[0].seq <= event[0] <= until}
    findings.add("gaps", (f"{label}: {event}" for event in sorted(wanted - brought.keys())))
    known = set(expected)
    findings.add("invented", (f"{label}: {event}" for event in brought if event not in known))
    if observation.job_id is not None and not observation.completed:
        findings.add("subscriptions_unfinished", [f"{label}: not completed, {dict(observation.refusals)}"])
