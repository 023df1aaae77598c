"""The vocabulary of a tokenizer, with its special tokens. The file is long because it is one class, `Vocabulary`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from tfmodels.tokenization import pipeline
from tfmodels.utils.text import joined, quote

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


# Methods of transformers' tokenizers -> what users of these do instead.
_OTHER_WAYS = {
    "prepare_seq2seq_batch": "use tokenizer(texts, text_target=targets, ...)",
    "register_for_auto_class": "AutoTokenizer picks classes of tfmodels alone, and runs no code of a checkpoint",
    "convert_added_tokens": "use tokenizers.AddedToken(**values)",
    "save_chat_templates": "use save_pretrained, which writes chat templates too",
    "sp_model": "this tokenizer runs on the tokenizers library; see backend_tokenizer",
    "tokens_trie": "this tokenizer runs on the tokenizers library; see added_tokens_decoder",
}


class SpecialToken:
    """Attribute of a tokenizer that is one of its special tokens: a string, or None. `NAME_id` is its id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")
        self.is_id = name.endswith("_id")

    def __get__(self, tokenizer: Vocabulary | None, owner: type) -> Any:
        if tokenizer is None:
            return self
        return tokenizer._special_id(self.name) if self.is_id else tokenizer._named_tokens().get(self.name)

    def __set__(self, tokenizer: Vocabulary, value: Any) -> None:
        if self.is_id and value is not None:
            token = tokenizer.convert_ids_to_tokens(int(value))
            if token is None:
                raise ValueError(f"{self.name}_id={quote(value)} is not in the vocabulary of {len(tokenizer)} tokens.")
            value = token
        tokenizer._set_special(self.name, value)


class Vocabulary:
    """Base of tokenizers: tokens, their ids, and which of them are special."""

    _tokenizer: Tokenizer
    _special: dict[str, AddedToken | str | None]
    _additional: list[AddedToken | str]

    bos_token, bos_token_id = SpecialToken(), SpecialToken()
    eos_token, eos_token_id = SpecialToken(), SpecialToken()
    unk_token, unk_token_id = SpecialToken(), SpecialToken()
    sep_token, sep_token_id = SpecialToken(), SpecialToken()
    pad_token, pad_token_id = SpecialToken(), SpecialToken()
    cls_token, cls_token_id = SpecialToken(), SpecialToken()
    mask_token, mask_token_id = SpecialToken(), SpecialToken()

    def convert_tokens_to_ids(self, tokens: str | Iterable[str] | None) -> int | list[int] | None:
        """The id of a token, or a list for a list; for tokens that do not exist the unknown token's id, or None."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            index = self._tokenizer.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        if not isinstance(tokens, Iterable) or isinstance(tokens, bytes):
            raise ValueError(f"tokens={quote(tokens)}: a token, or a list of them, was expected.")
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str] | None:
        """The token of an id, or a list for a list; None for ids that are not in the vocabulary."""
        ids = to_list(ids)
        if not isinstance(ids, list):
            if not isinstance(ids, int):
                raise ValueError(f"ids={quote(ids)}: a token id, or a list of them, was expected.")
            return self._tokenizer.id_to_token(ids) if 0 <= ids < 1 << 32 else None
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.convert_ids_to_tokens(index) for index in ids if index not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens to the text they stand for."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    # -----------------------------------------------------------------------------------------------------------------
    # Special tokens around texts

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """The number of special tokens that a text, or a pair of texts, gets."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Put the special tokens around ids, as calling the tokenizer on their text does."""
        before, between, after = pipeline.special_frame(self._tokenizer, token_ids_1 is not None)
        return [*before, *token_ids_0, *between, *(token_ids_1 or []), *after]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for special tokens and 0 for others.

        Args:
            token_ids_0: ids of a text.
            token_ids_1: ids of the second text of a pair.
            already_has_special_tokens: the special tokens are in `token_ids_0` already; else the mask is that of the
                ids with special tokens put around them.

        Raises:
            ValueError: `token_ids_1` is given with `already_has_special_tokens`.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where the ids have their special tokens already.")
            special = set(self.all_special_ids)
            return [int(index in special) for index in to_list(token_ids_0)]
        before, between, after = pipeline.special_frame(self._tokenizer, token_ids_1 is not None)
        middle = [1] * len(between) + [0] * len(token_ids_1 or [])
        return [1] * len(before) + [0] * len(token_ids_0) + middle + [1] * len(after)

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The token types of `build_inputs_with_special_tokens`: which text of a pair each id belongs to."""
        lengths = len(token_ids_0), len(token_ids_1 or [])
        types = []
        for kind, text, type_id in pipeline.special_layout(self._tokenizer, token_ids_1 is not None):
            types += [type_id] * (lengths[text] if kind == "text" else 1)
        return types

    def update_post_processor(self) -> None:
        """Put the present bos and eos tokens around texts; setting one of them does so by itself.

        A tokenizer that puts other tokens around texts, as BERT's does, stays as it is.
        """
        if self._frames_by_ends():
            self._set_template(self.add_bos_token, self.add_eos_token)

    @property
    def add_bos_token(self) -> bool:
        """Whether texts get the bos token in front. Setting it changes that."""
        return self.bos_token_id in pipeline.special_frame(self._tokenizer, pair=False)[0]

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._set_ends(bool(value), self.add_eos_token)

    @property
    def add_eos_token(self) -> bool:
        """Whether texts get the eos token behind them. Setting it changes that."""
        return self.eos_token_id in pipeline.special_frame(self._tokenizer, pair=False)[2]

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._set_ends(self.add_bos_token, bool(value))

    def _set_ends(self, bos: bool, eos: bool) -> None:
        if not pipeline.has_template(self._tokenizer) or self._frames_by_ends():
            self._set_template(bos, eos)
        elif (bos, eos) != (self.add_bos_token, self.add_eos_token):
            before, _, after = pipeline.special_frame(self._tokenizer, pair=False)
            raise ValueError(
                "add_bos_token and add_eos_token cannot change this tokenizer, which puts "
                f"{joined(self.convert_ids_to_tokens(before + after))} around texts."
            )

    def _frames_by_ends(self) -> bool:
        """Whether a template puts bos and eos tokens around texts, and no others."""
        before, between, after = pipeline.special_frame(self._tokenizer, pair=True)
        ends = {self.bos_token_id, self.eos_token_id}
        return pipeline.has_template(self._tokenizer) and {*before, *between, *after} <= ends

    def _set_template(self, bos: bool, eos: bool) -> None:
        for wanted, name in ((bos, "bos_token"), (eos, "eos_token")):
            if wanted and self._special_id(name) is None:
                raise ValueError(f"add_{name}=True, but the tokenizer has no {name}; set it first.")
        pipeline.set_template(self._tokenizer, self.bos_token if bos else None, self.eos_token if eos else None)

    # -----------------------------------------------------------------------------------------------------------------
    # Vocabulary and special tokens

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` underneath."""
        return self._tokenizer

    @property
    def decoder(self) -> Any:
        """The decoder of the `tokenizers` library that joins tokens to text."""
        return self._tokenizer.decoder

    @property
    def can_save_slow_tokenizer(self) -> bool:
        """Whether `save_vocabulary` has a vocabulary file to write beside tokenizer.json."""
        return self.vocab_file is not None

    def sanitize_special_tokens(self) -> int:
        """Add the special tokens that the vocabulary lacks. Returns how many it added."""
        before = len(self)
        self._add_missing(self.all_special_tokens_extended)
        return len(self) - before

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary without added tokens; `len(tokenizer)` is the size with them."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids, added ones too."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        """All tokens with their ids, added ones too."""
        return self.get_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are looked for in text before it is cut, by id."""
        return self._tokenizer.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that are looked for in text before it is cut."""
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """The ids of the tokens that are looked for in text before it is cut."""
        return self.added_tokens_encoder

    def _set_special_tokens(self, given: Mapping[str, Any], defaults: Mapping[str, AddedToken | str]) -> None:
        """Take the special tokens that are given, and for other roles the defaults that are in the vocabulary."""
        present = {name: token for name, token in defaults.items() if self._index(token) is not None}
        named, self._additional = named_special_tokens(given)
        self._special = {}
        for name in dict.fromkeys((*SPECIAL_TOKEN_NAMES, *named)):
            token = named[name] if name in named else present.get(name)
            default = defaults.get(name)
            if isinstance(token, str) and isinstance(default, AddedToken):
                # A default also says how the token takes the space around it.
                token = AddedToken(**{**default.__getstate__(), "content": token})
            self._special[name] = token
        self._add_missing([*self._special.values(), *self._additional])

    def _add_stored_tokens(self, stored: Mapping[int, AddedToken]) -> None:
        """Add the tokens that files other than the vocabulary name, by id, and look for them as those say."""
        known = {index: token.__getstate__() for index, token in self.added_tokens_decoder.items()}
        new = [token for index, token in sorted(stored.items()) if known.get(index) != token.__getstate__()]
        if new:
            # In one call: the library rebuilds its search for added tokens at every call.
            self._tokenizer.add_tokens(new)
        for index, token in sorted(stored.items()):
            if self._index(token) != index:
                raise ValueError(
                    f"The added token {quote(str(token))} should have id {index}, but the vocabulary gives it "
                    f"{self._index(token)}: the tokenizer's files do not belong together."
                )

    def _add_missing(self, tokens: Iterable[AddedToken | str | None]) -> None:
        """Make sure that these tokens are in the vocabulary and are found in text as special tokens."""
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        missing = [token for token in tokens if token is not None and str(token) not in known]
        if missing:
            self._tokenizer.add_special_tokens(missing)

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens to the vocabulary; resize the model's embeddings to `len(tokenizer)` afterwards.

        Args:
            new_tokens: one or several tokens. A string is looked for in the normalised text, or, where normalising
                puts a space in front of the text and would put it in front of the token, too, in the text as it is.
            special_tokens: whether decoding may skip them.

        Returns:
            How many were new.

        Raises:
            ValueError: something else than tokens.
        """
        new_tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else _listed("new_tokens", new_tokens)
        if special_tokens:
            return self._tokenizer.add_special_tokens(new_tokens)
        normalized = not pipeline.prepends(self._tokenizer)
        return self._tokenizer.add_tokens([as_added_token(token, normalized=normalized) for token in new_tokens])

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, str | AddedToken | Sequence[str | AddedToken]],
        replace_additional_special_tokens: bool = True,
    ) -> int:
        """Set special tokens, and add those to the vocabulary that are not in it.

        Args:
            special_tokens_dict: token by name, such as {"pad_token": "<pad>"}; "additional_special_tokens" is a list.
            replace_additional_special_tokens: whether that list replaces the one there is, or extends it.

        Returns:
            How many were new in the vocabulary.

        Raises:
            ValueError: an unknown name, or something else than a token, or a list of them, under a name.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise ValueError(
                f"special_tokens_dict={quote(special_tokens_dict)}: a dict such as {{'pad_token': '<pad>'}} was "
                "expected."
            )
        names = (*self._special, "additional_special_tokens", "extra_special_tokens")
        if unknown := [name for name in special_tokens_dict if name not in names]:
            raise ValueError(f"{quote(unknown[0])} is not the name of a special token; those are {', '.join(names)}.")
        checked = {
            name: (None if value is None else _checked(name, value)) if name in self._special else _listed(name, value)
            for name, value in special_tokens_dict.items()
        }
        before = len(self)
        for name, value in checked.items():
            if name in self._special:
                self._add_missing([value])
                self._set_special(name, value)
            else:
                kept = [] if replace_additional_special_tokens else self._additional
                self._additional = kept + [token for token in value if str(token) not in map(str, kept)]
                self._add_missing(self._additional)
        return len(self) - before

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """The special tokens by name; a list, "additional_special_tokens", where some have no name of their own."""
        others = self.additional_special_tokens
        return self._named_tokens() | ({"additional_special_tokens": others} if others else {})

    @property
    def special_tokens_map_extended(self) -> dict[str, str | AddedToken | list[str | AddedToken]]:
        """`special_tokens_map` with tokens as they were given: texts, or `AddedToken` with their options."""
        named = {name: token for name, token in self._special.items() if token is not None}
        return named | ({"additional_special_tokens": list(self._additional)} if self._additional else {})

    def _named_tokens(self) -> dict[str, str]:
        return {name: str(token) for name, token in self._special.items() if token is not None}

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own."""
        return [str(token) for token in self._additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[str | AddedToken] | None) -> None:
        self._additional = [] if tokens is None else _listed("additional_special_tokens", tokens)

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        """The ids of `additional_special_tokens`."""
        return [self._tokenizer.token_to_id(token) for token in self.additional_special_tokens]

    @property
    def all_special_tokens(self) -> list[str]:
        """All special tokens, each once."""
        return list(dict.fromkeys([*self._named_tokens().values(), *self.additional_special_tokens]))

    @property
    def all_special_tokens_extended(self) -> list[str | AddedToken]:
        """The same as `all_special_tokens`, with tokens as they were given."""
        found: dict[str, str | AddedToken] = {}
        for token in (*self._special.values(), *self._additional):
            if token is not None:
                found.setdefault(str(token), token)
        return list(found.values())

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of all special tokens that are in the vocabulary."""
        ids = map(self._tokenizer.token_to_id, self.all_special_tokens)
        return [index for index in ids if index is not None]

    def _special_id(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self._index(token)

    def _index(self, token: AddedToken | str) -> int | None:
        return self._tokenizer.token_to_id(str(token))

    def _replace_ends(self, former: Mapping[str, str | AddedToken | None]) -> None:
        """Put the present tokens of these roles around texts, in place of the former ones that a file put there."""
        present = {name: self._special[name] for name in former}
        self._special |= former
        for name, token in present.items():
            self._set_special(name, token)

    def _set_special(self, name: str, token: str | AddedToken | None) -> None:
        if token is not None:
            token = _checked(name, token)
        frame = None
        if name in ("bos_token", "eos_token") and self._frames_by_ends():
            frame = self.add_bos_token, self.add_eos_token
        self._special[name] = token
        if frame is not None and any(frame):
            bos, eos = frame
            self._set_template(bos and self.bos_token_id is not None, eos and self.eos_token_id is not None)

    def __getattr__(self, name: str) -> Any:
        # Some checkpoints name special tokens of their own, such as image_token.
        special = self.__dict__.get("_special", {})
        if name in special:
            return self._named_tokens().get(name)
        if name.removesuffix("_id") in special:
            return self._special_id(name.removesuffix("_id"))
        way = f": {_OTHER_WAYS[name]}" if name in _OTHER_WAYS else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {quote(name)}{way}.")


def named_special_tokens(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The special tokens by name, and those without, of the contents of a tokenizer_config.json."""
    named: dict[str, Any] = {}
    others: list[Any] = []
    for name in ("extra_special_tokens", "additional_special_tokens"):
        extra = given.get(name)
        if isinstance(extra, Mapping):
            named |= extra
        elif isinstance(extra, (list, tuple)):
            others = list(extra)
        elif extra:
            raise ValueError(f"{name}={quote(extra)}: a list of tokens was expected.")
    for name, value in given.items():
        is_token = isinstance(value, (str, AddedToken)) or (isinstance(value, Mapping) and "content" in value)
        if name in SPECIAL_TOKEN_NAMES or (name.endswith("_token") and is_token):
            named[name] = value
    named = {name: None if value is None else _checked(name, value) for name, value in named.items()}
    return named, [_checked("additional_special_tokens", value) for value in others]


def added_tokens(
    config: Mapping[str, Any], backend: Tokenizer | None = None, special: Iterable[Any] = ()
) -> dict[int, AddedToken]:
    """The tokens, by id, that a tokenizer_config.json names beside those of the vocabulary.

    Args:
        config: its content.
        backend: the tokenizer that gets them; it decides whether tokens of which nothing says so are normalised.
        special: tokens that are special whatever the config says of them; None stands for no token.
    """
    stored = config.get("added_tokens_decoder") or {}
    normalized = None if backend is None else not pipeline.prepends(backend)
    tokens = {int(index): as_added_token(token, normalized=normalized) for index, token in stored.items()}
    texts = {str(token) for token in special if token is not None}
    for index, token in tokens.items():
        if token.content in texts and not token.special:
            tokens[index] = AddedToken(**{**token.__getstate__(), "special": True})
    return tokens


def _checked(name: str, value: Any) -> AddedToken | str:
    if not isinstance(value, (str, AddedToken, Mapping)):
        raise ValueError(f"{name} must be a string, got {quote(value)}.")
    return value if isinstance(value, str) else as_added_token(value)


def _listed(name: str, tokens: Any) -> list[str | AddedToken]:
    """A list of tokens that a user gave; a single string would be taken for a list of its characters."""
    found = list(tokens) if isinstance(tokens, Iterable) and not isinstance(tokens, (str, bytes, Mapping)) else None
    if found is None or not all(isinstance(token, (str, AddedToken)) for token in found):
        raise ValueError(f"{name}={quote(tokens)}: a list of tokens, strings or AddedToken, was expected.")
    return found


def as_added_token(value: Any, normalized: bool | None = None) -> AddedToken:
    """An AddedToken of a string or of the dict that files hold.

    Args:
        value: what there is. An AddedToken is returned as it is: whether its text is normalised may be left to what
            it is added as, which a copy of it does not tell.
        normalized: whether it is looked for in the normalised text, where it is not special and the value does not
            say so.
    """
    if isinstance(value, AddedToken):
        return value
    fields = {"content": value} if isinstance(value, str) else dict(value)
    fields.pop("__type", None)
    fields.setdefault("normalized", not fields.get("special", False) and normalized is not False)
    return AddedToken(**fields)


def to_list(values: Any) -> Any:
    """Ids as Python lists (of lists) or one int, whatever they come in."""
    if isinstance(values, (int, np.integer)):
        return int(values)
    if isinstance(values, (list, tuple)):
        # Ids come in rows of one kind: looking at the first is enough, and rows may be long.
        return list(values) if values and isinstance(values[0], int) else [to_list(value) for value in values]
    if isinstance(values, (str, float, Mapping)) or values is None:
        return values
    return np.asarray(values).tolist()


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """The value of an argument that has a few choices, checked."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {quote(value)}.")
    return value
