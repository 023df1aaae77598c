"""A row of the engine that works on a request: what it has made so far, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmodels.generation.detokenizer import Detokenizer, StopCutter
from tfmodels.generation.request import Completion, Event, Request, TokenLogprobs
from tfmodels.generation.row_settings import kind_of
from tfmodels.generation.sampling import NONE_ALLOWED
from tfmodels.generation.stopping import StopStrings
from tfmodels.utils.text import shorten


class Row:
    """Work on one request.

    Args:
        request: what is asked.
        seed: of its draws.
        limit: new tokens at most.
        reused: tokens of the prompt that need not be run.
        tokenizer: makes text of the new tokens, or None.

    Attributes:
        run: tokens of the prompt that have been run.
        new: the new tokens.
        finish_reason: why the row has ended, as in `Completion`; None while it has not.
        cancelled: whether the request was given up; set by other threads.
        matcher: how far the answer has come in its grammar, or None.
        kind: the simplest kind of programs that serves the request.
    """

    def __init__(self, request: Request, *, seed: int, limit: int, reused: int, tokenizer: Any):
        config = request.config
        self.request = request
        self.seed = seed
        self.limit = limit
        self.run = self.reused = reused
        self.new: list[int] = []
        self.finish_reason: str | None = None
        self.cancelled = False
        self.matcher = None if request.grammar is None else request.grammar.matcher()
        self.kind = kind_of(request)
        self._ends = frozenset(config.eos_token_ids)
        self._deadline = None if config.max_time is None else time.monotonic() + config.max_time
        self._error: str | None = None
        self._logprobs: list[TokenLogprobs] = []
        self._text = ""
        # Tokens and characters that events have told.
        self._told = self._told_text = 0
        self._detokenizer = self._stop = self._cutter = None
        if tokenizer is not None:
            self._detokenizer = Detokenizer(tokenizer, request.prompt, skip_special_tokens=request.skip_special_tokens)
        if config.stop_strings is not None:
            self._stop = StopStrings(tokenizer, config.stop_strings)
            before = tokenizer.decode(request.prompt[-self._stop.window :])
            self._cutter = StopCutter(self._stop.strings, before)

    @property
    def wants_prompt(self) -> bool:
        """Whether a part of the prompt before its last token has not been run; decoding begins with that token."""
        return self.run < len(self.request.prompt) - 1

    @property
    def last(self) -> int:
        """The last token so far, which decoding runs next."""
        return self.new[-1] if self.new else self.request.prompt[-1]

    @property
    def left(self) -> int:
        """New tokens that it may still make."""
        return self.limit - len(self.new)

    def fail(self, error: Exception) -> None:
        """End the row because of an error in its own work."""
        self.finish_reason, self._error = "error", describe(error)

    def note(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs] = ()) -> None:
        """Add tokens to the answer until one of them ends it.

        Args:
            tokens: what the model has chosen.
            logprobs: of these tokens, where the request asks for them.
        """
        if self.finish_reason is not None:
            return
        before = len(self.new)
        try:
            for token in tokens:
                self._add(token)
                if self.finish_reason is not None:
                    break
            if self.finish_reason is None and self._deadline is not None and time.monotonic() > self._deadline:
                self.finish_reason = "time"
            self._logprobs += logprobs[: len(self.new) - before]
        except Exception as error:  # a grammar or a tokenizer; the other rows go on
            self.fail(error)

    def _add(self, token: int) -> None:
        if token < 0:
            banned = token == NONE_ALLOWED
            self._error = "no token may come: all of them are banned" if banned else "the model's scores are NaN"
            self.finish_reason = "error"
            return
        self.new.append(token)
        if token in self._ends:
            self.finish_reason = "stop"
        elif len(self.new) >= self.limit:
            self.finish_reason = "length"
        if self.matcher is not None:
            self.matcher.advance(token)
        if self._stop is not None and self._stop([[*self.request.prompt, *self.new]])[0]:
            self.finish_reason = "stop"

    def _write(self, piece: str) -> None:
        self._text += piece if self._cutter is None else self._cutter.add(piece)

    def event(self) -> Event | None:
        """The news since the last event, with the answer where the row has ended; None where there is none."""
        tokens, logprobs, answer = tuple(self.new[self._told :]), None, None
        if not tokens and self.finish_reason is None:
            return None
        self._add_text(tokens)
        has_text = self._detokenizer is not None
        text, whole = (self._text[self._told_text :], self._text) if has_text else (None, None)
        if self.request.logprobs is not None:
            logprobs = tuple(self._logprobs[self._told :])
        if self.finish_reason is not None:
            answer = Completion(
                id=self.request.id,
                prompt=self.request.prompt,
                tokens=tuple(self.new),
                finish_reason=self.finish_reason,
                reused=self.reused,
                text=whole,
                logprobs=None if logprobs is None else tuple(self._logprobs),
                error=self._error,
            )
        self._told, self._told_text = len(self.new), len(self._text)
        return Event(self.request.id, tokens, answer, text, logprobs)

    def _add_text(self, tokens: Sequence[int]) -> None:
        """Add the text of new tokens, and what was held back where the row has ended."""
        if self._detokenizer is None:
            return
        try:
            self._write(self._detokenizer.add(tokens))
            if self.finish_reason is not None:
                self._write(self._detokenizer.finish())
                self._text += "" if self._cutter is None else self._cutter.finish()
        except Exception as error:  # of the tokenizer
            self.fail(error)


def ending(request: Request, reason: str, *, has_text: bool, error: Exception | None = None) -> Event:
    """The event that ends a request which has no tokens.

    Args:
        request: what was asked.
        reason: its `finish_reason`.
        has_text: whether answers have a text.
        error: what went wrong, or None.
    """
    text, logprobs = "" if has_text else None, None if request.logprobs is None else ()
    answer = Completion(
        request.id, request.prompt, (), reason, text=text, logprobs=logprobs, error=error and describe(error)
    )
    return Event(request.id, (), answer, text, logprobs)


def describe(error: Exception) -> str:
    """An error as a line of text."""
    return f"{type(error).__name__}: {shorten(error)}"


def token_logprobs(
    tokens: Sequence[int], own: np.ndarray, top_ids: np.ndarray, top: np.ndarray, count: int
) -> list[TokenLogprobs]:
    """Log-probabilities of new tokens, read from what the programs return.

    Args:
        tokens: the new tokens.
        own: (n,), their log-probabilities.
        top_ids, top: (n, most), the most probable tokens and their log-probabilities.
        count: how many of them are wanted.
    """
    return [
        TokenLogprobs(
            token,
            float(own[place]),
            tuple(zip(top_ids[place, :count].tolist(), top[place, :count].tolist(), strict=True)),
        )
        for place, token in enumerate(tokens)
    ]
