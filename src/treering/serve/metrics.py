"""What the server counts of itself, for Prometheus. Never what was asked."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from treering.types import Trend

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TYPE = CONTENT_TYPE_LATEST
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Metrics:
    """Counters of one server, in a registry of their own. ``paths`` are those that are told apart."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.paths: set[str] = set()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "treering_requests", "Requests answered.", ("path", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "treering_request_seconds",
            "Until the whole answer was sent.",
            ("path",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._under_way = Gauge("treering_requests_under_way", "Requests that are not answered yet.", registry=registry)
        self._tokens = Counter("treering_tokens", "Tokens of the local model.", ("kind",), registry=registry)
        self._age = Gauge(
            "treering_index_age_seconds",
            "Since the index was last brought up to date.",
            ("repository",),
            registry=registry,
        )

        self._spent = Gauge(
            "treering_spent_today_dollars",
            "What was spent and reserved today (UTC) for a model that costs money.",
            ("repository",),
            registry=registry,
        )

        self._series = Gauge(
            "treering_series",
            "The newest of each figure that the runs tell (docs/monitoring.md).",
            ("repository", "series"),
            registry=registry,
        )
        self._worse = Gauge(
            "treering_series_worse",
            "1 where a figure is shown to have got worse, against the noise of a bootstrap.",
            ("repository", "series"),
            registry=registry,
        )
        self._promoted = Gauge(
            "treering_trainings",
            "Trainings of a repository's models, by whether they came into use.",
            ("repository", "promoted"),
            registry=registry,
        )

    def begun(self) -> None:
        self._under_way.inc()

    def path_of(self, path: str) -> str:
        """The path itself, if it is one that is told apart: what else may stand in it is nobody's business."""
        return path if path in self.paths else "other"

    def ended(self, method: str, path: str, status: int, seconds: float) -> None:
        path = self.path_of(path)
        self._requests.labels(path, method if method in METHODS else "other", str(status or "left")).inc()
        self._seconds.labels(path).observe(seconds)
        self._under_way.dec()

    def wrote(self, *, prompt: int, answer: int) -> None:
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("answer").inc(answer)

    def stood(self, repository: str, age: float, spent: float) -> None:
        """How a repository stands: the age of its index, and what was spent and reserved on its behalf today."""
        self._age.labels(repository).set(age)
        self._spent.labels(repository).set(spent)

    def went(self, repository: str, trend: Trend) -> None:
        """How a repository's figures went."""
        for one in trend.series:
            if one.newest is not None:
                self._series.labels(repository, one.name).set(one.newest)
            self._worse.labels(repository, one.name).set(one.state == "worse")
        for promoted in (True, False):
            count = sum(lesson.promoted == promoted for lesson in trend.lessons)
            self._promoted.labels(repository, str(promoted).lower()).set(count)

    def watch(self, name: str, told: str, value: Callable[[], float]) -> None:
        """A gauge that is read when the page is asked for."""
        Gauge(f"treering_{name}", told, registry=self.registry).set_function(value)

    def page(self) -> bytes:
        return generate_latest(self.registry)
