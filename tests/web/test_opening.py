"""An API process before NATS is there: it answers, says what it waits for, and needs nobody to go on."""

import re
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from gql_jobs.settings import Settings
from tests.api.operations import UNKNOWN_ID, create, page
from tests.by_hand import RestartingServer
from tests.deadline import until
from tests.serving import free_port, hear, is_ready, say, serving

_QUERY = "{ jobs { totalCount } }"


async def test_the_api_answers_while_it_waits_for_nats_and_goes_on_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    settings = Settings(nats_url=f"nats://user:secret@127.0.0.1:{port}", data_dir=tmp_path / "data")
    async with serving(settings, opened=False) as api, api.raw_socket() as opened, AsyncExitStack() as stack:
        assert (await api.http.get("/healthz")).status_code == 200

        answer = await api.http.get("/readyz")
        assert answer.status_code == 503
        # Whoever asks is not told where NATS is, nor what it answers.
        assert "NATS has not been reached yet" in answer.json()["checks"]["nats"]["message"]
        await until(lambda: f"nats://127.0.0.1:{port}" in caplog.text, "the log says what is wrong")
        for told in answer.text, (await api.http.get("/readyz")).text, (await api.http.get("/metrics")).text:
            assert not {str(port), "127.0.0.1", "secret"} & set(re.findall(r"[\w.]+", told))
        refusal = await api.refusal(_QUERY)
        assert refusal["extensions"]["code"] == "QUEUE_UNAVAILABLE"
        assert str(port) not in refusal["message"]
        watch = f'subscription {{ jobProgress(id: "{UNKNOWN_ID}") {{ cursor }} }}'
        assert (await api.refused_on(opened, "1", watch))["extensions"]["code"] == "QUEUE_UNAVAILABLE"
        # An EventSource would take an error for the end of its stream: one that comes back is asked to come later.
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
        async with api.http.stream("GET", "/graphql", params={"query": watch}, headers=headers) as stream:
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
            with pytest.raises(httpx.RemoteProtocolError):
                assert [line async for line in lines if line and not line.startswith("retry: ")] == []
        artifact = await api.http.get(f"/artifacts/{UNKNOWN_ID}/report.pdf")
        assert (artifact.status_code, artifact.json()["errors"][0]["extensions"]["code"]) == (503, "QUEUE_UNAVAILABLE")
        server = RestartingServer(tmp_path / "store", port, user="user", password="secret")  # noqa: S106
        stack.push_async_callback(server.stop)
        await server.start()
        await until(lambda: is_ready(api), "it is ready")
        assert (await create(api))["id"]
        # The socket is older than what it is answered from.
        await say(opened, id="2", type="subscribe", payload={"query": _QUERY})
        assert (await hear(opened))["payload"] == {"data": {"jobs": {"totalCount": 1}}}


async def test_a_socket_that_comes_to_a_process_that_has_just_started_is_served(settings: Settings) -> None:
    # A client such as graphql-ws connects again by itself, but gives up a subscription that is refused.
    async with serving(settings, opened=False) as api, api.raw_socket() as opened:
        await say(opened, id="1", type="subscribe", payload={"query": _QUERY})
        assert (await hear(opened))["payload"] == {"data": {"jobs": {"totalCount": 0}}}


@pytest.mark.parametrize("name", ["josé", "a b", "#hash", "what?mode=ro", "per%41cent", 'quo"te', "back\\slash"])
async def test_the_data_folder_may_have_any_name(settings: Settings, tmp_path: Path, name: str) -> None:
    async with serving(settings.model_copy(update={"data_dir": tmp_path / name})) as api:
        job = await create(api)
        assert [node["id"] for node in (await page(api))["nodes"]] == [job["id"]]
    assert (tmp_path / name / "index-0.sqlite").is_file()
