"""The options of tokenizers: which there are, and those that say how text is cut, as attributes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfmodels.tokenization import pipeline
from tfmodels.tokenization.vocabulary import SPECIAL_TOKEN_NAMES
from tfmodels.utils.arguments import MODELS_ALONE
from tfmodels.utils.text import did_you_mean, joined, quote, shorten
from tfmodels.utils.warn import warn

if TYPE_CHECKING:
    from tfmodels.tokenization.vocabulary import Vocabulary

BPE_CLEAN_UP = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"

# Arguments of every tokenizer's constructor, beside the pipeline options of its class.
OPTIONS = (
    *SPECIAL_TOKEN_NAMES,
    "additional_special_tokens",
    "extra_special_tokens",
    "added_tokens_decoder",
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    BPE_CLEAN_UP,
    "split_special_tokens",
    "spaces_between_special_tokens",
    "use_default_system_prompt",
    "errors",
    "add_bos_token",
    "add_eos_token",
    "chat_template",
    "name_or_path",
)
# Options of transformers that say how it is to build the tokenizer, where there is one way here, and arguments of
# models that scripts give to everything that they load.
WITHOUT_EFFECT = (
    *("from_slow", "verbose", "tokenizer_class", "backend", "processor_class", "max_len", "legacy_format"),
    *("dtype", "torch_dtype", *MODELS_ALONE, "return_unused_kwargs"),
)


class PipelineOption:
    """Attribute of a tokenizer that says how it cuts text, such as `add_prefix_space`; setting it changes that.

    Args:
        absent: its value where the backend has no such thing.
    """

    def __init__(self, absent: bool | None = False):
        self.absent = absent

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: Vocabulary | None, owner: type) -> Any:
        if tokenizer is None:
            return self
        return pipeline.options_of(tokenizer.backend_tokenizer).get(self.name, self.absent)

    def __set__(self, tokenizer: Vocabulary, value: bool | None) -> None:
        pipeline.configure(tokenizer.backend_tokenizer, **{self.name: value})


def check_options(owner: str, given: Mapping[str, Any], more: Iterable[str]) -> dict[str, Any]:
    """The options that count.

    Options for tokenizers that cut text in another way have no effect: scripts give them to every tokenizer.

    Args:
        owner: the class's name, for messages.
        given: keyword arguments.
        more: the pipeline options of the class.

    Raises:
        TypeError: an unknown option.
    """
    known = {*OPTIONS, *more}
    others = {*pipeline.OPTIONS} - known
    warn_idle(owner, (name for name in given if name in others and given[name]))
    options = {name: value for name, value in given.items() if name not in others and name not in WITHOUT_EFFECT}
    if unknown := sorted(options.keys() - known):
        raise TypeError(
            f"{owner} got unknown arguments {', '.join(map(shorten, unknown[:5]))}; it knows "
            f"{', '.join(sorted(known))}{did_you_mean(unknown[0], known) or '.'}"
        )
    return options


def warn_idle(owner: str, names: Iterable[str]) -> None:
    """Warn of options that change nothing about a tokenizer, if there are any."""
    if idle := list(names):
        warn(f"{joined(idle)} without effect: {owner} does not cut text that way.")


def checked_errors(value: Any) -> str:
    """The option `errors`: what decoding does with bytes that are no UTF-8, by the names of `bytes.decode`."""
    try:
        codecs.lookup_error(value)
    except (LookupError, TypeError) as error:
        raise ValueError(f'errors must be "replace", "ignore", "strict" or the like, got {quote(value)}.') from error
    return value
