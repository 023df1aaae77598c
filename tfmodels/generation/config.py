"""The settings of `generate`: names and defaults that users know, checked, in and out of `generation_config.json`.

The file is long because it is one class, `GenerationConfig`; what each setting is stands in `settings`.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmodels.checkpoints import hub, upload
from tfmodels.generation.checks import other_spellings
from tfmodels.generation.settings import (
    BEAMS,
    END,
    FIELDS,
    GREEDY,
    LOOKUP,
    OUTPUT_OBJECT,
    QUANTIZED_CACHE,
    SAMPLING,
    SETTINGS,
    UNSUPPORTED,
    WITHOUT_EFFECT,
    Settings,
    as_tuple,
    asks_for_the_unsupported,
    contradictions,
    documented,
)
from tfmodels.utils.arguments import SAVING, old_name, settle
from tfmodels.utils.files import write_text
from tfmodels.utils.json_files import read_object
from tfmodels.utils.plain import plain
from tfmodels.utils.text import did_you_mean, quote, shorten
from tfmodels.utils.warn import warn

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tfmodels.generation.keywords import GenerationKeywords

FILE_NAME = "generation_config.json"
DEFAULT_NEW_TOKENS = 20


class GenerationConfig(Settings, upload.PushToHub):
    """Settings of `generate`.

    A setting that was never given reads as its default, and `None` always means "not given", so files of any version
    of the ecosystem read alike. Only given settings are written to files, compared and merged.

    Args:
        **settings: any of the settings below. Settings of transformers that change nothing here pass as well.

    {settings}

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
        TypeError: unknown generation setting top_q; did you mean top_p or top_k?
    """

    # Settings read from a file raise no warning where they have no effect. Their names stay out of the instance's
    # __dict__, which holds just the settings that were given.
    __slots__ = ("_from_file",)

    def __init__(self, **settings: Unpack[GenerationKeywords]):
        object.__setattr__(self, "_from_file", frozenset())
        _refuse_unknown(settings, FIELDS)
        self._set(settings)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], *, return_unused_kwargs: bool = False, **changes: Any) -> Any:
        """Make a configuration from the content of a `generation_config.json`.

        Files are read leniently: a value that is out of range, or contradicts another one, is dropped with a warning.
        The settings are checked again when `generate` uses them.

        Args:
            settings: keys and values of the file. Unknown keys are kept, read as attributes and written again.
            return_unused_kwargs: also return those of `changes` that are no settings.
            **changes: settings that replace those of the file.

        Returns:
            The configuration. A special token id below zero, which old files use for "none", is dropped.

        Example:
            >>> GenerationConfig.from_dict({"eos_token_id": [2, 3], "pad_token_id": -1, "top_k": None})
            GenerationConfig(eos_token_id=[2, 3])
        """
        config = cls()
        settings = {name: value for name, value in settings.items() if not _absent_token(name, value)}
        ineffective = [name for name, value in settings.items() if asks_for_the_unsupported(name, value)]
        if ineffective:
            warn(
                "these settings of the generation configuration have no effect here: "
                + ", ".join(f"{name}={quote(settings[name])}" for name in sorted(ineffective))
            )
        problems: list[str] = []
        for name, value in settings.items():
            if name in FIELDS:
                config._take_from_file(name, value, problems)
            else:
                vars(config)[name] = value
        config._drop_contradictions(problems)
        object.__setattr__(config, "_from_file", frozenset(vars(config)))
        unused = {name: value for name, value in changes.items() if name not in _known(config)}
        if unused and not return_unused_kwargs:
            _refuse_unknown(unused, _known(config))
        if changes:
            config = config.update(**{name: value for name, value in changes.items() if name not in unused})
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    @old_name("folder", "pretrained_model_name_or_path")
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        config_file_name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Read `generation_config.json` of a model folder.

        Args:
            pretrained_model_name_or_path: path of the folder, or of the file itself, a bundled model name or a hub id.
            config_file_name: name of the file in the folder, if it is another one.
            **kwargs: settings that replace those of the file; `revision`, `token`, `cache_dir` and the other arguments
                of the hub; `return_unused_kwargs` as in `from_dict`.

        Returns:
            The configuration.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: when the file is not JSON; the message names the file.
        """
        options, changes = hub.split_options(kwargs)
        folder, name = pretrained_model_name_or_path, config_file_name or FILE_NAME
        if isinstance(folder, (str, os.PathLike)) and os.path.isfile(folder):
            path = Path(folder)
        else:
            path = hub.resolve(folder, patterns=(name,), **options) / name
        if not path.is_file():
            raise FileNotFoundError(f"no {name} at {quote(os.fspath(folder))}")
        return cls.from_dict(read_object(path, nonfinite=True), **changes)

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
        names = [name for name in SETTINGS if name not in ("seed", "jit_compile")]
        return cls.from_dict({name: settings[name] for name in names if settings.get(name) is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that were given, unknown keys of a file included, ready for JSON."""
        return {name: _jsonable(value) for name, value in vars(self).items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, ready for JSON."""
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in SETTINGS or value != SETTINGS[name].default
        }

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the settings as JSON text; `use_diff` leaves defaults out."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = True) -> None:
        """Write the settings to a JSON file; `use_diff` leaves defaults out."""
        write_text(json_file_path, self.to_json_string(use_diff))

    @old_name("folder", "save_directory")
    def save_pretrained(
        self, save_directory: str | os.PathLike, config_file_name: str | None = None, **kwargs: Any
    ) -> None:
        """Write `generation_config.json` into a folder, which is made if need be.

        Args:
            save_directory: path of the folder.
            config_file_name: name of the file, if it is to be another one.
            **kwargs: `push_to_hub=True` with the arguments of `push_to_hub`; see `tfmodels.utils.arguments.SAVING`.

        Raises:
            ValueError: when a value is out of range or contradicts another one; nothing is written then.
        """
        push = upload.wanted(settle(kwargs, SAVING, "save_pretrained"), save_directory)
        self.validate()
        os.makedirs(save_directory, exist_ok=True)
        write_text(Path(save_directory, config_file_name or FILE_NAME), self.to_json_string(use_diff=False))
        push()

    def update(self, **settings: Any) -> GenerationConfig:
        """Return a copy with other settings, as `generate(**settings)` uses them.

        Args:
            **settings: any setting of this class, or any other key this configuration was read with. `None` puts a
                setting back to its default; only `top_k=None` means "no top-k", as in `generate(top_k=None)`.

        Returns:
            The changed copy. Settings that do not count in it are warned about.

        Raises:
            TypeError: for an unknown setting, naming the closest known ones.
            ValueError: for a value that is out of range or contradicts another one.
        """
        return self._updated(settings, FIELDS)

    def _updated(self, settings: Mapping[str, Any], meant: Set[str]) -> GenerationConfig:
        """`update`, with the names that an unknown setting may mean."""
        _refuse_unknown(settings, _known(self), meant)
        if "top_k" in settings and settings["top_k"] is None:
            settings = {**settings, "top_k": 0}
        changed = self._copy(vars(self), self._from_file - settings.keys())
        changed._set(settings, whole=True)
        return changed

    def for_call(
        self, given: GenerationConfig | None, changes: Mapping[str, Any], *, arguments: Set[str] = frozenset()
    ) -> GenerationConfig:
        """The settings of a call: `changes`, before those of the configuration given, before these, the model's own.

        Args:
            arguments: names of the arguments that the call takes beside settings, as hints for misspelt ones.

        Raises:
            TypeError: `given` is no `GenerationConfig`, or a setting is unknown.
            ValueError: a setting holds what it may not.
        """
        if given is not None and not isinstance(given, GenerationConfig):
            raise TypeError(
                f"generation_config={quote(given)}: a GenerationConfig was expected; settings are given by name, as "
                "max_new_tokens=20."
            )
        merged = self if given is None else given.with_defaults(self)
        return merged._updated(changes, FIELDS | arguments)

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
        quiet = self._from_file | (defaults._from_file - vars(self).keys())
        merged = self._copy({**vars(defaults), **vars(self)}, quiet)
        if vars(merged).keys() <= merged._from_file:  # two files of one model: loading goes on
            merged._drop_contradictions()
        merged.validate()
        merged._warn_about_lengths(vars(self).keys())
        return merged

    def is_given(self, name: str) -> bool:
        """Tell whether a setting was given, as opposed to left at its default."""
        return name in vars(self)

    @property
    def compiles(self) -> bool:
        """Whether XLA compiles the decoding loop: `jit_compile`, unless `disable_compile` says otherwise."""
        return self.jit_compile and not self.disable_compile

    @property
    def quantizes_cache(self) -> bool:
        """Whether keys and values of past tokens are kept in eight bits."""
        return self.cache_implementation == "quantized"

    @property
    def is_contrastive(self) -> bool:
        """Whether `penalty_alpha` and `top_k` ask for contrastive search."""
        return GREEDY.holds(self) and bool(self.penalty_alpha) and (self.top_k or 0) > 1

    def is_from_file(self, name: str) -> bool:
        """Tell whether a setting was read from a file, and not given since."""
        return name in self._from_file

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end-of-sequence token ids as a tuple, empty when there is none."""
        return as_tuple(self.eos_token_id)

    @property
    def fill_token_id(self) -> int:
        """The token id that fills rows after their end: the padding token, else the first that ends a text, else 0.

        Example:
            >>> GenerationConfig(eos_token_id=[2, 3]).fill_token_id, GenerationConfig().fill_token_id
            (2, 0)
        """
        return self.pad_token_id if self.pad_token_id is not None else (self.eos_token_ids or (0,))[0]

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

    def validate(self, **_: Any) -> None:
        """Check the settings against each other (single values are checked when they are set).

        Raises:
            ValueError: for the first contradiction found.
        """
        for _names, message in contradictions(self):
            raise ValueError(message)

    def _take_from_file(self, name: str, value: Any, problems: list[str]) -> None:
        """Set what a file says; an odd value is read as what it stands for, or dropped, with a line in `problems`."""
        try:
            setattr(self, name, value)
            return
        except ValueError as error:
            reason = str(error)
        for other in other_spellings(value):
            try:
                setattr(self, name, other)
            except ValueError:
                continue
            problems.append(f"{name}={quote(value)} is read as {quote(other)}")
            return
        problems.append(f"{reason} (left out)")

    def _drop_contradictions(self, problems: list[str] | None = None) -> None:
        """Leave out settings that contradict others, and warn of them and of earlier problems."""
        problems = problems or []
        while contradiction := next(contradictions(self), None):
            names, message = contradiction
            for name in names:
                vars(self).pop(name, None)
            problems.append(f"{message} (left out: {', '.join(names)})")
        if problems:
            warn("the generation configuration is odd: " + "; ".join(problems))

    def _copy(self, settings: Mapping[str, Any], from_file: frozenset[str]) -> GenerationConfig:
        copy = type(self)()
        vars(copy).update(settings)
        object.__setattr__(copy, "_from_file", frozenset(from_file))
        return copy

    def _set(self, settings: dict[str, Any], *, whole: bool = False) -> None:
        """Set what a caller gave, check the whole, and warn of what does not count.

        Args:
            settings: names and values.
            whole: whether this is all that `generate` will know, so that what needs a token id can be judged too.
        """
        for name, value in settings.items():
            setattr(self, name, value)
        self.validate()
        given = {name for name, value in settings.items() if value is not None}
        self._warn_about_lengths(given)
        if whole:
            given |= vars(self).keys() - self._from_file
        known = {name: SETTINGS[name] for name in SETTINGS if name in given}
        for condition in (SAMPLING, GREEDY, BEAMS, LOOKUP, OUTPUT_OBJECT, QUANTIZED_CACHE, *((END,) if whole else ())):
            unused = [
                name
                for name, setting in known.items()
                if setting.only is condition
                and getattr(self, name) not in setting.neutral
                # The candidates of contrastive search are counted by it.
                and not (name == "top_k" and self.penalty_alpha)
            ]
            if unused and not condition.holds(self):
                warn(f"{', '.join(unused)}: used with {condition.text} only")

    def _warn_about_lengths(self, given: Set[str]) -> None:
        for winner, loser in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if loser in given and self.is_given(winner):
                warn(
                    f"both {winner}={getattr(self, winner)} and {loser}={getattr(self, loser)} are given: "
                    f"{winner} is used"
                )

    def __getattribute__(self, name: str) -> Any:
        # A key of a file that is called like a method is kept beside it, and never stands for it.
        if name not in FIELDS and name in object.__getattribute__(self, "__dict__") and hasattr(type(self), name):
            return inspect.getattr_static(type(self), name).__get__(self, type(self))
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in UNSUPPORTED:  # scripts read them
            return UNSUPPORTED[name][-1]
        raise AttributeError(f"GenerationConfig has no setting {quote(name)}{did_you_mean(name, SETTINGS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _known(self):
            raise AttributeError(_unknown({name: value}, _known(self)))
        if asks_for_the_unsupported(name, value) and name not in vars(self):
            raise AttributeError(_unknown({name: value}, FIELDS))
        value = plain(value)
        object.__setattr__(self, "_from_file", self._from_file - {name})
        if value is None:
            vars(self).pop(name, None)
        else:
            vars(self)[name] = SETTINGS[name].check(name, value) if name in SETTINGS else value

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": dict(vars(self)), "from_file": self._from_file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state.get("settings", state))
        object.__setattr__(self, "_from_file", frozenset(state.get("from_file", ())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and vars(self) == vars(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


if GenerationConfig.__doc__:  # python -OO leaves it out
    GenerationConfig.__doc__ = GenerationConfig.__doc__.replace("{settings}", documented())


def _known(config: GenerationConfig) -> Set[str]:
    return FIELDS | UNSUPPORTED.keys() | WITHOUT_EFFECT | vars(config).keys()


def _absent_token(name: str, value: Any) -> bool:
    return name in ("bos_token_id", "eos_token_id", "pad_token_id") and isinstance(value, int) and value < 0


def _unknown(settings: Mapping[str, Any], known: Set[str]) -> str:
    parts = []
    for name, value in settings.items():
        if name in UNSUPPORTED:
            parts.append(f"generation setting {name} is not supported: leave it out (got {quote(value)})")
        else:
            parts.append(f"unknown generation setting {shorten(name)}{did_you_mean(name, known)}")
    return " | ".join(parts)


def _refuse_unknown(settings: Mapping[str, Any], known: Set[str], meant: Set[str] = FIELDS) -> None:
    accepted = known | UNSUPPORTED.keys() | WITHOUT_EFFECT
    wrong = {
        name: value
        for name, value in settings.items()
        if name not in accepted or asks_for_the_unsupported(name, value)
    }
    if wrong:
        raise TypeError(_unknown(wrong, meant))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict) and any(isinstance(key, tuple) for key in value):
        return [[list(key), item] for key, item in value.items()]
    return value
