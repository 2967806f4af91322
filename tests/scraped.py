"""What Prometheus would read from a ``/metrics`` page."""

from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(http: httpx.AsyncClient, url: str = "/metrics") -> Samples:
    """Every sample of a page, by name and labels."""
    answer = await http.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def reader(samples: Samples) -> Callable[..., float]:
    """``read(name, label=value)``: the one sample of that name with exactly these labels."""

    def read(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    return read
