"""The broker under test, known by nothing but its URL, and names that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pika

Connect = Callable[..., pika.BlockingConnection]  # takes changes of pika's connection parameters
DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


@dataclass(frozen=True)
class Broker:
    """Address and login of a broker, in the forms that the different clients ask for."""

    host: str
    port: int
    user: str
    password: str
    vhost: str

    @classmethod
    def from_url(cls, url: str) -> Broker:
        """Read an AMQP URL; a missing or single-slash path means vhost "/"."""
        parts = urlsplit(url)
        vhost = unquote(parts.path[1:]) if len(parts.path) > 1 else "/"
        return cls(
            host=parts.hostname or "localhost",
            port=parts.port or 5672,
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=vhost,
        )

    def with_login(self, user: str, password: str) -> Broker:
        """Return the same broker for another user."""
        return replace(self, user=user, password=password)

    @property
    def url(self) -> str:
        """The URL with everything spelt out, which every client understands."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"

    @property
    def kombu_url(self) -> str:
        """The URL as kombu and Celery write it: the vhost "/" is a second slash."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{self.vhost}"

    def pika_parameters(self, **changes: Any) -> pika.ConnectionParameters:
        """Return pika's connection parameters; `changes` replace single ones."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "virtual_host": self.vhost,
            "credentials": pika.PlainCredentials(self.user, self.password),
            "socket_timeout": 5,
            "stack_timeout": 10,
        }
        return pika.ConnectionParameters(**(settings | changes))


class Names:
    """Makes object names that are unique in the world, and remembers them for the clean-up."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self.exchanges: list[str] = []

    @staticmethod
    def text(prefix: str = "it") -> str:
        """Return a unique word, for anything that needs no clean-up."""
        return f"{prefix}.{uuid.uuid4().hex[:16]}"

    def queue(self, name: str | None = None) -> str:
        """Return a queue name (or note the given one); the queue is deleted after the test if it exists."""
        self.queues.append(name or self.text("it.q"))
        return self.queues[-1]

    def exchange(self, name: str | None = None) -> str:
        """Return an exchange name (or note the given one); it is deleted after the test if it exists."""
        self.exchanges.append(name or self.text("it.x"))
        return self.exchanges[-1]
