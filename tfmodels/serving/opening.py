"""The part of a completion request that both endpoints share: its fields, its model, the head of its answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tfmodels.serving import sampling
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.fields import Fields
from tfmodels.serving.service import FINGERPRINT, Service


class Opening:
    """A request for completions, read and checked.

    Args:
        service: the server.
        body: fields of the request, not checked.

    Attributes:
        request: its fields.
        model: the language model that it asks.
        stream: whether the answer is to come piece by piece.
        each: answers to each prompt.

    Raises:
        APIError: the request is wrong.
    """

    fields: ClassVar[Fields]
    # The field without which there is nothing to answer, and how the identifiers of answers begin.
    needed: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, service: Service, body: Mapping[str, Any]):
        self.service = service
        request = self.request = self.fields.read(body)
        self.model = service.language_model(request.get("model"))
        if self.needed not in request:
            raise BadRequest(f"{self.needed} is missing.", self.needed)
        sampling.check_stream(request)
        self.stream: bool = request.get("stream", False)
        self.each: int = request.get("n", 1)

    def head(self, kind: str) -> dict[str, Any]:
        """Return the fields that begin every answer and every chunk of one."""
        return {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model.name,
            "system_fingerprint": FINGERPRINT,
        }
