"""``/metrics`` of a process that serves nothing else, in Prometheus' format, at a port of its own.

A thread answers it, so that it also shows an event loop that stands still. Nobody has to say who asks, so it listens on
loopback unless it is told otherwise. API processes have theirs in ``web.monitoring``.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app, start_http_server
from prometheus_client.registry import Collector

from gql_jobs.processes.listening import first_free, is_loopback, names_address
from gql_jobs.settings import Settings

log = logging.getLogger(__name__)


def _by_address(page: WSGIApplication) -> WSGIApplication:
    """Return the page, refused under a name that a page of another site may have given this machine."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if names_address(environ.get("HTTP_HOST", "")):
            return page(environ, start)
        start("400 Bad Request", [("Content-Type", "text/plain"), ("X-Content-Type-Options", "nosniff")])
        return [b"This host name is not served.\n"]

    return answer


@contextmanager
def metrics_served(settings: Settings, collector: Collector) -> Iterator[int | None]:
    """Serve ``/metrics`` until the block ends, if ``metrics_port`` is set; yields the port, or None where it is off.

    On loopback it is refused under names: a page of another site may have a name of its own lead to this machine.

    :param settings: its port, or the next free one above it, and its address.
    :param collector: what it shows beside the figures of the process itself; called in another thread.
    :raises OSError: if no port is free.
    """
    if settings.metrics_port is None:
        yield None
        return
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(collector)
    serve = partial(start_http_server, addr=settings.metrics_host, registry=registry)
    server, thread = first_free(settings.metrics_port, serve)
    if is_loopback(settings.metrics_host):
        server.set_app(_by_address(make_wsgi_app(registry)))
    log.info("metrics at http://%s:%d/metrics", settings.metrics_host, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
