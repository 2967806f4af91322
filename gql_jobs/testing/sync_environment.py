"""``JobsEnv``: the whole system for one test, for tests that are plain functions."""

from collections.abc import Callable, Collection, Coroutine
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar, overload

from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel

from gql_jobs.client import Client, JobHandle
from gql_jobs.jobs.registry import Payload
from gql_jobs.settings import Settings
from gql_jobs.testing.environment import DRAINED_WITHIN, AsyncJobsEnv, Drained
from gql_jobs.testing.job_records import JobRecord
from gql_jobs.testing.nats_namespaces import NatsNamespaces

_R = TypeVar("_R", bound=BaseModel | None)
_T = TypeVar("_T")


class JobsEnv:
    """An API and a worker over a namespace of their own, on an event loop in a thread; ``with`` starts and ends them.

    Each method is that of ``AsyncJobsEnv``, and waits for it.

    :param nats: the server; one for all tests of a process will do.
    :param imports: modules that register job types, beside those that are installed or imported already.
    :param settings: others than those of the environment variables, by name: ``{"num_workers": 10}``.
    :param queues: those that the worker serves; all by default.
    """

    def __init__(
        self,
        nats: NatsNamespaces,
        imports: Collection[str] = (),
        settings: dict[str, Any] | None = None,
        queues: Collection[str] = (),
    ) -> None:
        self._env = AsyncJobsEnv(nats, imports, settings, queues)
        self._ended = ExitStack()
        self._client: Client | None = None
        self.nats = SyncNatsOfEnv(self._env, self._wait)
        """The server: ``env.nats.stop()`` and ``env.nats.start()``."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(self._portal.wrap_async_context_manager(self._env))
            stack.callback(self._close_client)
            self._ended = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    @property
    def settings(self) -> Settings:
        """The settings of the API and the worker, which lead to this namespace."""
        return self._env.settings

    @property
    def url(self) -> str:
        """The address of the API, ``http://…``."""
        return self._env.url

    @property
    def client(self) -> Client:
        """A client of the API, made when it is first used."""
        if self._client is None:
            self._client = Client(self.url)
        return self._client

    def drain(self, timeout: float = DRAINED_WITHIN) -> Drained:
        """Wait until no job is queued, runs or is due, and return how things stand.

        :param timeout: seconds to wait at most.
        :raises NotDrained: an ``AssertionError`` that lists the jobs that are left then.
        """
        return self._wait(partial(self._env.drain, timeout))

    def advance(
        self, by: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move the clock of gql-jobs forward: what is due by then is queued, and what has expired is gone.

        :raises ValueError: for a negative time.
        """
        self._wait(partial(self._env.advance, by, days=days, hours=hours, minutes=minutes, seconds=seconds))

    @overload
    def assert_created(self, payload: type[Payload[_R]], /, **fields: Any) -> JobHandle[_R]: ...

    @overload
    def assert_created(self, payload: type[BaseModel], /, **fields: Any) -> JobHandle[Any]: ...

    def assert_created(self, payload: type[BaseModel], /, **fields: Any) -> JobHandle[Any]:
        """Return the newest job whose payload is of this model and has these values in its fields.

        :param fields: compared by ``==``; those that are left out may have any value.
        :raises AssertionError: if there is none; the text lists what was created.
        :raises TypeError: if the model has no such field.
        """
        found = self._wait(partial(self._env.assert_created, payload, **fields))
        return self.client.job(found.id)

    def assert_not_created(self, payload: type[BaseModel], /, **fields: Any) -> None:
        """Check that there is no job whose payload is of this model and has these values in its fields.

        :raises AssertionError: if there is one; the text lists what was created.
        :raises TypeError: if the model has no such field.
        """
        self._wait(partial(self._env.assert_not_created, payload, **fields))

    def created(self, payload: type[BaseModel] | None = None, /, **fields: Any) -> list[JobRecord]:
        """Return the jobs that there are, oldest first: all, or those that ``assert_created`` would find.

        :raises TypeError: if the model has no such field.
        """
        return self._wait(partial(self._env.created, payload, **fields))

    def kill_worker(self) -> None:
        """End the worker as if its process were killed, and start another one, which is given what that had in hand."""
        self._wait(self._env.kill_worker)

    def _wait(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        value: _T = self._portal.call(call)
        return value

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()


class SyncNatsOfEnv:
    """The server of an environment, which goes away and comes back; with it all environments of the process."""

    def __init__(self, env: AsyncJobsEnv, wait: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        self._nats = env.nats
        self._wait = wait

    def stop(self) -> None:
        """Stop it: nothing is stored or delivered from now on; what is stored stays."""
        self._wait(self._nats.stop)

    def start(self) -> None:
        """Start it, and wait until the API and the worker are connected again; do nothing if it runs."""
        self._wait(self._nats.start)
