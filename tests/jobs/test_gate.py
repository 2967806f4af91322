"""Which jobs the gate lets go: by priority, then by age, within every limit, and no later than they may."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gql_jobs.jobs.claim import MISSED
from gql_jobs.jobs.gate import Action, Cancellation, GateState, Release
from gql_jobs.jobs.gate_lines import World
from gql_jobs.jobs.limits import Limits
from gql_jobs.jobs.model import DependencyPolicy, Gate, Job, JobError, JobPriority, JobStatus, OverlapPolicy, new_job_id
from tests.stories import BEGAN, spec

S = JobStatus
NOW = BEGAN + timedelta(hours=1)


class Told:
    """A gate that is told of jobs as an index would tell it, and whose releases are carried out at once."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.paused: set[str] = set()
        self.unable: set[str] = set()
        self.seq = 0
        self.moment = 0.0
        self.now = NOW
        self.state = GateState(
            World(
                standing=lambda job_id: self.jobs[job_id].status if job_id in self.jobs else None,
                occupied=self._occupied,
                is_paused=self.paused.__contains__,
                is_able=lambda _, name: name not in self.unable,
            )
        )

    def _occupied(self, of: str, name: str) -> int:
        placed = {S.QUEUED, S.PROCESSING}
        return sum(job.status in placed and getattr(job.spec, of) == name for job in self.jobs.values())

    def limit(self, limits: Limits | None, of: str = "queue", name: str = "default") -> None:
        self.state.limit(of, name, limits, self.moment)
        self.moment += 3600

    def create(
        self, job_id: str | None = None, status: JobStatus = S.WAITING, *, attempt: int = 0, **asked: Any
    ) -> Job:
        self.seq += 1
        made = {"gate": Gate(), "created_at": BEGAN + timedelta(seconds=self.seq), **asked}
        job = Job(
            id=job_id or new_job_id(),
            spec=spec(**made),
            status=status,
            attempt=attempt,
            submission_seq=self.seq,
            last_seq=self.seq,
            updated_at=BEGAN,
        )
        return self.move(job)

    def move(self, job: Job, status: JobStatus | None = None, **facts: Any) -> Job:
        self.seq += 1
        moved = replace(job, status=status or job.status, last_seq=self.seq, **facts)
        self.jobs[job.id] = moved
        if moved.status.is_terminal:
            self.state.forget(moved.id, moved.status)
        else:
            self.state.put(moved)
        self.state.totals_changed()
        return moved

    def next(self) -> Action | None:
        """What is done next, carried out at once."""
        action = self.state.next(self.now, self.moment)
        if action is None:
            return None
        self.state.sent(action)
        job = self.jobs[action.job_id]
        if isinstance(action, Release):
            self.state.stored(job.id, self.moment, stored=True)
            self.move(job, S.QUEUED, submission_seq=self.seq + 1)
        elif isinstance(action, Cancellation):
            self.move(job, S.CANCELLED, cancel_reason=action.reason)
        self.state.settled(job.id)
        return action

    def drain(self) -> list[str]:
        """The ids of all jobs that go now, in that order."""
        found = []
        while (action := self.next()) is not None:
            if isinstance(action, Release):
                found.append(action.job_id)
        return found

    def start(self, job_id: str) -> Job:
        return self.move(self.jobs[job_id], S.PROCESSING, attempt=1, event_seq=self.seq + 1)

    def complete(self, job_id: str) -> Job:
        return self.move(self.jobs[job_id], S.COMPLETED)


@pytest.fixture
def gate() -> Told:
    """A gate that knows nothing yet."""
    return Told()


def test_jobs_go_by_priority_and_then_in_the_order_of_their_creation(gate: Told) -> None:
    asked = [JobPriority.LOW, JobPriority.HIGH, JobPriority.NORMAL, JobPriority.HIGH]
    jobs = [gate.create(priority=priority).id for priority in asked]
    assert gate.drain() == [jobs[1], jobs[3], jobs[2], jobs[0]]


def test_no_more_hold_a_place_than_a_queue_may_have_whether_they_passed_the_gate_or_not(gate: Told) -> None:
    gate.limit(Limits(concurrency=2))
    ungated = gate.create(status=S.QUEUED, gate=None)
    first, second, third = (gate.create().id for _ in range(3))
    assert gate.drain() == [first]
    gate.start(first)
    assert gate.drain() == []
    gate.complete(ungated.id)
    assert gate.drain() == [second]
    gate.complete(first)
    assert gate.drain() == [third]


def test_a_key_that_has_to_wait_does_not_hold_up_others(gate: Told) -> None:
    gate.limit(Limits(concurrency_per_key=1))
    keys = ["a", "a", "a", "b", "b", None]
    jobs = [gate.create(concurrency_key=key).id for key in keys]
    assert gate.drain() == [jobs[0], jobs[3], jobs[5]]
    gate.complete(jobs[3])
    assert gate.drain() == [jobs[4]]
    gate.complete(jobs[0])
    assert gate.drain() == [jobs[1]]


def test_the_same_key_of_another_tenant_is_another_one(gate: Told) -> None:
    gate.limit(Limits(concurrency_per_key=1))
    jobs = [gate.create(concurrency_key="a", tenant=tenant).id for tenant in ("red", "blue", None, "red")]
    assert gate.drain() == jobs[:3]


def test_all_limits_hold_together(gate: Told) -> None:
    gate.limit(Limits(concurrency=3, concurrency_per_key=2))
    gate.limit(Limits(concurrency_per_key=1), "type", "probe")
    jobs = [gate.create(concurrency_key=key).id for key in ("a", "a", "b", "c", "d")]
    assert gate.drain() == [jobs[0], jobs[2], jobs[3]]
    gate.complete(jobs[2])
    assert gate.drain() == [jobs[4]]
    gate.complete(jobs[0])
    assert gate.drain() == [jobs[1]]


def test_a_failed_attempt_gives_its_place_up_and_the_next_one_takes_another_when_it_is_due(gate: Told) -> None:
    gate.limit(Limits(concurrency=1))
    first, second = gate.create().id, gate.create().id
    assert gate.drain() == [first]
    gate.start(first)
    due = gate.now + timedelta(seconds=5)
    gate.move(gate.jobs[first], S.RETRYING, next_attempt_at=due)
    assert gate.drain() == [second]
    gate.complete(second)
    assert gate.drain() == []
    assert gate.state.delay(gate.now, gate.moment) == 5
    gate.now = due
    assert gate.drain() == [first]


def test_no_more_are_released_within_a_second_than_may_start_nor_wait_for_a_worker(gate: Told) -> None:
    gate.limit(Limits(per_second=2))
    jobs = [gate.create().id for _ in range(6)]
    assert gate.drain() == jobs[:2]
    gate.moment += 10
    assert gate.drain() == [], "as many wait for a worker as may start in a second"
    gate.start(jobs[0])
    assert gate.drain() == [jobs[2]]
    gate.start(jobs[1])
    gate.start(jobs[2])
    assert gate.drain() == [jobs[3]]
    gate.start(jobs[3])
    assert gate.drain() == []
    delay = gate.state.delay(gate.now, gate.moment)
    assert delay == 1
    gate.moment += delay
    assert gate.drain() == jobs[4:]


def test_a_rate_below_one_a_second_lets_one_go_in_so_many_seconds(gate: Told) -> None:
    gate.limit(Limits(per_second=0.1))
    first, second = gate.create().id, gate.create().id
    assert gate.drain() == [first]
    gate.complete(first)
    assert gate.state.delay(gate.now, gate.moment) == 10
    gate.moment += 9
    assert gate.drain() == []
    gate.moment += 1
    assert gate.drain() == [second]


def test_a_limit_that_is_new_counts_as_used_up_because_nobody_knows_what_was_released_before(gate: Told) -> None:
    gate.create()
    gate.state.limit("queue", "default", Limits(per_second=1), 0.0)
    assert gate.state.next(NOW, 0.5) is None
    assert gate.state.delay(NOW, 0.5) == 0.5
    assert isinstance(gate.state.next(NOW, 1.0), Release)


def test_what_is_released_and_not_known_to_be_stored_holds_its_place(gate: Told) -> None:
    gate.limit(Limits(concurrency=1, concurrency_per_key=1))
    first, second = gate.create(concurrency_key="a"), gate.create(concurrency_key="a")
    action = gate.state.next(gate.now, gate.moment)
    assert action == Release(first.id)
    gate.state.sent(action)
    assert gate.state.next(gate.now, gate.moment) is None
    gate.move(first, S.CANCELLED)
    gate.state.stored(first.id, gate.moment, stored=True)
    gate.state.settled(first.id)
    assert gate.drain() == [second.id]


def test_a_release_that_was_not_stored_is_made_again(gate: Told) -> None:
    job = gate.create()
    for _ in range(2):
        action = gate.state.next(gate.now, gate.moment)
        assert action == Release(job.id)
        gate.state.sent(action)
        assert gate.state.next(gate.now, gate.moment) is None
        gate.state.stored(job.id, gate.moment, stored=False)
        gate.state.settled(job.id)


@pytest.mark.parametrize("holds", [lambda gate: gate.paused.add("default"), lambda gate: gate.unable.add("probe")])
def test_nothing_of_a_paused_queue_is_released_nor_what_nobody_can_run(
    gate: Told, holds: Callable[[Told], None]
) -> None:
    holds(gate)
    job, other = gate.create(), gate.create(queue="other", type="other")
    assert gate.drain() == [other.id]
    gate.paused.clear()
    gate.unable.clear()
    gate.state.look_again()
    assert gate.drain() == [job.id]


def test_a_released_job_that_nobody_can_run_any_more_is_to_be_taken_back(gate: Told) -> None:
    job = gate.create()
    assert gate.drain() == [job.id]
    assert list(gate.state.recalls()) == []
    gate.unable.add("probe")
    assert [recall.job_id for recall in gate.state.recalls()] == [job.id]


def test_a_job_runs_after_all_that_it_names_have_completed(gate: Told) -> None:
    imports = [gate.create(status=S.QUEUED, gate=None) for _ in range(3)]
    report = gate.create(after=tuple(job.id for job in imports))
    for job in imports:
        assert gate.drain() == []
        gate.complete(job.id)
    assert gate.drain() == [report.id]


@pytest.mark.parametrize("end", [S.DEAD_LETTER, S.CANCELLED])
@pytest.mark.parametrize("early", [False, True])
def test_what_becomes_of_a_job_when_another_does_not_complete_is_its_policy(
    gate: Told, end: JobStatus, *, early: bool
) -> None:
    needed = gate.create(status=S.QUEUED, gate=None)
    if early:
        gate.move(needed, end)
    runs = gate.create(after=(needed.id,), after_policy=DependencyPolicy.RUN)
    cancelled = gate.create(after=(needed.id,))
    if not early:
        gate.move(needed, end)
    assert gate.drain() == [runs.id]
    assert gate.jobs[cancelled.id].status is S.CANCELLED
    assert needed.id in str(gate.jobs[cancelled.id].cancel_reason)


def test_a_dependency_that_is_gone_has_not_completed(gate: Told) -> None:
    job = gate.create(after=(new_job_id(),))
    assert gate.drain() == []
    assert gate.jobs[job.id].status is S.CANCELLED


@pytest.mark.parametrize("between", [0, 1, 5])
@pytest.mark.parametrize("policy", list(DependencyPolicy))
def test_jobs_wait_for_each_other_no_longer_where_one_has_the_id_of_a_deleted_one(
    gate: Told, policy: DependencyPolicy, between: int
) -> None:
    chain = [gate.create(status=S.SCHEDULED)]
    for _ in range(between + 1):
        chain.append(gate.create(after=(chain[-1].id,), after_policy=policy))
    # Deleted and made again, under the same idempotency key, within one batch of what an index applies.
    again = gate.create(chain[0].id, after=(chain[-1].id,), after_policy=DependencyPolicy.RUN)
    gone: list[str] = []
    while (action := gate.next()) is not None:
        gone.append(action.job_id)
        if isinstance(action, Release):
            gate.complete(action.job_id)
        else:
            assert isinstance(action, Cancellation)
            assert action.job_id in {job.id for job in chain[1:]}
    assert gone == [job.id for job in chain[1:]] + [again.id]
    assert gate.jobs[again.id].status is S.COMPLETED


def test_what_a_job_is_to_run_after_is_no_circle(gate: Told) -> None:
    first = gate.create(status=S.SCHEDULED)
    left, right = (gate.create(after=(first.id,)) for _ in range(2))
    last = gate.create(after=(left.id, right.id, first.id))
    for job in (left, first, last, right):
        gate.move(gate.jobs[job.id], updated_at=NOW)
    assert gate.drain() == []
    gate.complete(first.id)
    assert gate.drain() == [left.id, right.id]


def test_after_a_retry_by_hand_a_dependency_that_has_failed_holds_nothing_back(gate: Told) -> None:
    needed = gate.create(status=S.QUEUED, gate=None)
    job = gate.create(after=(needed.id,))
    gate.move(needed, S.DEAD_LETTER)
    assert gate.drain() == []
    ended = gate.jobs[job.id]
    gate.move(ended, S.WAITING, event_seq=gate.seq, submission_seq=gate.seq + 1, again=True)
    assert gate.drain() == [job.id]


def test_a_job_waits_until_its_time_and_then_for_its_turn(gate: Told) -> None:
    due = NOW + timedelta(minutes=1)
    job = gate.create(gate=Gate(run_at=due))
    assert gate.drain() == []
    assert gate.state.delay(NOW, 0.0) == 60
    gate.now = due
    assert gate.drain() == [job.id]


@pytest.mark.parametrize("facts", [{}, {"status": S.QUEUED}, {"status": S.QUEUED, "gate": None}])
def test_a_job_that_has_not_started_in_time_is_cancelled_with_that_reason(gate: Told, facts: dict[str, Any]) -> None:
    gate.paused.add("default")
    job = gate.create(start_before=NOW + timedelta(seconds=3), **facts)
    assert gate.drain() == []
    assert gate.state.has_work
    gate.now += timedelta(seconds=3)
    assert gate.drain() == []
    assert gate.jobs[job.id].cancel_reason == "It had not started by 2026-01-31 13:00:03 UTC."


def test_a_job_that_has_started_once_in_time_goes_on_after_it(gate: Told) -> None:
    job = gate.create(status=S.QUEUED, start_before=NOW + timedelta(seconds=3))
    gate.start(job.id)
    gate.move(gate.jobs[job.id], S.QUEUED, attempt=0, event_seq=gate.seq + 1)
    gate.now += timedelta(seconds=9)
    assert gate.drain() == []
    assert gate.jobs[job.id].status is S.QUEUED


def _tick(gate: Told, minute: int, overlap: OverlapPolicy) -> Job:
    due = NOW + timedelta(minutes=minute)
    return gate.create(schedule="nightly", gate=Gate(run_at=due, overlap=overlap))


def test_a_tick_is_skipped_while_the_job_of_an_earlier_one_has_not_ended(gate: Told) -> None:
    ticks = [_tick(gate, minute, OverlapPolicy.SKIP) for minute in (0, 1, 2)]
    assert gate.drain() == [ticks[0].id]
    gate.start(ticks[0].id)
    gate.now += timedelta(minutes=1)
    assert gate.drain() == []
    assert gate.jobs[ticks[1].id].status is S.CANCELLED
    gate.complete(ticks[0].id)
    gate.now += timedelta(minutes=1)
    assert gate.drain() == [ticks[2].id]


def test_a_tick_that_takes_the_place_of_an_earlier_one_goes_once_that_has_ended(gate: Told) -> None:
    first, second = (_tick(gate, minute, OverlapPolicy.CANCEL_OTHER) for minute in (0, 1))
    assert gate.drain() == [first.id]
    gate.start(first.id)
    gate.now += timedelta(minutes=1)
    reason = "A later tick of its schedule has taken its place."
    assert gate.next() == Cancellation(first.id, reason, whatever_it_does=True)
    assert gate.drain() == [second.id]


@pytest.mark.parametrize("overlap", [OverlapPolicy.SKIP, OverlapPolicy.CANCEL_OTHER])
def test_a_tick_that_is_retried_by_hand_waits_for_the_end_of_a_later_one(gate: Told, overlap: OverlapPolicy) -> None:
    first, second = (_tick(gate, minute, overlap) for minute in (0, 1))
    assert gate.drain() == [first.id]
    gate.move(gate.start(first.id), S.DEAD_LETTER)
    gate.now += timedelta(minutes=1)
    assert gate.drain() == [second.id]
    gate.start(second.id)
    ended = gate.jobs[first.id]
    gate.move(ended, S.WAITING, attempt=0, event_seq=gate.seq, submission_seq=gate.seq + 1, again=True)
    assert gate.drain() == []
    assert (gate.jobs[first.id].status, gate.jobs[second.id].status) == (S.WAITING, S.PROCESSING)
    hold = gate.state.hold(first.id)
    assert hold is not None
    assert hold.needs == (second.id,)
    gate.move(gate.jobs[second.id], S.DEAD_LETTER)
    assert gate.drain() == [first.id]


@pytest.mark.parametrize(("held_until", "late", "goes"), [(-1, 2, False), (-1, 0, True), (1, 2, True)])
def test_a_tick_that_became_due_while_nobody_held_the_gate_is_skipped_where_it_is_too_late(
    gate: Told, held_until: int, late: int, *, goes: bool
) -> None:
    due = NOW + timedelta(minutes=0)
    tick = gate.create(schedule="nightly", gate=Gate(run_at=due, release_before=due + timedelta(minutes=1)))
    gate.now += timedelta(minutes=late)
    gate.state.begin(gate.moment, gate.now, NOW + timedelta(minutes=held_until))
    assert gate.drain() == ([tick.id] if goes else [])
    assert (gate.jobs[tick.id].cancel_reason is None) is goes


def _made_up_tick(gate: Told) -> Job:
    """A tick that is due in a minute, and is made up for within another one."""
    due = gate.now + timedelta(minutes=1)
    return gate.create(schedule="nightly", gate=Gate(run_at=due, release_before=due + timedelta(minutes=1)))


def _is_missed(gate: Told, tick: Job) -> bool:
    return gate.jobs[tick.id].cancel_reason == MISSED


@pytest.mark.parametrize(("minutes", "goes"), [(2, True), (3, False)])
def test_a_tick_that_is_looked_at_too_late_is_skipped_whoever_held_the_gate(
    gate: Told, minutes: int, *, goes: bool
) -> None:
    tick = _made_up_tick(gate)
    assert gate.drain() == []
    gate.now += timedelta(minutes=minutes)
    assert gate.drain() == ([tick.id] if goes else [])
    assert _is_missed(gate, tick) is not goes


def test_a_tick_that_was_looked_at_in_time_waits_for_a_limit_or_a_pause_however_long(gate: Told) -> None:
    gate.limit(Limits(concurrency=1))
    before = gate.create()
    assert gate.drain() == [before.id]
    tick = _made_up_tick(gate)
    gate.now += timedelta(minutes=1)
    assert gate.drain() == []
    gate.now += timedelta(hours=1)
    gate.move(gate.jobs[tick.id])
    assert gate.drain() == []
    # Also for who takes the gate by then.
    gate.state.begin(gate.moment, gate.now, gate.now)
    gate.complete(before.id)
    assert gate.drain() == [tick.id]


def test_a_tick_that_came_while_the_server_was_away_is_skipped_where_it_is_too_late(gate: Told) -> None:
    gate.limit(Limits(concurrency=1))
    before = gate.create()
    assert gate.drain() == [before.id]
    attended_until = gate.now
    tick = _made_up_tick(gate)
    gate.now += timedelta(minutes=1)
    assert gate.drain() == []
    gate.now += timedelta(minutes=2)
    gate.state.skip_missed(gate.now, attended_until)
    gate.complete(before.id)
    assert gate.drain() == []
    assert _is_missed(gate, tick)


def test_a_tick_whose_turn_came_late_is_released_whenever_that_can_be_stored(gate: Told) -> None:
    tick = _made_up_tick(gate)
    gate.paused.add("default")
    gate.now += timedelta(minutes=1)
    assert gate.drain() == []
    gate.now += timedelta(minutes=10)
    gate.paused.clear()
    gate.state.look_again()
    release = gate.state.next(gate.now, gate.moment)
    assert release == Release(tick.id)
    gate.state.sent(release)
    gate.state.stored(tick.id, gate.moment, stored=False)
    gate.state.settled(tick.id)
    gate.now += timedelta(minutes=10)
    assert gate.drain() == [tick.id]


def test_a_tick_of_a_paused_queue_waits_though_the_gate_was_taken_anew_since(gate: Told) -> None:
    tick = _made_up_tick(gate)
    gate.paused.add("default")
    attended_until = gate.now
    gate.now += timedelta(minutes=10)
    gate.state.begin(gate.moment, gate.now, attended_until)
    assert gate.drain() == []
    gate.paused.clear()
    gate.state.look_again()
    assert gate.drain() == [tick.id]


def test_a_tick_that_is_due_only_after_a_pause_is_not_held_back_by_it(gate: Told) -> None:
    tick = _made_up_tick(gate)
    gate.paused.add("default")
    gate.state.begin(gate.moment, gate.now, None)
    gate.paused.clear()
    gate.now += timedelta(minutes=3)
    assert gate.drain() == []
    assert _is_missed(gate, tick)


def test_a_tick_that_was_due_before_anybody_has_ever_held_the_gate_is_skipped_where_it_is_too_late(gate: Told) -> None:
    tick = _made_up_tick(gate)
    gate.now += timedelta(minutes=3)
    gate.state.begin(gate.moment, gate.now, None)
    assert gate.drain() == []
    assert _is_missed(gate, tick)


def test_the_job_of_a_tick_that_has_failed_is_tried_again_however_late_by_whoever_holds_the_gate_then() -> None:
    before = Told()
    tick = _made_up_tick(before)
    before.now += timedelta(minutes=1)
    assert before.drain() == [tick.id]
    failed_at = before.now
    another = Told()
    again = failed_at + timedelta(minutes=5)
    another.move(before.start(tick.id), S.RETRYING, failed_at=failed_at, next_attempt_at=again)
    another.now = failed_at + timedelta(minutes=1)
    another.state.begin(another.moment, another.now, failed_at)
    assert another.drain() == []
    another.now = again + timedelta(seconds=1)
    assert another.drain() == [tick.id]


def test_a_tick_whose_release_has_not_been_stored_in_time_is_skipped(gate: Told) -> None:
    tick = _made_up_tick(gate)
    gate.now += timedelta(minutes=1)
    release = gate.state.next(gate.now, gate.moment)
    assert release == Release(tick.id)
    gate.state.sent(release)
    assert gate.state.latest_release(tick.id) == gate.now + timedelta(minutes=1)
    gate.state.stored(tick.id, gate.moment, stored=False)
    gate.now += timedelta(minutes=2)
    gate.state.settled(tick.id)
    assert gate.drain() == []
    assert _is_missed(gate, tick)


def test_a_tick_whose_release_was_on_its_way_when_the_gate_is_taken_anew_is_skipped(gate: Told) -> None:
    tick = _made_up_tick(gate)
    attended_until = gate.now
    gate.now += timedelta(minutes=1)
    release = gate.state.next(gate.now, gate.moment)
    assert release is not None
    gate.state.sent(release)
    gate.now += timedelta(minutes=2)
    gate.state.begin(gate.moment, gate.now, attended_until)
    assert gate.drain() == []
    assert _is_missed(gate, tick)


def test_a_tick_that_the_server_has_queued_too_late_is_cancelled_unless_it_has_started(gate: Told) -> None:
    latest = BEGAN - timedelta(minutes=1)
    late = gate.create(status=S.QUEUED, gate=None, schedule="nightly", fire_before=latest)
    started = gate.create(status=S.PROCESSING, attempt=1, gate=None, schedule="nightly", fire_before=latest)
    in_time = gate.create(status=S.QUEUED, gate=None, schedule="nightly", fire_before=BEGAN)
    assert gate.state.has_work
    assert gate.drain() == []
    assert [_is_missed(gate, job) for job in (late, started, in_time)] == [True, False, False]


def test_a_changed_job_takes_its_new_place_in_line(gate: Told) -> None:
    gate.limit(Limits(concurrency=1))
    first, second, third = (gate.create() for _ in range(3))
    assert gate.drain() == [first.id]
    gate.move(third, spec=replace(third.spec, priority=JobPriority.CRITICAL), event_seq=gate.seq + 1)
    gate.complete(first.id)
    assert gate.drain() == [third.id]
    gate.complete(third.id)
    assert gate.drain() == [second.id]


def test_a_limit_that_is_raised_or_taken_away_lets_jobs_go_at_once(gate: Told) -> None:
    gate.limit(Limits(concurrency=1))
    jobs = [gate.create().id for _ in range(6)]
    assert gate.drain() == jobs[:1]
    gate.limit(Limits(concurrency=3))
    assert gate.drain() == jobs[1:3]
    gate.limit(None)
    assert gate.drain() == jobs[3:]


def test_a_job_that_is_told_of_again_while_it_waits_in_line_is_released_once(gate: Told) -> None:
    gate.paused.add("default")
    jobs = [gate.create() for _ in range(3)]
    assert gate.drain() == []
    for job in jobs:
        gate.move(job)
        gate.move(job)
    gate.paused.clear()
    gate.state.look_again()
    assert gate.drain() == [job.id for job in jobs]


def test_a_retry_is_due_by_the_time_between_the_failure_and_it_where_the_worker_s_clock_is_wrong(gate: Told) -> None:
    job = gate.create()
    assert gate.drain() == [job.id]
    wrong = gate.now + timedelta(days=1)
    failure = JobError(message="No.", type="TransientError", attempt=1, at=wrong, retryable=True)
    facts = {"failed_at": gate.now, "errors": (failure,), "next_attempt_at": wrong + timedelta(seconds=5)}
    gate.move(gate.jobs[job.id], S.RETRYING, attempt=1, **facts)
    assert gate.drain() == []
    gate.now += timedelta(seconds=5)
    assert gate.drain() == [job.id]


def test_of_a_job_that_ends_and_is_retried_no_second_release_is_sent_while_one_is_on_its_way(gate: Told) -> None:
    gate.limit(Limits(concurrency=1, per_second=1))
    first, second = gate.create(), gate.create()
    action = gate.state.next(gate.now, gate.moment)
    assert action == Release(first.id)
    gate.state.sent(action)
    gate.move(first, S.CANCELLED)
    gate.move(first, S.WAITING, event_seq=gate.seq, again=True)
    assert gate.state.next(gate.now, gate.moment) is None
    gate.state.stored(first.id, gate.moment, stored=True)
    gate.state.settled(first.id)
    gate.moment += 1
    assert gate.drain() == [first.id]
    gate.complete(first.id)
    gate.moment += 1
    assert gate.drain() == [second.id]


@pytest.mark.parametrize("policy", DependencyPolicy)
def test_a_dependency_that_is_told_of_only_later_is_waited_for(gate: Told, policy: DependencyPolicy) -> None:
    # What has made it is deleted, because it was a schedule that has ended: it is known by what followed.
    needed = new_job_id()
    job = gate.create(after=(needed,), after_policy=policy)
    gate.create(needed, status=S.QUEUED, gate=None)
    assert gate.drain() == []
    gate.complete(needed)
    assert gate.drain() == [job.id]


def test_a_job_of_which_an_attempt_has_failed_has_started_in_time_also_if_its_release_is_taken_back(gate: Told) -> None:
    job = gate.create(status=S.QUEUED, start_before=NOW + timedelta(seconds=3), attempt=1)
    gate.move(job, event_seq=gate.seq + 1)
    gate.move(gate.jobs[job.id], S.WAITING, event_seq=gate.seq + 1)
    gate.now += timedelta(seconds=9)
    assert gate.drain() == [job.id]


def test_jobs_that_wait_are_not_looked_through_for_each_that_ends(gate: Told) -> None:
    gate.limit(Limits(concurrency_per_key=1))
    looked: list[str] = []

    def is_paused(queue: str) -> bool:
        looked.append(queue)
        return False

    gate.state._world.is_paused = is_paused  # noqa: SLF001
    for number in range(2000):
        gate.create(concurrency_key=str(number % 500))
    first = gate.drain()
    assert len(first) == 500
    looked.clear()
    gate.complete(first[0])
    assert len(gate.drain()) == 1
    assert len(looked) < 10
