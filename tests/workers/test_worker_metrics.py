"""``/metrics`` of worker processes, several of them on one machine."""

import asyncio
from collections import Counter

import httpx
import pytest

from gql_jobs import JobContext
from gql_jobs.jobs.messages import Completed, Started
from gql_jobs.jobs.model import Job
from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.by_hand import say
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.scraped import reader, scrape
from tests.serving import free_ports_in_a_row
from tests.stories import request
from tests.workers.stories import handled_by


async def test_workers_on_one_machine_each_have_a_page(settings: Settings, job_log: JobLog) -> None:
    port = free_ports_in_a_row(2)
    shown = settings.model_copy(update={"metrics_port": port})
    async with running_worker(shown) as one, running_worker(shown) as other, httpx.AsyncClient() as http:
        await asyncio.gather(one.started.wait(), other.started.wait())
        commands = JobCommands(job_log, settings)
        for payload in ProbePayload(), ProbePayload(permanent=True):
            await commands.create(request(payload))
        urls = [f"http://127.0.0.1:{port + number}/metrics" for number in (0, 1)]

        async def outcomes() -> Counter[str]:
            pages = [await scrape(http, url) for url in urls]
            assert all(reader(page)("gql_jobs_worker_capacity") == settings.num_workers for page in pages)
            sums: Counter[str] = Counter()
            for (name, labels), value in (sample for page in pages for sample in page.items()):
                if name == "gql_jobs_worker_attempts_total":
                    sums[dict(labels)["outcome"]] += round(value)
            return sums

        async def both() -> bool:
            return await outcomes() == {"started": 2, "completed": 1, "dead-letter": 1}

        await until(both, "both outcomes are counted")
        page = reader(await scrape(http, urls[0]))
        assert (page("gql_jobs_worker_nats_connected"), page("gql_jobs_worker_running")) == (1, 0)
        # A page of another site can give this machine a name of its own, and read what it answers under that.
        for host, status in ("localhost:1", 200), ("[::1]", 200), ("evil.example", 400), ("127.0.0.1.nip.io:1", 400):
            assert (await http.get(urls[0], headers={"Host": host})).status_code == status, host


async def test_outcomes_of_attempts_that_were_superseded_or_came_too_late_are_counted(
    settings: Settings, job_log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def handler(_: JobContext, __: ProbePayload) -> None:
        begun.release()
        await going_on.wait()

    handled_by(monkeypatch, handler)
    port = free_ports_in_a_row(2)
    shown = settings.model_copy(update={"metrics_port": port})
    async with running_worker(shown) as worker, httpx.AsyncClient() as http:
        await worker.started.wait()
        commands = JobCommands(job_log, settings)
        url = f"http://127.0.0.1:{port}/metrics"

        async def counted() -> tuple[float, float]:
            page = reader(await scrape(http, url))
            return page("gql_jobs_worker_superseded_total"), page("gql_jobs_worker_late_total")

        assert await counted() == (0, 0)
        taken, finished = [(await commands.create(request())).job for _ in range(2)]
        for _ in range(2):
            await begun.acquire()
        await _taken_over(job_log, taken)
        await _taken_over(job_log, finished)
        await say(job_log, finished, Completed, attempt=2)
        going_on.set()

        async def both() -> bool:
            return await counted() == (1, 1)

        await until(both, "both refusals are counted")


async def _taken_over(job_log: JobLog, job: Job) -> None:
    """Another worker starts the job, as one does that believes the lease to have run out."""
    await say(job_log, job, Started, attempt=2, supersedes=1)
