"""``/metrics`` of worker processes, several of them on one machine."""

import asyncio
from collections import Counter

import httpx

from gql_jobs.log.commands import JobCommands
from gql_jobs.log.job_log import JobLog
from gql_jobs.settings import Settings
from tests.deadline import until
from tests.job_types.probe_jobs import ProbePayload
from tests.running import running_worker
from tests.scraped import reader, scrape
from tests.serving import free_port
from tests.stories import request


async def test_workers_on_one_machine_each_have_a_page(settings: Settings, job_log: JobLog) -> None:
    port = free_port()
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
