"""`ModelConfig`, the base of every family's configuration: a plain object read from and written to `config.json`.

A family declares its fields over it; what is the same for all families (JSON, unknown keys, aliases, labels, what
scripts written for transformers read and call) is here. The file is long because it is one class. Nothing here needs
TensorFlow.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

from tfmodels.checkpoints import hub, upload
from tfmodels.configs.files import CONFIG_NAME, errors_name, read_config_file
from tfmodels.configs.names import COMMON, told_if_near, warn_if_near
from tfmodels.configs.part import MAX_INTEGER, ConfigPart, field_types
from tfmodels.dtypes import dtype_name
from tfmodels.utils.arguments import MODELS_ALONE, SAVING, old_name, settle
from tfmodels.utils.files import make_folder
from tfmodels.utils.json_files import read_object, without_nonfinite, write_object
from tfmodels.utils.plain import plain
from tfmodels.utils.text import did_you_mean, quote
from tfmodels.utils.warn import warn

if TYPE_CHECKING:
    from typing_extensions import Self

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
MAX_LAYERS = 1 << 16
"""Far more than any model has; a larger number is a mistake that would take hours to build."""
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
MAX_LABELS = 1_000_000
"""Most classes that `num_labels` may name."""


class ModelConfig(ConfigPart, upload.PushToHub):
    """Base of the families' configurations.

    Arguments fill the declared fields, by name or in the order of transformers; the family's aliases (`hidden_size`
    for MPT's `d_model`, ...) are accepted and readable under both names. Any other key is kept, read as an attribute
    where it clashes with nothing, and written back to JSON untouched; one whose name is close to a field's brings a
    warning, unless `model_type` among the keys says that they are another configuration's or a file's.

    Raises:
        ValueError: values contradict each other; the message names them.

    Example:
        >>> from tfmodels.configs.base import ModelConfig
        >>> config = ModelConfig(num_labels=3, my_note="kept", validate=1)
        >>> config.id2label
        {0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2'}
        >>> config.my_note, config.to_dict()["validate"]
        ('kept', 1)
    """

    model_type: ClassVar[str] = ""
    # Arguments that are spellings of a field rather than fields or aliases.
    other_names: ClassVar[tuple[str, ...]] = ()
    # Fields that are configurations of their own, given as such or as dicts; an override keeps the keys it leaves out.
    parts: ClassVar[dict[str, type[ConfigPart]]] = {}
    # The factor on a language model's logits; a family whose file names one makes it a property.
    logit_factor: ClassVar[float] = 1.0
    # The bound that tanh keeps these logits within (softcapping), or None; likewise.
    logit_cap: ClassVar[float | None] = None

    architectures: list[str] | None = None
    dtype: str | None = None
    return_dict: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    use_cache: bool = False
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    problem_type: str | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        named = self.by_name(args, kwargs)
        from_file = named if "model_type" in named else None
        for name in named:
            warn_if_near(type(self), name, from_file)
        kwargs = self.normalize(named)
        num_labels = kwargs.pop("num_labels", None)
        for name, part in self.parts.items():
            kwargs[name] = part(**(kwargs.get(name) or {}))
        super().__init__(**kwargs)
        self._check_token_ids()
        self._set_labels(num_labels)
        self.finish()
        self.validate()

    # Methods that a family may override -----------------------------------------------------------------------------

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A copy of `values` in which every accepted spelling has become the declared one."""
        values = copy.deepcopy(values)
        values.pop("model_type", None)
        for alias, name in cls.aliases.items():
            if alias in values:
                value = values.pop(alias)
                if values.setdefault(name, value) != value:
                    raise ValueError(
                        f"{name}={quote(values[name])} and {alias}={quote(value)} are two names of one value of "
                        f"{cls.__name__} and differ; give one of them."
                    )
        for name in cls.parts:
            if isinstance(values.get(name), ConfigPart):
                values[name] = values[name].to_dict()
            elif values.get(name) is not None and not isinstance(values[name], Mapping):
                raise ValueError(f"{name}={quote(values[name])} in {cls.__name__}; a dict of settings was expected.")
        stored_dtype = values.pop("torch_dtype", None)
        if values.get("dtype") is None and stored_dtype is not None:
            values["dtype"] = stored_dtype
        if values.get("dtype") is not None:
            values["dtype"] = dtype_name(values["dtype"])
        return values

    @classmethod
    def merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        """`values` with `overrides` put in their place.

        Raises:
            ValueError: `overrides` names another number of classes than it has names for, or values of the wrong kind.
        """
        count, names = overrides.get("num_labels"), overrides.get("id2label")
        if count is not None and isinstance(names, Mapping) and len(names) != count:
            raise ValueError(
                f"num_labels={quote(count)} and id2label={quote(names)} contradict each other; give one of them."
            )
        values = cls.normalize(values)
        if overrides.get("num_labels") is not None:
            for name in ("id2label", "label2id"):
                values.pop(name, None)
        overrides = cls.normalize(overrides)
        parts = {name: {**(values.get(name) or {}), **(overrides.get(name) or {})} for name in cls.parts}
        return {**values, **overrides, **parts, "model_type": cls.model_type}

    @classmethod
    def convert(cls, name: str, value: Any) -> Any:
        if name in cls.parts and isinstance(value, Mapping):
            return cls.parts[name](**value)
        if name in TOKEN_IDS:  # a bad one is left out
            return plain(value)
        return super().convert(name, value)

    def finish(self) -> None:
        """Fill the fields whose default follows from other fields."""

    def validate(self) -> None:
        """Raise ValueError where values contradict each other. Called again when a model is built."""
        self.check_layers()
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type={quote(self.problem_type)} is unknown; it is one of {', '.join(PROBLEM_TYPES)}."
            )

    def check_layers(self) -> None:
        """Raise ValueError where there are more layers than any model has."""
        layers = getattr(self, "num_hidden_layers", None)
        if isinstance(layers, int) and layers > MAX_LAYERS:
            name = type(self).aliases.get("num_hidden_layers", "num_hidden_layers")
            raise ValueError(f"{name}={quote(layers)} in {type(self).__name__}; at most {MAX_LAYERS} were expected.")

    def check_positive(self, *names: str) -> None:
        """Raise ValueError unless every named field is a positive integer."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ValueError(f"{name}={quote(value)} in {type(self).__name__}; a positive integer was expected.")

    def check_known(self, name: str, known: tuple[Any, ...]) -> None:
        """Raise ValueError unless field `name` is one of the values `known`; dots lead into parts, None is absent."""
        value: Any = self
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else getattr(value, step, None)
        if value not in known:
            possible = " or ".join(repr(one) for one in known if one is not None) or "nothing"
            raise ValueError(
                f"{name}={quote(value)} in {type(self).__name__} is not supported; {possible} was expected there."
            )

    def check_divisible(self, name: str, by: str) -> None:
        """Raise ValueError unless field `name` is a multiple of field `by`."""
        if getattr(self, name) % getattr(self, by):
            raise ValueError(f"{name}={getattr(self, name)} is not divisible by {by}={getattr(self, by)}.")

    # Labels and token ids -----------------------------------------------------------------------------------

    def _check_token_ids(self) -> None:
        """Drop invalid token ids with a warning: a setting of generation never stops a model from loading."""
        for name in TOKEN_IDS:
            value = getattr(self, name)
            ids = value if isinstance(value, list) else [] if value is None else [value]
            ids = [int(one) if isinstance(one, float) and one.is_integer() else one for one in ids]
            if not all(_is_token_id(one) for one in ids) or value == []:
                warn(f"{name}={quote(value)} in {type(self).__name__} is left out: it should be a token id.")
                setattr(self, name, None)
            elif name == "pad_token_id" and isinstance(value, list):
                setattr(self, name, ids[0])
            elif value is not None:
                setattr(self, name, ids if isinstance(value, list) else ids[0])

    def _set_labels(self, num_labels: int | None) -> None:
        if self.id2label is not None:
            names = self.id2label
            if isinstance(names, list):
                names = dict(enumerate(names))
            if not isinstance(names, dict):
                raise ValueError(f"id2label={quote(names)}; a dict from class numbers to names was expected.")
            try:
                self.id2label = {int(key): value for key, value in names.items()}
            except (TypeError, ValueError):
                raise ValueError(f"id2label={quote(names)}; the keys should be class numbers.") from None
            if num_labels is not None and num_labels != len(self.id2label):
                self.id2label = None
        if self.label2id is not None and not isinstance(self.label2id, dict):
            raise ValueError(f"label2id={quote(self.label2id)}; a dict from names to class numbers was expected.")
        if self.id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        elif self.label2id is None:
            self.label2id = {str(label): key for key, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """Number of classes of a classification head (read from `id2label`)."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"num_labels={quote(value)}; a positive integer was expected.")
        if value > MAX_LABELS:
            raise ValueError(f"num_labels={quote(value)}; at most {MAX_LABELS} classes are supported.")
        if self.id2label is None or len(self.id2label) != value:
            self.id2label = {index: f"LABEL_{index}" for index in range(value)}
            self.label2id = {label: index for index, label in self.id2label.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name) and name not in vars(self).get("_extra", {}):
            warn_if_near(type(self), name)
        super().__setattr__(name, value)

    # Attributes that scripts written for transformers read ------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in COMMON:
                return copy.copy(COMMON[name])
            raise

    @property
    def use_return_dict(self) -> bool:
        """Whether models return output objects rather than tuples: `return_dict`."""
        return self.return_dict

    @property
    def torch_dtype(self) -> str | None:
        """Old name of `dtype`, the dtype of the stored weights."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: Any) -> None:
        self.dtype = None if value is None else dtype_name(value)

    @property
    def name_or_path(self) -> str:
        """The place that the configuration was read from, or ""; not written to files."""
        return self.__dict__.get("_read_from") or str(self._name_or_path or "")

    @name_or_path.setter
    def name_or_path(self, value: str | os.PathLike) -> None:
        object.__setattr__(self, "_read_from", os.fspath(value))

    @property
    def attribute_map(self) -> dict[str, str]:
        """Other names of fields."""
        return dict(type(self).aliases)

    def get_text_config(self, *_: Any, **__: Any) -> ModelConfig:
        """The configuration itself: these models read nothing but text."""
        return self

    # JSON ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a JSON-ready dict, unknown keys included."""
        return {**super().to_dict(), "model_type": type(self).model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """The values that differ from the defaults of the class, and `model_type`."""
        defaults = type(self)().to_dict()
        values = self.to_dict()
        return {k: v for k, v in values.items() if k == "model_type" or k not in defaults or v != defaults[k]}

    def to_json_string(self, use_diff: bool = True) -> str:
        """The configuration as JSON text; `use_diff` leaves defaults out."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = True) -> None:
        """Write the configuration to a JSON file; `use_diff` leaves defaults out."""
        write_object(json_file_path, self.to_diff_dict() if use_diff else self.to_dict(), sort_keys=True)

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> ModelConfig:
        """Read a JSON file."""
        return cls.from_dict(read_object(json_file))

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], *, return_unused_kwargs: Literal[False] = False, **overrides: Any
    ) -> Self: ...

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], *, return_unused_kwargs: Literal[True], **overrides: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any) -> Any:
        """Build a configuration from a dict such as `config.json` holds.

        Args:
            config_dict: the keys of a `config.json`, in 4.x or 5.x spelling.
            return_unused_kwargs: also return the overrides that are no fields, instead of refusing them.
            **overrides: values that replace those of `config_dict`.

        Returns:
            The configuration; with `return_unused_kwargs` also a dict.

        Raises:
            ValueError: `model_type` is another family's, or the values contradict each other.
            TypeError: an override is no field.
        """
        stored = config_dict.get("model_type")
        if stored is not None and stored != cls.model_type:
            raise ValueError(
                f"this configuration has model_type={quote(stored)}; {cls.__name__} reads "
                f"model_type={quote(cls.model_type)}."
            )
        fields = {*field_types(cls), *cls.other_names, *cls.aliases, *cls.positional}
        config_dict = without_nonfinite(config_dict, fields - set(TOKEN_IDS), TOKEN_IDS, cls.__name__)
        known = cls.known_names(config_dict)
        unused = {name: value for name, value in overrides.items() if name not in known}
        if unused and not return_unused_kwargs:
            cls.refuse_unknown(next(iter(unused)), known)
        overrides = {name: value for name, value in overrides.items() if name in known}
        config = cls(**cls.merge(config_dict, overrides))
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def known_names(cls, values: Mapping[str, Any] = COMMON) -> set[str]:
        """Names that an override may have: fields, their other spellings, and the keys of `values`."""
        spellings = {"num_labels", "torch_dtype", *cls.other_names, *cls.aliases, *cls.positional}
        return {*field_types(cls), *spellings, *COMMON, *values}

    @classmethod
    def refuse_unknown(cls, name: str, known: set[str]) -> None:
        """Raise TypeError for an override that is no field."""
        if name in SAVING:
            hint = ", and loading does not take it: it is an argument of save_pretrained."
        elif name in MODELS_ALONE:
            hint = ": it is for models, give it to their from_pretrained or from_config."
        else:
            hint = did_you_mean(name, known) or "."
        raise TypeError(f"unknown argument {quote(name)}: {cls.__name__} has no such field{hint}")

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        return_unused_kwargs: Literal[False] = False,
        **overrides: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, return_unused_kwargs: Literal[True], **overrides: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    @old_name("folder", "pretrained_model_name_or_path")
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, return_unused_kwargs: bool = False, **overrides: Any
    ) -> Any:
        """Read `config.json` from a folder, a file path or a hub id.

        Args:
            pretrained_model_name_or_path: local folder, path of a JSON file, bundled model name, or hub id such as
                `"org/name"`.
            return_unused_kwargs: as in `from_dict`.
            **overrides: field values that replace the stored ones; `revision`, `token`, `cache_dir`,
                `local_files_only`, `force_download` and `subfolder` go to the hub. Arguments of transformers without
                effect here are accepted, see `tfmodels.utils.arguments`.

        Raises:
            FileNotFoundError: no configuration there.
            ValueError: broken JSON, another family's configuration, contradicting values.
        """
        options, overrides = hub.split_options(overrides)
        values = read_config_file(pretrained_model_name_or_path, **options)
        with errors_name(pretrained_model_name_or_path):
            result = cls.from_dict(values, return_unused_kwargs=return_unused_kwargs, **overrides)
        (result[0] if return_unused_kwargs else result).name_or_path = pretrained_model_name_or_path
        return result

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json` without building a configuration: its keys, and the arguments that are not the hub's."""
        options, others = hub.split_options(kwargs)
        return read_config_file(pretrained_model_name_or_path, **options), others

    @old_name("folder", "save_directory")
    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write `config.json` into a folder, making the folder if needed.

        Args:
            save_directory: the folder.
            **kwargs: `push_to_hub=True` with the arguments of `push_to_hub`.

        Raises:
            ValueError: a value cannot be written as JSON.
        """
        push = upload.wanted(settle(kwargs, SAVING, "save_pretrained"), save_directory)
        values = self.to_dict()
        for name, value in values.items():
            if callable(value):
                raise ValueError(
                    f"{name}={quote(value)} cannot be written to {CONFIG_NAME}; name the function instead."
                )
        make_folder(save_directory)
        write_object(Path(save_directory, CONFIG_NAME), values, sort_keys=True)
        push()

    def misspelt(self) -> list[str]:
        """A question after each key that is no field but close to one, such as "num_atention_heads" of a file."""
        return [told for name in self._extra if (told := told_if_near(type(self), name))]

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed; an unknown name raises TypeError with the closest known ones."""
        changed = type(self).from_dict(self.to_dict(), **changes)
        if self.name_or_path:
            changed.name_or_path = self.name_or_path
        return changed

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Change values in place, all of them or, where they contradict each other, none."""
        changed = type(self)(**self.merge(self.to_dict(), dict(config_dict)))
        self.__dict__.update(changed.__dict__)

    def update_from_string(self, update_str: str) -> None:
        """Change values in place from text such as "hidden_size=64,use_cache=false"."""
        changes: dict[str, Any] = {}
        for pair in update_str.split(","):
            name, separator, text = pair.partition("=")
            name = name.strip()
            if not separator or name not in self.known_names(self._extra):
                raise ValueError(f"{quote(pair)} is not of the form name=value with a field of {type(self).__name__}.")
            try:
                changes[name] = json.loads(text)
            except ValueError:
                changes[name] = text
        self.update(changes)


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
