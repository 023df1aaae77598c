"""Trains a new vocabulary for a backend whose other steps stay."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from tfmodels.utils.text import did_you_mean, quote

_TRAINERS = {
    "BPE": trainers.BpeTrainer,
    "Unigram": trainers.UnigramTrainer,
    "WordLevel": trainers.WordLevelTrainer,
    "WordPiece": trainers.WordPieceTrainer,
}


def retrained(
    backend: Tokenizer,
    texts: Iterable[Any],
    vocab_size: int,
    length: int | None,
    new_special_tokens: Sequence[str | AddedToken],
    renamed: Mapping[str, str],
    options: Mapping[str, Any],
) -> Tokenizer:
    """Train; the arguments are those of `PreTrainedTokenizerFast.train_new_from_iterator`.

    Raises:
        ValueError: the kind of model cannot be trained, or a token that goes around texts is not in the vocabulary.
        TypeError: an option that the trainer does not have.
    """
    state = json.loads(backend.to_str())
    added, around = state.pop("added_tokens"), state.pop("post_processor")
    model = state["model"]
    if model["type"] not in _TRAINERS:
        raise ValueError(f"A {model['type']} model cannot be trained; those that can be are {', '.join(_TRAINERS)}.")
    trainer_class, options = _TRAINERS[model["type"]], dict(options)
    known = inspect.signature(trainer_class).parameters.keys() - {"self", "vocab_size", "special_tokens"}
    for name in options:
        if name not in known:  # the library would print a line and go on without it
            raise TypeError(
                f"unknown argument {quote(name)}: training a {model['type']} model takes {', '.join(sorted(known))}"
                f"{did_you_mean(name, known) or '.'}"
            )
    if model["type"] == "Unigram":
        if model["unk_id"] is not None:
            unknown = model["vocab"][model["unk_id"]][0]
            options["unk_token"] = renamed.get(unknown, unknown)
            model |= {"unk_id": 0, "vocab": [[options["unk_token"], 0.0]]}
    else:
        model["vocab"] = {}
        if model["type"] == "BPE":
            model["merges"] = []
            for name in ("continuing_subword_prefix", "end_of_word_suffix"):
                if model[name] is not None:
                    options.setdefault(name, model[name])
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
    if '"ByteLevel"' in json.dumps(state["pre_tokenizer"]):
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    special = []
    for token in added:
        # The trainer of Unigram models finds no other place for added tokens; other models get them from the caller.
        if token["special"] or model["type"] == "Unigram":
            fields = {name: value for name, value in token.items() if name != "id"}
            fields["content"] = renamed.get(fields["content"], fields["content"])
            special.append(AddedToken(**fields))
    trained = Tokenizer.from_str(json.dumps(state))
    trainer = trainer_class(vocab_size=vocab_size, special_tokens=[*special, *new_special_tokens], **options)
    trained.train_from_iterator(texts, length=length, trainer=trainer)
    if around is not None:
        _renumber(around, trained, renamed)
        trained = Tokenizer.from_str(json.dumps({**json.loads(trained.to_str()), "post_processor": around}))
    return trained


def _renumber(part: dict[str, Any], backend: Tokenizer, renamed: Mapping[str, str]) -> None:
    """Give the tokens of a post-processor the ids that they have now, in place."""

    def index(token: str) -> int:
        found = backend.token_to_id(token)
        if found is None:
            raise ValueError(
                f"The token {quote(token)} goes around every text, but the new vocabulary does not have it."
            )
        return found

    for inner in part.get("processors", ()):
        _renumber(inner, backend, renamed)
    for token in part.get("special_tokens", {}).values():
        token["tokens"] = [renamed.get(name, name) for name in token["tokens"]]
        token["ids"] = [index(name) for name in token["tokens"]]
    for name in ("cls", "sep"):
        if name in part:
            token = renamed.get(part[name][0], part[name][0])
            part[name] = [token, index(token)]
