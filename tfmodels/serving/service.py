"""The parts that all endpoints share: the worker with its models, the metrics, the limits."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from tfmodels import __version__
from tfmodels.serving.errors import BadRequest, UnknownModel
from tfmodels.serving.metrics import Metrics
from tfmodels.serving.worker import Worker
from tfmodels.utils.text import did_you_mean, quote, some

FINGERPRINT = f"tfmodels-{__version__}"


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a client's request.

    Args:
        body_bytes: of a request.
        read_seconds: for the headers, for the body, and for reading a piece of an answer.
    """

    body_bytes: int = 4 << 20
    read_seconds: float = 30.0


class Service:
    """The server's state.

    Args:
        worker: the thread with the models.
        limits: for clients.
    """

    def __init__(self, worker: Worker, limits: Limits | None = None):
        self.worker = worker
        self.limits = limits or Limits()
        self.metrics = Metrics(worker)

    def model(self, name: str | None) -> Any:
        """The model of a name; the first for None.

        Raises:
            UnknownModel: there is none of this name.
        """
        self.worker.check_ready()
        models = self.worker.models
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            near = did_you_mean(name, models)
            raise UnknownModel(f"The model {quote(name)} is not served here{near or f'; there is {some(models)}'}")
        return models[name]

    def language_model(self, name: str | None) -> Any:
        """A model that writes; errors as in `model`, and BadRequest where it does not."""
        model = self.model(name)
        if model.engine is None:
            raise BadRequest(f"{model.name} makes embeddings and writes no text; use /v1/embeddings.", "model")
        return model

    async def in_background(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run what takes a while and needs no model, so that other requests go on."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    async def prepare(self, model: Any, settings: dict[str, Any]) -> None:
        """Compile a request's grammar, which may take a second, before the thread of the models gets it."""
        if settings.get("response_format") is not None:
            settings["response_format"] = await self.in_background(model.grammar, settings["response_format"])
