"""Counts and times for Prometheus."""

from __future__ import annotations

from typing import Any

_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counts and times of the server's work, in a registry of its own, so that several servers fit in one process.

    Args:
        worker: whose requests are counted when they are asked for.
    """

    def __init__(self, worker: Any):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, files and processor time, where /proc tells

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counter(f"tfmodels_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Any:
            return Histogram(f"tfmodels_{name}_seconds", text, buckets=_LATENCY, registry=self.registry)

        self._requests = counter("requests", "Requests by endpoint and status of the answer.", "endpoint", "status")
        self._gone = counter("clients_gone", "Requests whose client left before the answer was whole.")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._cached = counter("cached_tokens", "Tokens of prompts that a row had computed before.")
        self._made = counter("generated_tokens", "New tokens.")
        self._first = histogram("first_token", "From the arrival at the engine to the first token.")
        self._whole = histogram("answer", "From the arrival at the engine to the end of the answer.")

        def gauge(name: str, text: str, read: Any) -> None:
            Gauge(f"tfmodels_{name}", text, registry=self.registry).set_function(read)

        gauge("requests_in_flight", "Requests that are worked on or wait.", lambda: worker.in_flight)
        gauge("requests_limit", "Requests that may be worked on or wait.", lambda: worker.most)
        gauge("rows_busy", "Rows of the engines that work on a request.", lambda: worker.busy)

        def total(name: str) -> float:
            return sum(getattr(model, name) for model in worker.models.values())

        def programs() -> list[Any]:
            return [model.programs for model in worker.models.values() if model.engine is not None]

        gauge("rows", "Rows of the engines.", lambda: total("rows"))
        gauge("cache_bytes", "Memory of the engines' caches.", lambda: total("cache_bytes"))
        gauge("programs", "Compiled programs in memory.", lambda: sum(map(len, programs())))
        gauge("programs_limit", "Compiled programs that are kept.", lambda: sum(own.limit for own in programs()))
        gauge("programs_compiled", "Programs compiled so far.", lambda: sum(own.compilations for own in programs()))
        gauge("ready", "Whether the models are loaded.", lambda: worker.state == "ready")

    def request(self, endpoint: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()

    def client_gone(self) -> None:
        """Count a client that left."""
        self._gone.inc()

    def first_token(self, seconds: float) -> None:
        """Note how long a first token took."""
        self._first.observe(seconds)

    def answered(self, *, prompt: int, cached: int, made: int, seconds: float) -> None:
        """Count the tokens of an answer."""
        self._prompt.inc(prompt)
        self._cached.inc(cached)
        self._made.inc(made)
        self._whole.observe(seconds)

    def embedded(self, tokens: int) -> None:
        """Count the tokens of texts that were made vectors."""
        self._prompt.inc(tokens)

    def text(self) -> tuple[bytes, str]:
        """The page that Prometheus reads, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
