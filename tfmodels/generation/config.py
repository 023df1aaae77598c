"""The settings of `generate`: names and defaults that users know, checked, in and out of `generation_config.json`."""

from __future__ import annotations

import math
import numbers
import os
import warnings
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from tfmodels.utils.json_files import read_object, write_object
from tfmodels.utils.text import did_you_mean

FILE_NAME = "generation_config.json"
DEFAULT_NEW_TOKENS = 20


class GenerationConfig:
    """Settings of `generate`.

    A setting that was never given reads as its default below, and `None` always means "not given", so files of any
    version of the ecosystem read alike. Only given settings are written to files, compared and merged.

    Args:
        **settings: any of the settings below.

    Length
        max_length: number of tokens, prompt included, at which generation stops. When neither it nor
            `max_new_tokens` is given, 20 new tokens are generated.
        max_new_tokens: number of tokens to generate; wins over `max_length`.
        min_length: number of tokens, prompt included, before which no end-of-sequence token is generated.
        min_new_tokens: the same, counted without the prompt; wins over `min_length`.

    Strategy
        do_sample: draw the next token at random instead of taking the most probable one.
        num_beams: number of beams; 1 is no beam search.
        num_return_sequences: sequences generated for each prompt; more than one needs sampling or beams.
        early_stopping: with beams, stop at `num_beams` finished candidates (True), at a heuristic (False) or when
            no better candidate can come ("never").
        length_penalty: with beams, exponent of the length by which a candidate's score is divided.
        seed: integer that makes sampling reproducible.

    Sampling (used with `do_sample=True` only)
        temperature: divides the scores; above 1 flattens the distribution.
        top_k: number of most probable tokens kept; 0 keeps all.
        top_p: smallest set of most probable tokens whose probability exceeds this is kept; 1 keeps all.
        min_p: tokens less probable than this fraction of the most probable one are dropped.
        typical_p: probability mass of the locally typical tokens that are kept; 1 keeps all.
        epsilon_cutoff: tokens less probable than this are dropped; 0 drops none.
        eta_cutoff: the same with a limit that adapts to the entropy; 0 drops none.

    Scores
        repetition_penalty: above 1 makes tokens that have occurred less likely.
        no_repeat_ngram_size: n-grams of this length occur only once; 0 for no limit.
        bad_words_ids: token sequences that are never generated, a list of lists.
        sequence_bias: score added to the last token of a sequence, a list of `[[token ids], bias]` or a dict
            `{(token ids): bias}`.
        suppress_tokens: token ids that are never generated.
        begin_suppress_tokens: token ids that are not generated first.
        forced_bos_token_id: token id forced right after a prompt of one token.
        forced_eos_token_id: token id, or several, forced as the last token before the length limit.
        exponential_decay_length_penalty: `[start, factor]`; from `start` new tokens on, the score of the
            end-of-sequence tokens grows by `factor` to the power of the tokens since.
        remove_invalid_values: replace NaN and infinities in the scores.
        renormalize_logits: normalise the scores after all processors.

    Tokens
        bos_token_id, pad_token_id: token ids. eos_token_id: token id, or a list of them.

    Run and output
        use_cache: keep keys and values of past tokens.
        jit_compile: compile the decoding loop with XLA.
        return_dict_in_generate: return an output object instead of the token ids.
        output_scores, output_logits: keep the processed and the raw scores of each step in that object.

    Raises:
        TypeError: for an unknown setting, naming the closest known ones.
        ValueError: for a value that is out of range or contradicts another one.

    Example:
        >>> config = GenerationConfig(max_new_tokens=8, eos_token_id=2)
        >>> config.temperature, config.eos_token_ids
        (1.0, (2,))
        >>> config.update(do_sample=True, top_p=0.9)
        GenerationConfig(max_new_tokens=8, eos_token_id=2, do_sample=True, top_p=0.9)
        >>> config.update(top_q=0.9)
        Traceback (most recent call last):
        ...
        TypeError: unknown generation setting top_q; did you mean top_p, top_k?
    """

    # Class attributes are the defaults: an instance holds in its __dict__ just what was given.
    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None

    do_sample: bool = False
    num_beams: int = 1
    num_return_sequences: int = 1
    early_stopping: bool | str = False
    length_penalty: float = 1.0
    seed: int | None = None

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: list[list[int]] | None = None
    sequence_bias: list | dict | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    exponential_decay_length_penalty: list | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    use_cache: bool = True
    jit_compile: bool = True
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_logits: bool = False

    def __init__(self, **settings: Any):
        _refuse_unknown(settings, FIELDS)
        self._set(settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> GenerationConfig:
        """Make a configuration from the content of a `generation_config.json`.

        Args:
            settings: keys and values of the file. Unknown keys are kept, read as attributes and written again.

        Returns:
            The configuration. A special token id below zero, which old files use for "none", is dropped.

        Raises:
            ValueError: for a value that is out of range or contradicts another one.

        Example:
            >>> GenerationConfig.from_dict({"eos_token_id": [2, 3], "pad_token_id": -1, "top_k": None})
            GenerationConfig(eos_token_id=[2, 3])
        """
        config = cls()
        settings = {name: value for name, value in settings.items() if not _absent_token(name, value)}
        ineffective = [
            name
            for name, neutral in _UNSUPPORTED.items()
            if settings.get(name) is not None and settings[name] != neutral
        ]
        if ineffective:
            warnings.warn(
                "these settings of the generation configuration have no effect here: "
                + ", ".join(f"{name}={settings[name]!r}" for name in ineffective),
                stacklevel=2,
            )
        vars(config).update((name, value) for name, value in settings.items() if name not in FIELDS)
        for name in (name for name in settings if name in FIELDS):
            setattr(config, name, settings[name])
        config.validate()
        return config

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> GenerationConfig:
        """Read `generation_config.json` of a model folder.

        Args:
            folder: path of the folder, or of the file itself.

        Returns:
            The configuration.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: when the file is not JSON or holds a wrong value; the message names the file.
        """
        path = Path(folder)
        if not path.is_file():
            path = path / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(f"no {FILE_NAME} at {os.fspath(folder)!r}")
        settings = read_object(path)
        try:
            return cls.from_dict(settings)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """Take the generation settings out of a model configuration, for folders without `generation_config.json`.

        Args:
            model_config: a mapping (the content of `config.json`) or an object with `to_dict()`. Token ids are what
                it holds today; old ones hold other settings of generation too, and they are taken as well.

        Returns:
            The configuration.

        Example:
            >>> GenerationConfig.from_model_config({"bos_token_id": 1, "eos_token_id": 2, "hidden_size": 64})
            GenerationConfig(bos_token_id=1, eos_token_id=2)
        """
        settings = model_config if isinstance(model_config, Mapping) else model_config.to_dict()
        # `seed` and `jit_compile` are this package's: under these names a model config means something else.
        names = [name for name in GenerationConfig.__annotations__ if name not in ("seed", "jit_compile")]
        return cls.from_dict({name: settings[name] for name in names if settings.get(name) is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that were given, unknown keys of a file included, ready for JSON."""
        return {name: _jsonable(value) for name, value in vars(self).items()}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `generation_config.json` into a folder, which is made if need be.

        Args:
            folder: path of the folder.

        Raises:
            ValueError: when a value is out of range or contradicts another one; nothing is written then.
        """
        self.validate()
        os.makedirs(folder, exist_ok=True)
        write_object(Path(folder, FILE_NAME), self.to_dict(), sort_keys=True)

    def update(self, **settings: Any) -> GenerationConfig:
        """Return a copy with other settings, as `generate(**settings)` uses them.

        Args:
            **settings: any setting of this class, or any other key this configuration was read with. `None` puts a
                setting back to its default; only `top_k=None` means "no top-k", as in `generate(top_k=None)`.

        Returns:
            The changed copy.

        Raises:
            TypeError: for an unknown setting, naming the closest known ones.
            ValueError: for a value that is out of range or contradicts another one.
        """
        _refuse_unknown(settings, FIELDS | vars(self).keys())
        if "top_k" in settings and settings["top_k"] is None:
            settings["top_k"] = 0
        changed = type(self)()
        vars(changed).update(vars(self))
        changed._set(settings)
        return changed

    def with_defaults(self, defaults: GenerationConfig) -> GenerationConfig:
        """Return a copy in which settings that were not given here are taken from another configuration.

        Args:
            defaults: where the missing settings come from, as a rule `model.generation_config`.

        Returns:
            The merged copy.

        Example:
            >>> GenerationConfig(max_new_tokens=4).with_defaults(GenerationConfig(max_new_tokens=9, eos_token_id=2))
            GenerationConfig(max_new_tokens=4, eos_token_id=2)
        """
        merged = type(self)()
        vars(merged).update({**vars(defaults), **vars(self)})
        merged.validate()
        merged._warn_about_lengths(vars(self).keys())
        return merged

    def is_given(self, name: str) -> bool:
        """Tell whether a setting was given, as opposed to left at its default."""
        return name in vars(self)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end-of-sequence token ids as a tuple, empty when there is none."""
        return as_tuple(self.eos_token_id)

    def new_tokens(self, prompt_length: int, context_length: int | None = None) -> int:
        """Return how many tokens may be generated after a prompt.

        Args:
            prompt_length: number of tokens of the prompt, its padding included.
            context_length: longest sequence of the model, if it has one. It cuts the default of 20 new tokens, never
                a length that was asked for.

        Returns:
            The number, at least 1.

        Raises:
            ValueError: when the prompt leaves no room for a new token.

        Example:
            >>> GenerationConfig(max_new_tokens=8).new_tokens(5), GenerationConfig(max_length=8).new_tokens(5)
            (8, 3)
            >>> GenerationConfig().new_tokens(5), GenerationConfig().new_tokens(5, context_length=16)
            (20, 11)
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.is_given("max_length"):
            count, limit = self.max_length - prompt_length, f"max_length={self.max_length}"
        elif context_length is None:
            return DEFAULT_NEW_TOKENS
        else:
            count = min(DEFAULT_NEW_TOKENS, context_length - prompt_length)
            limit = f"the model's context of {context_length} tokens"
        if count < 1:
            raise ValueError(
                f"the prompt of {prompt_length} tokens leaves no room for a new one within {limit}: "
                "shorten the prompt or give max_new_tokens"
            )
        return count

    def validate(self) -> None:
        """Check the settings against each other (single values are checked when they are set).

        Raises:
            ValueError: for the first contradiction found.
        """
        if self.do_sample and self.temperature == 0:
            raise ValueError("temperature=0 with do_sample=True: give a temperature above 0, or do_sample=False")
        if self.num_beams == 1:
            if self.num_return_sequences > 1 and not self.do_sample:
                raise ValueError(
                    f"num_return_sequences={self.num_return_sequences} with greedy decoding would give the same "
                    "sequence several times: set do_sample=True, num_beams, or num_return_sequences=1"
                )
        elif self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences={self.num_return_sequences} is above num_beams={self.num_beams}: "
                "beam search can return at most one sequence per beam"
            )
        if self.max_new_tokens is not None and self.min_new_tokens is not None:
            _check_order(self, "min_new_tokens", "max_new_tokens")
        elif self.max_new_tokens is None and self.min_new_tokens is None and self.is_given("max_length"):
            _check_order(self, "min_length", "max_length")
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = as_tuple(getattr(self, name))
            if forced and set(forced) <= set(self.suppress_tokens or ()):
                raise ValueError(f"{name}={getattr(self, name)} is also in suppress_tokens: no token would be left")

    def _set(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self, name, value)
        self.validate()
        given = {name for name, value in settings.items() if value is not None}
        self._warn_about_lengths(given, stacklevel=4)
        unused = [name for name in _SAMPLING if name in given and getattr(self, name) not in _SAMPLING[name]]
        if unused and not self.do_sample:
            warnings.warn(f"{', '.join(unused)}: used with do_sample=True only", stacklevel=3)
        if "length_penalty" in given and self.length_penalty != 1.0 and self.num_beams == 1:
            warnings.warn("length_penalty: used with num_beams above 1 only", stacklevel=3)

    def _warn_about_lengths(self, given: Set[str], stacklevel: int = 3) -> None:
        for winner, loser in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if loser in given and self.is_given(winner):
                warnings.warn(
                    f"both {winner}={getattr(self, winner)} and {loser}={getattr(self, loser)} are given: "
                    f"{winner} is used",
                    stacklevel=stacklevel,
                )

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in FIELDS and name not in vars(self):
            raise AttributeError(_unknown([name], FIELDS | vars(self).keys()))
        value = _plain(value)
        if value is None:
            vars(self).pop(name, None)
        else:
            check = _CHECKS.get(name)
            vars(self)[name] = value if check is None else check(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and vars(self) == vars(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


FIELDS = frozenset(GenerationConfig.__annotations__)
"""Names of all settings."""

# Settings used for sampling only, with the values that say nothing and deserve no warning.
_SAMPLING = {
    "temperature": (1.0,),
    "top_k": (50, 0),
    "top_p": (1.0,),
    "min_p": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}

# Settings of generation_config.json files that change what is generated and that this package does not have, with the
# value that changes nothing. They are kept in files, refused as arguments and warned about when a file asks for them.
_UNSUPPORTED = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "num_beam_groups": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "penalty_alpha": 0.0,
    "prompt_lookup_num_tokens": None,
    "stop_strings": None,
    "token_healing": False,
    "top_h": None,
    "watermarking_config": None,
}


def as_tuple(token_ids: int | list[int] | None) -> tuple[int, ...]:
    """Return one token id, a list of them, or None, as a tuple."""
    if token_ids is None:
        return ()
    return (token_ids,) if isinstance(token_ids, int) else tuple(token_ids)


def _absent_token(name: str, value: Any) -> bool:
    return name in ("bos_token_id", "eos_token_id", "pad_token_id") and isinstance(value, int) and value < 0


def _unknown(names: list[str], known: frozenset[str]) -> str:
    parts = []
    for name in names:
        if name in _UNSUPPORTED:
            parts.append(f"generation setting {name} is not supported: leave it out")
            continue
        parts.append(f"unknown generation setting {name}{did_you_mean(name, known)}")
    return " | ".join(parts)


def _refuse_unknown(settings: dict[str, Any], known: frozenset[str]) -> None:
    names = [name for name in settings if name not in known]
    if names:
        raise TypeError(_unknown(names, known))


def _check_order(config: GenerationConfig, low: str, high: str) -> None:
    if getattr(config, low) > getattr(config, high):
        raise ValueError(
            f"{low}={getattr(config, low)} is above {high}={getattr(config, high)}: lower {low} or raise {high}"
        )


def _plain(value: Any) -> Any:
    """Turn tensors, arrays and NumPy scalars, also inside lists and dicts, into plain Python values."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict) and any(isinstance(key, tuple) for key in value):
        return [[list(key), item] for key, item in value.items()]
    return value


# Checks of single values: each takes (name, value) and returns the value to keep.


def _error(name: str, value: Any, right: str) -> ValueError:
    return ValueError(f"{name}={value!r}: it should be {right}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(minimum: int | None = None) -> Callable[[str, Any], int]:
    right = "an integer" + ("" if minimum is None else f" of at least {minimum}")

    def check(name: str, value: Any) -> int:
        if not _is_int(value) or (minimum is not None and value < minimum):
            raise _error(name, value, right)
        return value

    return check


def _number(right: str, inside: Callable[[float], bool]) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not inside(value):
            raise _error(name, value, right)
        return float(value)

    return check


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _error(name, value, "True or False")
    return value


def _early_stopping(name: str, value: Any) -> bool | str:
    if not isinstance(value, bool) and value != "never":
        raise _error(name, value, 'True, False or "never"')
    return value


def _is_tokens(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_int(token) and token >= 0 for token in value)


def _tokens(name: str, value: Any) -> list[int]:
    if not _is_tokens(value):
        raise _error(name, value, "a list of token ids")
    return value


def _token_or_tokens(name: str, value: Any) -> int | list[int]:
    if not _is_tokens(value if isinstance(value, list) else [value]) or value == []:
        raise _error(name, value, "a token id or a list of them, each at least 0")
    return value


def _bad_words(name: str, value: Any) -> list[list[int]]:
    if not isinstance(value, list) or not all(_is_tokens(word) and word for word in value):
        raise _error(name, value, "a list of lists of token ids, none of them empty")
    return value


def _sequence_bias(name: str, value: Any) -> list | dict:
    pairs = value.items() if isinstance(value, dict) else value
    try:
        right = all(_is_tokens(tokens) and tokens and math.isfinite(bias) for tokens, bias in pairs)
    except (TypeError, ValueError):
        right = False
    if not right:
        raise _error(name, value, "a list of [[token ids], bias] or a dict {(token ids): bias}")
    return value


def _exponential_decay(name: str, value: Any) -> list:
    right = isinstance(value, list) and len(value) == 2 and _is_int(value[0]) and isinstance(value[1], numbers.Real)
    if not right or value[0] < 0 or value[1] <= 0:
        raise _error(name, value, "[start, factor]: an integer of at least 0 and a number above 0")
    return value


_positive_integer, _natural, _token = _integer(1), _integer(0), _integer(0)
_positive = _number("a number above 0", lambda value: 0 < value < math.inf)
_fraction = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_length": _positive_integer,
    "max_new_tokens": _positive_integer,
    "min_length": _natural,
    "min_new_tokens": _natural,
    "do_sample": _boolean,
    "num_beams": _positive_integer,
    "num_return_sequences": _positive_integer,
    "early_stopping": _early_stopping,
    "length_penalty": _number("a finite number", math.isfinite),
    "seed": _integer(),
    "temperature": _number("a number above 0 (or 0 with do_sample=False)", lambda value: 0 <= value < math.inf),
    "top_k": _natural,
    "top_p": _fraction,
    "min_p": _fraction,
    "typical_p": _number("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "epsilon_cutoff": _number("a number from 0 to 1, 1 excluded", lambda value: 0 <= value < 1),
    "eta_cutoff": _number("a number from 0 to 1, 1 excluded", lambda value: 0 <= value < 1),
    "repetition_penalty": _positive,
    "no_repeat_ngram_size": _natural,
    "bad_words_ids": _bad_words,
    "sequence_bias": _sequence_bias,
    "suppress_tokens": _tokens,
    "begin_suppress_tokens": _tokens,
    "forced_bos_token_id": _token,
    "forced_eos_token_id": _token_or_tokens,
    "exponential_decay_length_penalty": _exponential_decay,
    "remove_invalid_values": _boolean,
    "renormalize_logits": _boolean,
    "bos_token_id": _token,
    "eos_token_id": _token_or_tokens,
    "pad_token_id": _token,
    "use_cache": _boolean,
    "jit_compile": _boolean,
    "return_dict_in_generate": _boolean,
    "output_scores": _boolean,
    "output_logits": _boolean,
}
