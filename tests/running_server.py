"""Servers of `tfmodels.serving` in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
import time


class Running:
    """A server in a thread of this process.

    Args:
        worker: of `tfmodels.serving.worker`, not started.
        options: of `make_app`.
    """

    def __init__(self, worker, **options):
        import uvicorn

        from tfmodels.export.rest_server.connections import protocol_for
        from tfmodels.serving.application import make_app

        self.worker = worker
        self.app = make_app(worker, **options)
        self.service = self.app.state.service
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        config = uvicorn.Config(
            self.app,
            http=protocol_for(self.service.limits.read_seconds),
            ws="none",
            lifespan="on",
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.sock]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def ready(self):
        """Wait until the models are loaded."""
        wait_until(lambda: self.worker.state != "loading", 120)
        assert self.worker.state == "ready", self.worker.error
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(20)
        self.sock.close()
        assert not self.thread.is_alive()


def wait_until(holds, seconds):
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
