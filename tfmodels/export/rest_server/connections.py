"""Connections that are closed when their client is too slow."""

from __future__ import annotations

from typing import Any


def protocol_for(seconds: float) -> Any:
    """uvicorn's HTTP protocol, which closes connections whose headers, or whose reading of an answer, take longer."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        deadline: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._restart()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()  # a request is being answered; its body has a limit of its own
            elif self.deadline is None:
                self._restart()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._restart()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop()
            super().connection_lost(error)

        def _restart(self) -> None:
            self._stop()
            self.deadline = self.loop.call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return Impatient
