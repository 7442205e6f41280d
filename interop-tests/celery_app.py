"""The Celery application of the Celery tests: imported by the tests, and by the workers that they start.

A worker finds broker, names and result backend in its environment; see `environment`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue
from waiting import eventually

URL, PREFIX, BACKEND = "INTEROP_CELERY_URL", "INTEROP_CELERY_PREFIX", "INTEROP_CELERY_BACKEND"


def environment(url: str, prefix: str, backend: str) -> dict[str, str]:
    """Return what a worker process needs to make the same application."""
    return {URL: url, PREFIX: prefix, BACKEND: backend}


def make_app(url: str, prefix: str, backend: str) -> Celery:
    """Make an application whose names on the broker all begin with `prefix`."""
    app = Celery(prefix, broker=url, backend=backend, set_as_current=False)
    dead = Queue(f"{prefix}.dead", Exchange(""), routing_key=f"{prefix}.dead")
    tasks = Queue(
        f"{prefix}.tasks",
        Exchange(f"{prefix}.tasks", type="direct"),
        routing_key="task",
        queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name},
    )
    urgent = Queue(f"{prefix}.urgent", tasks.exchange, routing_key="urgent", max_priority=10)
    app.conf.update(
        task_queues=[tasks, urgent],
        task_default_queue=tasks.name,
        task_default_exchange=tasks.exchange.name,
        task_default_routing_key="task",
        control_exchange=f"{prefix}.control",
        event_exchange=f"{prefix}.events",
        event_queue_prefix=f"{prefix}.events",
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True},
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        task_send_sent_event=True,
        task_track_started=True,
        result_chord_retry_interval=0.2,
        result_expires=300,
    )
    _register_tasks(app)
    return app


def names_of(prefix: str) -> tuple[list[str], list[str]]:
    """Return the queues and the exchanges that an application with this prefix leaves behind."""
    return (
        [f"{prefix}.tasks", f"{prefix}.dead", f"{prefix}.urgent"],
        [f"{prefix}.tasks", f"{prefix}.events", f"{prefix}.control.pidbox", f"reply.{prefix}.control.pidbox"],
    )


def _note(path: str, line: str) -> None:
    with Path(path).open("a") as notes:
        notes.write(line + "\n")


def _hold(request: Any, notes: str, gate: str) -> str:
    """Note the start, wait until the file `gate` exists, note the end."""
    _note(notes, f"start redelivered={bool(request.delivery_info['redelivered'])}")
    eventually(lambda: Path(gate).exists(), "the gate", patience_s=30)
    _note(notes, "end")
    return "held"


def _register_tasks(app: Celery) -> None:
    def task(name: str, **options: Any) -> Callable[[Callable[..., object]], object]:
        """Register for this application only, and not for all that there are."""
        return app.task(shared=False, name=name, **options)  # type: ignore[no-any-return]

    @task("add")
    def add(x: int, y: int) -> int:
        return x + y

    @task("total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task("echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return {"args": args, "kwargs": kwargs}

    @task("note")
    def note(notes: str, line: str) -> None:
        _note(notes, line)

    @task("fail")
    def fail(text: str) -> None:
        raise ValueError(text)

    @task("flaky", bind=True, max_retries=5)
    def flaky(self: Any, failures: int) -> int:
        """Fail so many times before returning the number of retries."""
        if self.request.retries < failures:
            raise self.retry(countdown=0.2)
        return int(self.request.retries)

    @task("redelivered", bind=True)
    def redelivered(self: Any) -> bool:
        return bool(self.request.delivery_info["redelivered"])

    @task("hold", bind=True, acks_late=True, reject_on_worker_lost=True)
    def hold(self: Any, notes: str, gate: str) -> str:
        return _hold(self.request, notes, gate)

    @task("hold_early", bind=True)
    def hold_early(self: Any, notes: str, gate: str) -> str:
        """Do the same as `hold`, but acknowledged before it starts."""
        return _hold(self.request, notes, gate)

    @task("reject", bind=True, acks_late=True)
    def reject(self: Any) -> None:
        raise Reject("not wanted", requeue=False)

    @task("requeue_once", bind=True, acks_late=True)
    def requeue_once(self: Any) -> str:
        if not self.request.delivery_info["redelivered"]:
            raise Reject("again", requeue=True)
        return "second time"


if PREFIX in os.environ:
    app = make_app(os.environ[URL], os.environ[PREFIX], os.environ[BACKEND])
