"""A bucket on this machine: moto's server on a loopback port, with its requests counted and its faults on demand."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

BUCKET = "stix"
_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

Answer = Iterable[bytes]
Start = Callable[..., Any]


@dataclass
class Bucket:
    """What a test may ask of the server and do to it."""

    url: str
    endpoint: str
    requests: Counter[str] = field(default_factory=Counter)
    refuse: Callable[[str, str], bool] = lambda _method, _path: False
    """Which requests, by method and path, are answered by an error of the service."""
    status: str = "403 Forbidden"
    delay_s: float = 0.0
    sent: int = 0
    """Bytes of the answers."""

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count the requests of a ``with`` block, by method."""
        before = Counter(self.requests)
        counted: Counter[str] = Counter()
        yield counted
        counted.update(self.requests - before)

    @contextmanager
    def failing(self, refuse: Callable[[str, str], bool], *, status: str = "403 Forbidden") -> Iterator[None]:
        """Answer some requests of a ``with`` block by an error; by default one that is not worth another try."""
        usual, self.refuse, self.status = self.refuse, refuse, status
        try:
            yield
        finally:
            self.refuse = usual


class _Counting:
    """moto's application, counted, slowed down, or refusing."""

    def __init__(self, application: Any, bucket: Bucket) -> None:
        self.application, self.bucket = application, bucket

    def __call__(self, environ: dict[str, Any], start: Start) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.bucket.requests[method] += 1
        time.sleep(self.bucket.delay_s)
        if self.bucket.refuse(method, path):
            code = "AccessDenied" if self.bucket.status.startswith("403") else "SlowDown"
            start(self.bucket.status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{self.bucket.status}</Message></Error>".encode()]
        return self.sending(self.application(environ, start))

    def sending(self, answer: Answer) -> Answer:
        for part in answer:
            self.bucket.sent += len(part)
            yield part


@contextmanager
def serving() -> Iterator[Bucket]:
    """Serve buckets for a ``with`` block, and let every S3 client of this process find them."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class _Quiet(WSGIRequestHandler):
        """Keeps connections, and writes no line for each request."""

        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            return

    bucket = Bucket("", "")
    application = _Counting(DomainDispatcherApplication(create_backend_app), bucket)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bucket.endpoint = f"http://127.0.0.1:{server.port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**_KEYS, "AWS_ENDPOINT_URL": bucket.endpoint}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield bucket
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def _server() -> Iterator[Bucket]:
    pytest.importorskip("moto.server", reason="needs moto[server]")
    with serving() as bucket:
        yield bucket


_made = iter(range(10_000))


@pytest.fixture
def s3(_server: Bucket) -> Bucket:
    """Return a fresh bucket with nothing in it."""
    return fresh(_server)


def fresh(server: Bucket) -> Bucket:
    """Make a bucket with nothing in it the one that `url` names."""
    import s3fs

    name = f"{BUCKET}-{os.getpid()}-{next(_made)}"
    s3fs.S3FileSystem().mkdir(name)
    server.url = f"s3://{name}"
    return server
