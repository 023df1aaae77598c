"""Structured output: JSON by a schema, regular expressions and grammars, as masks of the next token.

The masks come from the library llguidance (`pip install 'tfmodels[structured]'`), which reads the tokenizer's file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.utils.text import quote

_TYPES = '"text", "json_object", "json_schema", "regex" or "grammar"'

# A blank or a new line at most between the parts of JSON: a model that likes white space would come to no end.
_JSON = {"whitespace_pattern": r"[ \n]?"}


class Grammar:
    """A grammar that an answer must follow.

    Args:
        response_format: as servers take it: `{"type": "json_object"}`, `{"type": "json_schema", "json_schema":
            {"schema": {...}}}`; and `{"type": "regex", "regex": "..."}` or `{"type": "grammar", "grammar": "..."}`,
            a grammar in Lark's form.
        tokenizer: of the model.
        vocab_size: number of the model's scores.
        eos_token_ids: ids that end an answer; at least one.

    Raises:
        ImportError: llguidance is not installed.
        ValueError: an unknown format, a schema or expression that is wrong or that nothing meets, no tokenizer, no
            end-of-sequence token.
    """

    def __init__(
        self, response_format: Mapping[str, Any], *, tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int]
    ):
        if tokenizer is None:
            raise ValueError("response_format needs tokenizer=, whose tokens the answer is made of.")
        if not eos_token_ids:
            raise ValueError("response_format needs an eos_token_id: the answer ends when it is whole.")
        library = _library()
        grammar = _source(response_format, library)
        reader = _reader(tokenizer._tokenizer.to_str(), vocab_size, tuple(eos_token_ids))
        self._start = library.LLMatcher(reader, grammar)
        problem = self._start.get_error() if self._start.is_error() else ""
        problem = problem or library.LLMatcher.validate_grammar(grammar, reader)
        if problem:
            raise ValueError(f"response_format={quote(response_format)} cannot be met: {problem[:300]}")
        self._ends = np.isin(np.arange(vocab_size), eos_token_ids)

    def matcher(self) -> Matcher:
        """The state of an answer without tokens."""
        return Matcher(self._start.deep_copy(), self._ends)


class Matcher:
    """The state of a grammar after the tokens of an answer so far.

    Args:
        state: llguidance's matcher.
        ends: bool (vocab_size,), the tokens that end an answer.
    """

    def __init__(self, state: Any, ends: np.ndarray):
        self._state = state
        self._ends = ends

    def after(self, token: int) -> Matcher:
        """The state after one token more; this one stays."""
        matcher = Matcher(self._state.deep_copy(), self._ends)
        matcher.advance(token)
        return matcher

    def advance(self, token: int) -> None:
        """Go on by a token."""
        if not self._state.is_stopped():
            self._state.consume_token(token)

    def allowed(self) -> np.ndarray:
        """Which tokens may come next, bool (vocab_size,); those that end it where the answer is whole."""
        if self._state.is_stopped():
            return self._ends
        mask = np.frombuffer(self._state.compute_bitmask(), np.uint8)
        return np.unpackbits(mask, count=len(self._ends), bitorder="little").view(bool)


class GrammarProcessor:
    """A score processor that keeps every row within a grammar.

    Args:
        grammar: of all rows.
        prompt_length: tokens that come before the answer.
    """

    def __init__(self, grammar: Grammar, prompt_length: int):
        self.prompt_length = prompt_length
        self._matchers: dict[tuple[int, ...], Matcher] = {(): grammar.matcher()}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Ban what the grammar does not allow; called once for every new token, in any order of rows."""
        found: dict[tuple[int, ...], Matcher] = {}
        rows = []
        for row in np.asarray(ops.convert_to_numpy(input_ids))[:, self.prompt_length :].tolist():
            answer = tuple(row)
            if answer not in found:
                matcher = self._matchers[answer[:-1]]
                found[answer] = matcher.after(answer[-1]) if answer else matcher
            rows.append(found[answer].allowed())
        self._matchers = found
        return ops.where(np.stack(rows), scores, -np.inf)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ImportError("response_format needs llguidance: pip install 'tfmodels[structured]'") from error
    return llguidance


def _source(response_format: Mapping[str, Any], library: Any) -> str:
    """The grammar of a response format, as llguidance reads it."""
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    matcher = library.LLMatcher
    if kind == "json_object":
        return _of_schema({"type": "object"}, matcher)
    if kind == "json_schema":
        named = response_format.get("json_schema")
        schema = named.get("schema") if isinstance(named, Mapping) else None
        if not isinstance(schema, (Mapping, bool)):
            raise ValueError(
                f'response_format={quote(response_format)}: {{"type": "json_schema", "json_schema": '
                '{"schema": ...}} was expected.'
            )
        return _of_schema(schema, matcher)
    if kind in ("regex", "grammar") and isinstance(response_format.get(kind), str):
        make = matcher.grammar_from_regex if kind == "regex" else matcher.grammar_from_lark
        return make(response_format[kind])
    raise ValueError(f"response_format={quote(response_format)}: a dict with type {_TYPES} was expected.")


def _of_schema(schema: Mapping[str, Any] | bool, matcher: Any) -> str:
    """The grammar of JSON that meets a schema; the schema's own `x-guidance` says otherwise where it has one."""
    own = isinstance(schema, Mapping) and "x-guidance" in schema
    return matcher.grammar_from_json_schema(json.dumps(schema), **({} if own else {"defaults": _JSON}))


def wants_grammar(response_format: Any) -> bool:
    """Whether a response format limits the answer at all."""
    return response_format is not None and response_format != {"type": "text"}


@functools.lru_cache(maxsize=4)
def _reader(tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]) -> Any:
    """The tokenizer as llguidance reads it, which takes a second for large ones."""
    return _library().LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=list(eos_token_ids))
