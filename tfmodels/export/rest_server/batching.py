"""Requests that wait together run as one batch.

Rows of different lengths are padded to the longest: on the right, or on the left for prompts that are continued; the
mask says where, and each request gets its own part of the outputs back.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

# Signatures whose rows know nothing of each other. Drawing depends on a row's number: such requests run alone.
JOINED = ("serving_default", "serving_int64", "serving_token_types", "serving_text", "generate", "generate_text")
PROMPTS = ("generate",)


class Full(Exception):
    """The queue holds as many requests as may wait."""


class Item(NamedTuple):
    """A request that waits: its signature, its inputs, and the future of its outputs."""

    signature: str
    inputs: dict[str, Any]
    answer: asyncio.Future

    @property
    def rows(self) -> int:
        return next((len(value) for value in self.inputs.values() if value.ndim), 1)

    @property
    def length(self) -> int:
        ids = self.inputs.get("input_ids")
        return 1 if ids is None else ids.shape[-1]

    @property
    def key(self) -> Any:
        """Equal for requests that may share a batch; None for one that runs alone."""
        if self.signature not in JOINED:
            return None
        parts = []
        for name, value in sorted(self.inputs.items()):
            # eos_token_id is a list of its own for the whole call; so are numbers.
            whole = value.ndim == 0 or name == "eos_token_id"
            parts.append((name, repr(value.tolist()) if whole else (value.ndim, value.shape[1:-1])))
        return self.signature, tuple(parts)


class Batcher:
    """Runs requests one batch after another.

    Args:
        runner: the SavedModel, with `run(inputs, signature)`, `declared` (its signatures) and `defaults`.
        wait_ms: how long the first request of a batch waits for others, in milliseconds.
        most_rows: of a batch.
        most_waiting: requests that may wait; further ones are refused.

    Attributes:
        sizes: rows of the last batches.
    """

    def __init__(self, runner: Any, wait_ms: float = 2.0, most_rows: int = 32, most_waiting: int = 256):
        self.runner, self.wait = runner, wait_ms / 1000
        self.most_rows, self.most_waiting = most_rows, most_waiting
        self.shapes = {
            found.name: {name: shape for name, (_, shape) in found.outputs.items()} for found in runner.declared
        }
        self.waiting: list[Item] = []
        self.arrived = asyncio.Event()
        self.sizes: list[int] = []

    async def predict(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs for one request's inputs. A caller that is cancelled takes its request back.

        Raises:
            Full: too many requests wait.
        """
        if len(self.waiting) >= self.most_waiting:
            raise Full(f"{self.most_waiting} requests wait already")
        item = Item(signature, inputs, asyncio.get_running_loop().create_future())
        self.waiting.append(item)
        self.arrived.set()
        return await item.answer

    async def work(self) -> None:
        """Answer requests for ever."""
        self.arrived = asyncio.Event()  # of this event loop
        if self.waiting:
            self.arrived.set()
        while True:
            await self.arrived.wait()
            if len(self.waiting) == 1:
                await asyncio.sleep(self.wait)
            batch = self._take()
            if batch:
                self.sizes = [*self.sizes[-99:], sum(item.rows for item in batch)]
                await self._answer(batch)

    def _take(self) -> list[Item]:
        """Take the first request that waits and those behind it that fit; forget those whose clients have gone."""
        waiting = [item for item in self.waiting if not item.answer.done()]
        batch: list[Item] = []
        self.waiting = []
        for item in waiting:
            (batch if not batch or self._fits(batch, item) else self.waiting).append(item)
        if not self.waiting:
            self.arrived.clear()
        return batch

    def _fits(self, batch: list[Item], item: Item) -> bool:
        if item.key is None or item.key != batch[0].key:
            return False
        rows = sum(other.rows for other in batch) + item.rows
        longest = max(item.length, *(other.length for other in batch))
        real = sum(other.rows * other.length for other in (*batch, item))
        return rows <= self.most_rows and rows * longest <= 2 * real  # at most half of it is padding

    async def _answer(self, batch: list[Item]) -> None:
        try:
            inputs = batch[0].inputs if len(batch) == 1 else join(batch)
            # In a thread: TensorFlow lets go of the interpreter, the server goes on taking requests.
            outputs = await asyncio.to_thread(self.runner.run, inputs, batch[0].signature)
        except Exception as error:
            if len(batch) > 1:  # one of them is at fault; the others get their answers
                for item in batch:
                    await self._answer([item])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        name = batch[0].signature
        parts = [outputs]
        if len(batch) > 1:
            parts = split(batch, outputs, self.shapes[name], self.runner.defaults[name].get("eos_token_id", ()))
        for item, part in zip(batch, parts, strict=True):
            if not item.answer.done():  # the client may have gone
                item.answer.set_result(part)


def join(batch: list[Item]) -> dict[str, Any]:
    """The inputs of several requests as those of one, padded with zeros to the longest."""
    import numpy as np

    longest = max(item.length for item in batch)
    joined = {}
    for name, value in batch[0].inputs.items():
        if value.ndim == 0 or name == "eos_token_id":
            joined[name] = value
            continue
        parts = []
        for item in batch:
            room = (longest - item.length, 0) if item.signature in PROMPTS else (0, longest - item.length)
            part = item.inputs[name]
            padded = "input_ids" in item.inputs
            parts.append(np.pad(part, [(0, 0)] * (part.ndim - 1) + [room]) if padded else part)
        joined[name] = np.concatenate(parts)
    return joined


def split(
    batch: list[Item], outputs: dict[str, Any], shapes: dict[str, tuple[int | None, ...]], eos: Any
) -> list[dict[str, Any]]:
    """Each request's part of the outputs of `join`'s inputs, of the shape that it would have alone.

    Args:
        batch: the requests.
        outputs: of all of them.
        shapes: of the outputs as the signature declares them, None at free axes.
        eos: ids that end a row where a request does not say.
    """
    longest, start, parts = max(item.length for item in batch), 0, []
    for item in batch:
        own = {name: values[start : start + item.rows] for name, values in outputs.items()}
        start += item.rows
        if item.signature in PROMPTS:
            sequences = own["sequences"][:, longest - item.length :]
            steps = _steps(sequences[:, item.length :], item.inputs.get("eos_token_id", eos))
            own["sequences"] = sequences[:, : item.length + steps]
        elif "input_ids" in item.inputs:
            axis = item.inputs["input_ids"].ndim - 1
            here = (slice(None),) * axis + (slice(item.length),)
            for name, values in own.items():
                if len(shapes[name]) > axis and shapes[name][axis] is None:
                    own[name] = values[here]
        parts.append(own)
    return parts


def _steps(added: Any, eos: Any) -> int:
    """Tokens until every row has ended, at most as many as there are."""
    import numpy as np

    ends = np.isin(added, np.asarray(eos))
    last = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, added.shape[1])
    return int(last.max()) if len(last) else 0
