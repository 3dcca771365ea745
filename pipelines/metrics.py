"""What a run tells Prometheus while it lives: `gristmill run --metrics PORT` serves http://localhost:PORT/metrics."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from pipelines.plan import Plan
from pipelines.recipe import RecipeError


class Metrics:
    """Hears the events of a run and serves them as counters and gauges; ends with the run."""

    def __init__(self, plan: Plan, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
        except ImportError as error:
            raise RecipeError("--metrics needs prometheus-client; install gristmill[metrics]") from error
        self._registry = CollectorRegistry()
        told: dict[str, Any] = {"registry": self._registry}
        recipe = plan.layout.recipe.name
        Gauge("gristmill_tasks_planned", "Tasks of this run.", ["recipe"], **told).labels(recipe).set(plan.tasks)
        self._tasks = Counter("gristmill_tasks", "Tasks that are done.", ["action"], **told)
        self._failed = Counter("gristmill_tasks_failed", "Tasks that were given up.", ["action"], **told)
        self._rows = Counter("gristmill_rows", "Rows of committed parts.", ["step"], **told)
        self._bytes = Counter("gristmill_bytes", "Bytes of committed parts.", ["step"], **told)
        self._limited = Counter("gristmill_rows_limited", "Rows that broke a worker and were quarantined.", **told)
        self._setbacks = Counter("gristmill_setbacks", "Tries of a task that did not count and were made again.", **told)
        self._seconds = Histogram("gristmill_task_seconds", "Time of a task in its worker.", ["action"], **told)
        self._busy = Gauge("gristmill_workers_busy", "Workers with a task.", **told)
        self._slowest = Gauge("gristmill_slowest_task_seconds", "How long the slowest task of now has been at its batch.", **told)
        model = ["model"]
        self._asked = {
            "in_flight": Gauge("gristmill_llm_in_flight", "Requests that were sent and not answered yet.", model, **told),
            "limit": Gauge("gristmill_llm_limit", "Requests that may be in flight now.", model, **told),
            "queued": Gauge("gristmill_llm_queued", "Requests that wait for a place.", model, **told),
            "slowed": Gauge("gristmill_llm_slowed", "Times that the server asked for patience, by workers of now.", model, **told),
        }
        self._last = Gauge("gristmill_last_event_timestamp_seconds", "When the last event came.", **told)
        self._server, self._thread = start_http_server(port, registry=self._registry)
        self.port: int = self._server.server_port

    def __call__(self, event: dict[str, Any], executor: Any) -> None:
        """Hear one event."""
        kind = event["event"]
        self._last.set(time.time())
        if kind == "part":
            step = event["address"].removeprefix("spill:").rsplit("-", 1)[0]
            self._rows.labels(step).inc(event["rows"])
            self._bytes.labels(step).inc(event["bytes"])
            self._seconds.labels(event["action"]).observe(event["seconds"])
            self._limited.inc(len(event["limited"]))
        elif kind == "task":
            self._tasks.labels(event["action"]).inc()
            self._setbacks.inc(len(event["setbacks"]))
        elif kind == "failed":
            self._failed.labels(event["action"]).inc()
            self._setbacks.inc(len(event["setbacks"]))
        elif kind == "asking":
            for pulse in event["models"]:
                for name, gauge in self._asked.items():
                    gauge.labels(pulse["model"]).set(pulse[name])
        at_work = executor.at_work() if hasattr(executor, "at_work") else []
        self._busy.set(len(at_work))
        self._slowest.set(max((seconds for _, _, seconds in at_work), default=0.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
