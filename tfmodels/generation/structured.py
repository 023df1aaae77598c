"""Structured output: JSON by a schema, regular expressions and grammars, as masks of the next token.

The masks come from the library llguidance (`pip install 'tfmodels[structured]'`), which reads the tokenizer's file.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.utils.cores import available_cores
from tfmodels.utils.text import did_you_mean, quote
from tfmodels.utils.warn import warn

_TYPES = '"text", "json_object", "json_schema", "regex" or "grammar"'

# A blank or a new line at most between the parts of JSON: a model that likes white space would come to no end.
_JSON = {"whitespace_pattern": r"[ \n]?"}

# Keywords of JSON Schema and OpenAPI whose values are schemas by name, those whose values hold no schemas, and others.
_NAMED_SCHEMAS = {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
_VALUES = {"const", "default", "dependentRequired", "discriminator", "enum", "example", "examples"}
_VALUES |= {"externalDocs", "x-guidance", "xml"}
_OTHERS = """
    $anchor $comment $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalItems additionalProperties allOf
    anyOf contains contentEncoding contentMediaType contentSchema deprecated description else exclusiveMaximum
    exclusiveMinimum format id if items maxContains maxItems maxLength maxProperties maximum minContains minItems
    minLength minProperties minimum multipleOf not nullable oneOf pattern prefixItems propertyNames readOnly required
    then title type unevaluatedItems unevaluatedProperties uniqueItems writeOnly
"""
_KEYWORDS = {*_NAMED_SCHEMAS, *_VALUES, *_OTHERS.split()}
# Below it names are too unlike to be a slip.
_NEAR_KEYWORD = 0.8


# Characters that end parts of JSON, those first that end most.
_CLOSING = (b'"', b"}", b"]", b",", b":")
# Tokens that an answer may need to become whole, beyond which it is not tried.
_LONGEST_END = 512
# Tokens between two looks at how far the end is, and room for what comes meanwhile.
_LOOK_EVERY, _SPARE = 4, 16
# Tokens left at which the end is looked for first.
_FIRST_LOOK = 320
# Threads at most that compute masks.
_MOST_THREADS = 8


class Grammar:
    """A grammar that an answer must follow.

    JSON is led to its end in time: where `max_new_tokens` comes near, only tokens that end it soonest are allowed.

    Args:
        response_format: as servers take it: `{"type": "json_object"}`, `{"type": "json_schema", "json_schema":
            {"schema": {...}}}`; and `{"type": "regex", "regex": "..."}` or `{"type": "grammar", "grammar": "..."}`,
            a grammar in Lark's form.
        tokenizer: of the model.
        vocab_size: number of the model's scores.
        eos_token_ids: ids that end an answer; at least one.

    Raises:
        ImportError: llguidance is not installed.
        ValueError: an unknown format, a schema or expression that is wrong, that nothing meets or that holds a part
            llguidance does not support, no tokenizer, no end-of-sequence token.
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
        reader, closing = _reader_of(tokenizer, vocab_size, tuple(eos_token_ids))
        self._start = library.LLMatcher(reader, grammar)
        problem = self._start.get_error()
        if not problem:
            self._first = self._start.compute_bitmask()
            # Only now it is known whether any token can begin an answer.
            problem = self._start.get_error() and "no token can begin it"
        if problem:
            raise ValueError(f"response_format={quote(response_format)} {_explained(problem)}")
        self.vocab_size = vocab_size
        self._ends = _set_of(token for token in eos_token_ids if token < vocab_size)
        self._closing = closing if response_format["type"] in ("json_object", "json_schema") else ()

    def matcher(self) -> Matcher:
        """The state of an answer without tokens."""
        return Matcher(self._start.deep_copy(), self._first, self.vocab_size, self._ends, self._closing)


class Matcher:
    """The state of a grammar after the tokens of an answer so far.

    Sets of tokens are integers here, with a bit for every token.

    Args:
        state: llguidance's matcher.
        first: its mask of the first token.
        vocab_size: number of tokens.
        ends: the tokens that end an answer.
        closing: the tokens that end parts of it, a set for each kind, those first that are to be taken first; empty
            where nothing is known of them.
    """

    def __init__(self, state: Any, first: bytes, vocab_size: int, ends: int, closing: Sequence[int] = ()):
        self._state = state
        self._vocab_size = vocab_size
        self._ends = ends
        self._closing = closing
        self._closes = False
        # The tokens that the grammar alone allows next; None until they are computed.
        self._next: np.ndarray | None = self._read(first)
        # Whether a token came that the grammar does not allow, as beams that nobody wants take: the answer ends there.
        self._strayed = False
        # Tokens that `upcoming` has told, and that `advance` has not been given yet.
        self._ahead: tuple[int, ...] = ()
        # Tokens to the end when it was looked for first, and the tokens left at which it is looked for again.
        self._distance: int | None = None
        self._look_at = 0

    def after(self, token: int) -> Matcher:
        """The state after one token more; this one stays."""
        matcher = copy.copy(self)
        matcher._state = self._state.deep_copy()
        matcher.advance(token)
        return matcher

    def advance(self, token: int) -> None:
        """Go on by a token."""
        if self._ahead:
            self._ahead = self._ahead[1:]
        elif not self._state.is_stopped():
            self._consume(token)

    def _consume(self, token: int) -> None:
        allowed = self._next is None or bool(self._next[token // 32] >> token % 32 & 1)
        self._strayed = not (self._state.consume_token(token) or allowed)
        self._next = None

    def allowed(self, left: int | None = None) -> np.ndarray:
        """Which tokens may come next, bool (vocab_size,); those that end it where the answer is whole.

        Args:
            left: tokens that may still come, this one included; None for any number.
        """
        words = self._allowed(left).view(np.uint8)
        return np.unpackbits(words, count=self._vocab_size, bitorder="little").view(bool)

    def upcoming(self, left: int, most: int) -> tuple[tuple[int, ...], np.ndarray]:
        """The tokens that must come next, whatever the model says, and those that may come after them.

        Args:
            left: tokens that may still come.
            most: tokens that must come at most.

        Returns:
            Token ids, and the tokens after them as int32 (ceil(vocab_size / 32),), a bit for every token, the lowest
            first.
        """
        while True:
            words = self._allowed(left - len(self._ahead))
            token = _only(words)
            if token is None or self._ends >> token & 1 or len(self._ahead) >= most:
                return self._ahead, words
            self._consume(token)
            self._ahead = (*self._ahead, token)

    def _allowed(self, left: int | None) -> np.ndarray:
        """The tokens that may come next, as `upcoming` returns them, with `left` as of `allowed`.

        Raises:
            ValueError: the library gives up, as with an expression that has too many states.
        """
        if self._lacks_mask():
            self._next = self._read(self._state.compute_bitmask())
        if self._state.is_error() and not self._strayed:
            raise ValueError(f"the grammar cannot be followed further: {self._state.get_error().splitlines()[0]}")
        if self._state.is_stopped():
            return self._words(self._ends)
        if self._closes_with(left):
            return self._words(self._soonest(int.from_bytes(self._next.tobytes(), "little")))
        return self._next

    def _lacks_mask(self) -> bool:
        """Whether `_allowed` would compute a mask."""
        return self._next is None and not self._state.is_stopped()

    def _read(self, mask: bytes) -> np.ndarray:
        """A mask of llguidance as `upcoming` returns it."""
        return np.frombuffer(mask, np.int32, -(-self._vocab_size // 32))

    def _words(self, tokens: int) -> np.ndarray:
        """A set of tokens as `upcoming` returns it."""
        return self._read(tokens.to_bytes(4 * -(-self._vocab_size // 32), "little"))

    def _closes_with(self, left: int | None) -> bool:
        """Whether the answer is led to its end, with so many tokens left."""
        if left is not None and self._closing and not self._closes:
            self._closes = self._must_close(left)
        return self._closes

    def _soonest(self, mask: int) -> int:
        """The allowed tokens that end the answer soonest."""
        return next((mask & tokens for tokens in (self._ends, *self._closing) if mask & tokens), mask)

    def _must_close(self, left: int) -> bool:
        """Whether the answer must come to its end now to be whole in time."""
        if left > _FIRST_LOOK:
            return False
        if self._distance is None:
            self._distance = self._tokens_to_end()
            self._look_at = 4 * (self._distance + _SPARE)
        if left > self._look_at:
            return False
        # One token may begin a part that has to be ended, too.
        room = self._distance // 2 + _SPARE
        distance = self._tokens_to_end()
        self._look_at = left - _LOOK_EVERY
        return distance <= _LONGEST_END and left <= distance + room

    def _tokens_to_end(self) -> int:
        """Tokens that end the answer from here; more than `_LONGEST_END` where there is no such end."""
        state, count = self._state.deep_copy(), 0
        while not state.is_stopped() and count <= _LONGEST_END:
            # A look at the allowed tokens takes a time by the length of the text that must come.
            tokens = state.compute_ff_tokens() or [_lowest(self._soonest(_mask(state)))]
            count += len(tokens)
            if count <= _LONGEST_END:
                state.consume_tokens(tokens)
        return count


def compute_masks(matchers: Iterable[Matcher]) -> None:
    """Compute the next masks of several answers in one call, on several cores; each `upcoming` has its own then.

    Args:
        matchers: different ones, of one vocabulary.
    """
    lacking = [matcher for matcher in matchers if matcher._lacks_mask()]
    if len(lacking) < 2:
        return
    masks = np.empty((len(lacking), -(-lacking[0]._vocab_size // 32)), np.int32)
    states = [(matcher._state, place) for place, matcher in enumerate(lacking)]
    _threads().unsafe_compute_mask_ptr(states, masks.ctypes.data, masks.strides[0], len(masks))
    for matcher, mask in zip(lacking, masks, strict=True):
        matcher._next = mask


@functools.cache
def _threads() -> Any:
    """The threads that compute masks, of which a process needs only one set."""
    return _library().LLExecutor(min(available_cores(), _MOST_THREADS))


# A forked process inherits the object but none of its threads, and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _mask(state: Any) -> int:
    return int.from_bytes(state.compute_bitmask(), "little")


def _only(words: np.ndarray) -> int | None:
    """The token of a set of one, given as `Matcher.upcoming` returns it; None for a set of several or none."""
    if np.count_nonzero(words) != 1:
        return None
    place = int(words.nonzero()[0][0])
    word = int(words[place]) & 0xFFFFFFFF
    return None if word & (word - 1) else 32 * place + word.bit_length() - 1


def _lowest(tokens: int) -> int:
    """The lowest token of a set."""
    return (tokens & -tokens).bit_length() - 1


def _set_of(tokens: Iterable[int]) -> int:
    return sum(1 << token for token in set(tokens))


class GrammarProcessor:
    """A score processor that keeps every row within a grammar.

    Args:
        grammar: of all rows.
        prompt_length: tokens that come before the answer.
        new: tokens of an answer at most.
    """

    def __init__(self, grammar: Grammar, prompt_length: int, new: int):
        self.prompt_length = prompt_length
        self.new = new
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
            rows.append(found[answer].allowed(self.new - len(answer)))
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
    if schema is True:
        schema = {}  # the same, and the library takes no options beside a bool
    own = schema is False or "x-guidance" in schema
    text = json.dumps(schema)
    _warn_of_slips(schema)
    return matcher.grammar_from_json_schema(text, **({} if own else {"defaults": _JSON}))


def _warn_of_slips(schema: Any) -> None:
    """Warn of names in a schema that are no keywords and close to one; JSON Schema passes over such names."""
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, list):
            todo += part
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if name not in _KEYWORDS and (meant := did_you_mean(name, _KEYWORDS, cutoff=_NEAR_KEYWORD)):
                warn(f"response_format: {quote(name)} is no keyword of JSON Schema and changes nothing{meant}")
            if name in _NAMED_SCHEMAS and isinstance(value, Mapping):
                todo += value.values()
            elif name not in _VALUES:
                todo.append(value)


def _explained(problem: str) -> str:
    """The library's problem with a response format, as the end of a sentence about it: what to do, where known."""
    if found := re.match(r"Unimplemented keys: \[(.+)\]", problem):
        several = ", " in found[1]
        names, them = f"the keyword{'s' if several else ''} {found[1]}", "them" if several else "it"
        return f"uses {names}, not supported here: leave {them} out of the schema, and check answers for {them}."
    if found := re.match("Unknown format: (.+)", problem):
        return f'uses the "format" {quote(found[1])}, not supported here: say it as a "pattern".'
    if problem.startswith("oneOf"):
        return 'uses "oneOf" where an answer may meet several of its schemas, not supported here: say "anyOf".'
    if found := re.match("Resource '(.+?)' is not present", problem):
        return f'refers to {quote(found[1])}, and nothing is fetched: copy that schema into "$defs".'
    return f"{'is not supported' if 'not supported' in problem else 'cannot be met'}: {problem[:300]}"


def wants_grammar(response_format: Any) -> bool:
    """Whether a response format limits the answer at all."""
    return response_format is not None and response_format != {"type": "text"}


# Readers of tokenizers that are in use: to write one as JSON, which finds its reader, takes a tenth of a second.
_READERS: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _reader_of(tokenizer: Any, vocab_size: int, eos_token_ids: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    known = _READERS.setdefault(tokenizer, {})
    key = (len(tokenizer), vocab_size, eos_token_ids)  # its tokens may become more
    if key not in known:
        known[key] = _reader(tokenizer._tokenizer.to_str(), vocab_size, eos_token_ids)
    return known[key]


@functools.lru_cache(maxsize=4)
def _reader(tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The tokenizer as llguidance reads it, which takes a second for large ones, and its tokens of `_CLOSING`."""
    source = json.dumps(_exact(json.loads(tokenizer_json)))
    reader = _library().LLTokenizer(source, n_vocab=vocab_size, eos_token=list(eos_token_ids))
    texts = [reader.decode_bytes([token]) for token in range(vocab_size)]
    return reader, tuple(_set_of(token for token, text in enumerate(texts) if text == closing) for closing in _CLOSING)


_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def _exact(part: Any, key: str = "") -> Any:
    """A tokenizer's file, or a part of it, that keeps every character of a text.

    The library asks it for the tokens of text that must come, and lost a space where the tokenizer strips those at the
    end, adds one at the beginning, or makes one of several.
    """
    if key == "normalizer":
        found = part.get("normalizers", [part]) if isinstance(part, dict) else []
        return _SPACES if _SPACES in found else None
    if isinstance(part, list):
        return [_exact(one) for one in part]
    if not isinstance(part, dict):
        return part
    if key == "model":  # large, and nothing of it changes texts
        return part
    part = {name: _exact(one, name) for name, one in part.items()}
    if part.get("type") == "Metaspace":
        part["prepend_scheme"] = "never"
    if part.get("type") == "ByteLevel":
        part["add_prefix_space"] = False
    return part
