"""Prometheus metrics of the API server, in a registry of their own.

Counters are touched on the hot path; what can be computed (objects per resource, revision,
watches) is read from the store only when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from holdfast.api import kinds
from holdfast.store.log import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _StoreCollector(Collector):
    """What the store holds, read at scrape time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        objects = GaugeMetricFamily(
            "apiserver_storage_objects", "Objects stored, by resource.", labels=["resource"]
        )
        for kind in kinds.ALL:
            objects.add_metric([kind.resource], self._store.count(kind.bucket))
        yield objects
        yield GaugeMetricFamily(
            "holdfast_store_revision", "The newest revision.", value=self._store.revision
        )
        yield GaugeMetricFamily(
            "holdfast_store_watches", "Watches open.", value=self._store.watchers()
        )


class Metrics:
    """Counts requests; renders the exposition."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "apiserver_request",
            "Requests answered.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer, watches left out.",
            ["verb", "resource"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_StoreCollector(store))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def answered(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(verb, resource, str(code)).inc()
        if verb != "WATCH":
            self._seconds.labels(verb, resource).observe(seconds)

    def render(self) -> bytes:
        """The text a scraper reads."""
        return generate_latest(self.registry)
