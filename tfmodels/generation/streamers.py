"""Receivers of tokens while `generate` runs; nothing here needs TensorFlow."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tfmodels.generation.detokenizer import Detokenizer


def write_to_stdout(text: str) -> None:
    """Write at once, without waiting for the end of a line."""
    sys.stdout.write(text)
    sys.stdout.flush()


class TextStreamer:
    """Turns the tokens that `generate(..., streamer=...)` hands over into text, piece by piece.

    The pieces joined are the text of all tokens, each of whole characters (`Detokenizer`).

    Args:
        tokenizer: anything with `decode(ids, skip_special_tokens=...)`.
        skip_prompt: leave the prompt out; False writes it first.
        prompt_ids: ids of the prompt. With them the text continues the prompt's: its leading space is kept.
        skip_special_tokens: leave special tokens out.
        write: called with each piece of text, never empty. Default: write to standard output at once.

    Raises:
        ValueError: `put` gets more than one row.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> from tfmodels.generation.streamers import TextStreamer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> pieces = []
        >>> streamer = TextStreamer(tokenizer, write=pieces.append)
        >>> for token in tokenizer.encode("a café", add_special_tokens=False):
        ...     streamer.put([[token]])
        >>> streamer.end()
        >>> "".join(pieces)
        'a café'
    """

    def __init__(
        self,
        tokenizer: Any,
        skip_prompt: bool = True,
        *,
        prompt_ids: Iterable[int] | None = None,
        skip_special_tokens: bool = True,
        write: Callable[[str], None] = write_to_stdout,
    ):
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.skip_special_tokens = skip_special_tokens
        self.write = write
        self._prompt = [int(token) for token in prompt_ids or ()]
        self._reset()

    def _reset(self) -> None:
        self._text = Detokenizer(self.tokenizer, self._prompt, skip_special_tokens=self.skip_special_tokens)

    def put_prompt(self, ids: Any) -> None:
        """Receive the prompt, int (1, length), before the first new tokens."""
        if not self.skip_prompt:
            self.put(ids)

    def put(self, ids: Any) -> None:
        """Receive new tokens: int (1, new)."""
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise ValueError(f"TextStreamer writes one text: ids of shape (1, new) were expected; got {ids.shape}.")
        for token in ids[0].tolist():
            self._write(self._text.add([token]))

    def end(self) -> None:
        """Write what was held back; the streamer is as new afterwards."""
        self._write(self._text.finish())
        self._reset()

    def _write(self, piece: str) -> None:
        if piece:
            self.write(piece)


class TextIteratorStreamer(TextStreamer):
    """An iterator over the pieces of text, for a thread that reads while another one generates.

    Args:
        tokenizer, skip_prompt, prompt_ids, skip_special_tokens: as of `TextStreamer`.
        timeout: seconds to wait for a piece; None waits for ever.

    Raises:
        queue.Empty: no piece came in time.

    Example:
        >>> import threading
        >>> from tfmodels import AutoTokenizer, TFLlamaForCausalLM
        >>> from tfmodels.generation.streamers import TextIteratorStreamer
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> streamer = TextIteratorStreamer(tokenizer)
        >>> settings = {"max_new_tokens": 4, "jit_compile": False, "streamer": streamer}
        >>> inputs = tokenizer("Once upon", return_tensors="np")
        >>> thread = threading.Thread(target=model.generate, kwargs={**inputs, **settings})
        >>> thread.start()
        >>> "".join(streamer)
        'a time, there'
        >>> thread.join()
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = True, *, timeout: float | None = None, **options: Any):
        super().__init__(tokenizer, skip_prompt, write=self._keep, **options)
        self.timeout = timeout
        self._pieces: queue.Queue[str | None] = queue.Queue()

    def _keep(self, piece: str | None) -> None:
        self._pieces.put(piece)

    def end(self) -> None:
        super().end()
        self._keep(None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._pieces.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


class AsyncTextIteratorStreamer(TextStreamer):
    """The same for a coroutine: `async for piece in streamer`. Make it inside a running event loop.

    Args:
        tokenizer, skip_prompt, prompt_ids, skip_special_tokens: as of `TextStreamer`.
        timeout: seconds to wait for a piece; None waits for ever.

    Raises:
        TimeoutError: no piece came in time (before Python 3.11 `asyncio.TimeoutError`).
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = True, *, timeout: float | None = None, **options: Any):
        super().__init__(tokenizer, skip_prompt, write=self._keep, **options)
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def _keep(self, piece: str | None) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def end(self) -> None:
        super().end()
        self._keep(None)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await asyncio.wait_for(self._pieces.get(), self.timeout)
        if piece is None:
            raise StopAsyncIteration
        return piece


@contextlib.contextmanager
def ending_on_errors(streamer: Any) -> Iterator[None]:
    """End a streamer (or None) where generation fails, so that nobody waits for more."""
    try:
        yield
    except BaseException:
        if streamer is not None:
            streamer.end()
        raise
