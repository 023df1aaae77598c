"""Model configurations: plain objects read from and written to `config.json`.

A family declares its fields as a dataclass over `ModelConfig`; everything that is the same for all families (JSON,
unknown keys, aliases, labels, the two spellings of rotary parameters) is here. Nothing in this module needs
TensorFlow.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from tfmodels.dtypes import dtype_name
from tfmodels.utils.files import check_finished
from tfmodels.utils.json_files import read_object, write_object
from tfmodels.utils.text import did_you_mean

CONFIG_NAME = "config.json"

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

# What each scaling cannot do without, and the keys it understands beside `rope_type`, `rope_theta` and the partial
# factor.
_ROPE_REQUIRED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
# The length seen in pretraining belongs to these types; where it is not given it is the model's own maximum.
_ROPE_WITH_ORIGINAL_LENGTH = ("yarn", "longrope", "llama3")


@dataclasses.dataclass(init=False, repr=False, eq=False)
class ConfigPart:
    """Declared fields with defaults, filled from keyword arguments; other keys are kept as attributes."""

    def __init__(self, **kwargs: Any):
        kwargs = copy.deepcopy(kwargs)
        for field in dataclasses.fields(self):
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            else:
                default = field.default
            setattr(self, field.name, kwargs.pop(field.name, default))
        for name, value in kwargs.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Fields and other keys as a JSON-ready dict."""
        parts = {name: value for name, value in self.__dict__.items() if isinstance(value, ConfigPart)}
        values = {name: value for name, value in self.__dict__.items() if name not in parts}
        return {**copy.deepcopy(values), **{name: part.to_dict() for name, part in parts.items()}}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)}"


@dataclasses.dataclass(init=False, repr=False, eq=False)
class ModelConfig(ConfigPart):
    """What a family's configuration is built on.

    Keyword arguments fill the declared fields; the family's aliases (`hidden_size` for MPT's `d_model`, ...) are
    accepted and readable under both names; anything else is kept as an attribute and written back to JSON untouched.

    Raises:
        ValueError: values contradict each other; the message names them.

    Example:
        >>> from tfmodels.configs.base import ModelConfig
        >>> config = ModelConfig(num_labels=3, my_note="kept")
        >>> config.id2label
        {0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2'}
        >>> config.my_note
        'kept'
    """

    model_type: ClassVar[str] = ""
    aliases: ClassVar[dict[str, str]] = {}
    # Arguments that are spellings of a field rather than fields or aliases.
    other_names: ClassVar[tuple[str, ...]] = ()
    # Fields that are configurations of their own, given as such or as dicts; an override keeps the keys it leaves out.
    parts: ClassVar[dict[str, type[ConfigPart]]] = {}

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

    def __init__(self, **kwargs: Any):
        kwargs = self.normalize(kwargs)
        num_labels = kwargs.pop("num_labels", None)
        for name, part in self.parts.items():
            kwargs[name] = part(**(kwargs.get(name) or {}))
        super().__init__(**kwargs)
        self._set_labels(num_labels)
        self.finish()
        self.validate()

    # What a family may override -----------------------------------------------------------------------------

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
                        f"{name}={values[name]!r} and {alias}={value!r} are two names of one value of {cls.__name__} "
                        f"and differ; give one of them."
                    )
        for name in cls.parts:
            if isinstance(values.get(name), ConfigPart):
                values[name] = values[name].to_dict()
        stored_dtype = values.pop("torch_dtype", None)
        if values.get("dtype") is None and stored_dtype is not None:
            values["dtype"] = stored_dtype
        if values.get("dtype") is not None:
            values["dtype"] = dtype_name(values["dtype"])
        return values

    @classmethod
    def merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        """`values` with `overrides` put in their place."""
        values = cls.normalize(values)
        if overrides.get("num_labels") is not None:
            for name in ("id2label", "label2id"):
                values.pop(name, None)
        overrides = cls.normalize(overrides)
        parts = {name: {**(values.get(name) or {}), **(overrides.get(name) or {})} for name in cls.parts}
        return {**values, **overrides, **parts}

    def finish(self) -> None:
        """Fill the fields whose default follows from other fields."""

    def validate(self) -> None:
        """Raise ValueError where values contradict each other. Called again when a model is built."""
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type={self.problem_type!r} is unknown; it is one of {', '.join(PROBLEM_TYPES)}."
            )

    def check_positive(self, *names: str) -> None:
        """Raise ValueError unless every named field is a positive integer."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ValueError(f"{name}={value!r} in {type(self).__name__}; a positive integer was expected.")

    def check_known(self, name: str, known: tuple[Any, ...]) -> None:
        """Raise ValueError unless field `name` is one of the values `known`; dots lead into parts, None is absent."""
        value: Any = self
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else getattr(value, step, None)
        if value not in known:
            possible = " or ".join(repr(one) for one in known if one is not None) or "nothing"
            raise ValueError(
                f"{name}={value!r} in {type(self).__name__} is not supported; {possible} was expected there."
            )

    def check_divisible(self, name: str, by: str) -> None:
        """Raise ValueError unless field `name` is a multiple of field `by`."""
        if getattr(self, name) % getattr(self, by):
            raise ValueError(f"{name}={getattr(self, name)} is not divisible by {by}={getattr(self, by)}.")

    # Labels -------------------------------------------------------------------------------------------------

    def _set_labels(self, num_labels: int | None) -> None:
        if self.id2label is not None:
            self.id2label = {int(key): value for key, value in self.id2label.items()}
            if num_labels is not None and num_labels != len(self.id2label):
                self.id2label = None
        if self.id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        elif self.label2id is None:
            self.label2id = {label: key for key, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """Number of classes of a classification head (read from `id2label`)."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"num_labels={value!r}; a positive integer was expected.")
        if self.id2label is None or len(self.id2label) != value:
            self.id2label = {index: f"LABEL_{index}" for index in range(value)}
            self.label2id = {label: index for index, label in self.id2label.items()}

    # Aliases ------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        target = type(self).aliases.get(name)
        if target is not None:
            return getattr(self, target)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, type(self).aliases.get(name, name), value)

    # JSON ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a JSON-ready dict, unknown keys included."""
        return {**super().to_dict(), "model_type": type(self).model_type}

    @classmethod
    def from_dict(cls, values: dict[str, Any], **overrides: Any) -> ModelConfig:
        """Build a configuration from a dict such as `config.json` holds.

        Args:
            values: the keys of a `config.json`, in 4.x or 5.x spelling.
            **overrides: values that replace those of `values`.

        Raises:
            ValueError: `model_type` is another family's, or the values contradict each other.
        """
        stored = values.get("model_type")
        if stored is not None and stored != cls.model_type:
            raise ValueError(
                f"this configuration has model_type={stored!r}; {cls.__name__} reads model_type={cls.model_type!r}."
            )
        cls.check_names(values, overrides)
        return cls(**cls.merge(values, overrides))

    @classmethod
    def check_names(cls, values: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Raise TypeError for an override that is neither a field, an alias, nor a key of `values`."""
        known = {field.name for field in dataclasses.fields(cls)} | set(cls.aliases) | set(values)
        known |= {"num_labels", "torch_dtype", *cls.other_names}
        for name in overrides:
            if name not in known:
                raise TypeError(
                    f"unknown argument {name!r}: {cls.__name__} has no such field" + (did_you_mean(name, known) or ".")
                )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **overrides: Any) -> ModelConfig:
        """Read `config.json` from a folder, a file path or a hub id.

        Args:
            folder: local folder, path of a JSON file, bundled model name, or hub id such as `"org/name"`.
            **overrides: field values that replace the stored ones; `revision`, `token`, `cache_dir`,
                `local_files_only`, `force_download` and `subfolder` go to the hub.

        Raises:
            FileNotFoundError: no configuration there.
            ValueError: broken JSON, another family's configuration, contradicting values.
        """
        from tfmodels.checkpoints import hub

        options, overrides = hub.split_options(overrides)
        return cls.from_dict(read_config_file(folder, **options), **overrides)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `config.json` into a folder, making the folder if needed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_object(folder / CONFIG_NAME, self.to_dict(), sort_keys=True)

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some values changed; an unknown name raises TypeError with the closest known ones."""
        return type(self).from_dict(self.to_dict(), **changes)


def read_config_file(folder: str | os.PathLike, **hub_options: Any) -> dict[str, Any]:
    """The raw dict of a model's `config.json`, wherever the model is; or what a GGUF file says in its place."""
    from tfmodels.checkpoints import hub
    from tfmodels.checkpoints.formats import gguf as gguf_format

    path = Path(folder)
    if gguf_file := hub_options.get("gguf_file"):
        return gguf_format.read_header(hub.resolve(folder, patterns=(), **hub_options) / gguf_file).config
    if not path.is_file() or path.suffix == ".gguf":  # which is named beside its folder, as hub.resolve will say
        path = hub.resolve(folder, patterns=hub.CONFIG_FILES, **hub_options) / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {CONFIG_NAME}: is it a model folder?")
    check_finished(path.parent)
    return read_object(path)


@dataclasses.dataclass(init=False, repr=False, eq=False)
class RotaryConfig(ModelConfig):
    """A configuration with rotary position embeddings.

    `rope_parameters` is the one place where they live: `{"rope_type", "rope_theta", ...}` as transformers 5 writes it.
    The 4.x spelling (`rope_theta` beside `rope_scaling`, with `type` or `rope_type`) is read too and both are written,
    so that either version loads what is saved here.

    Example:
        >>> from tfmodels.configs.base import RotaryConfig
        >>> old = RotaryConfig(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
        >>> new = RotaryConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
        >>> old.rope_parameters == new.rope_parameters
        True
    """

    default_theta: ClassVar[float] = 10000.0
    # Names under which 4.x stores the base, and the rotated share of a head, beside the dict.
    theta_names: ClassVar[tuple[str, ...]] = ("rope_theta",)
    partial_names: ClassVar[tuple[str, ...]] = ("partial_rotary_factor",)
    default_partial: ClassVar[float | None] = None
    other_names: ClassVar[tuple[str, ...]] = ("rope_scaling", "rope_theta", "partial_rotary_factor")

    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] | None = None

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = super().normalize(values)
        # An old `rope_scaling` that is null says nothing; a dict is complete but for the base and the partial factor.
        parameters = dict(values.pop("rope_scaling", None) or values.get("rope_parameters") or {})
        if "type" in parameters:
            old = parameters.pop("type")
            parameters.setdefault("rope_type", old)
        for names, key in ((cls.theta_names, "rope_theta"), (cls.partial_names, "partial_rotary_factor")):
            for name in names:
                value = values.pop(name, None)
                if value is not None:
                    parameters.setdefault(key, value)
        values["rope_parameters"] = parameters
        return values

    @classmethod
    def merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        merged = super().merge(values, overrides)
        stored, given = cls.normalize(values)["rope_parameters"], cls.normalize(overrides)["rope_parameters"]
        if "rope_scaling" in overrides or "rope_parameters" in overrides:
            stored = {key: stored[key] for key in ("rope_theta", "partial_rotary_factor") if key in stored}
        merged["rope_parameters"] = {**stored, **given}
        return merged

    def finish(self) -> None:
        super().finish()
        parameters = self.rope_parameters
        parameters.setdefault("rope_type", "default")
        parameters.setdefault("rope_theta", self.default_theta)
        if self.default_partial is not None:
            parameters.setdefault("partial_rotary_factor", self.default_partial)
        if parameters["rope_type"] in _ROPE_WITH_ORIGINAL_LENGTH:
            # A top-level value (as Phi-3 writes it) wins over the one in the dict.
            outer = self.__dict__.get("original_max_position_embeddings")
            if outer is not None:
                parameters["original_max_position_embeddings"] = outer
            parameters.setdefault("original_max_position_embeddings", self.max_position_embeddings)

    def validate(self) -> None:
        super().validate()
        parameters = self.rope_parameters
        rope_type = parameters["rope_type"]
        if rope_type not in ROPE_TYPES:
            raise ValueError(f"rope_type={rope_type!r} is unknown; it is one of {', '.join(ROPE_TYPES)}.")
        missing = [key for key in _ROPE_REQUIRED[rope_type] if parameters.get(key) is None]
        if rope_type == "yarn" and "factor" in parameters:
            missing = []  # an explicit null means: the ratio of the two lengths
        if missing:
            raise ValueError(f"rope_type={rope_type!r} needs {', '.join(missing)} in rope_parameters={parameters!r}.")
        for key in ("factor", "rope_theta", "original_max_position_embeddings", "partial_rotary_factor"):
            value = parameters.get(key)
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise ValueError(f"rope_parameters[{key!r}]={value!r}; a positive number was expected.")
        if rope_type == "llama3" and not parameters["high_freq_factor"] > parameters["low_freq_factor"]:
            raise ValueError(
                f"rope_parameters: high_freq_factor={parameters['high_freq_factor']!r} must be greater than "
                f"low_freq_factor={parameters['low_freq_factor']!r}."
            )
        if rope_type == "longrope":
            pairs = (self.rotary_dim + 1) // 2
            for key in ("short_factor", "long_factor"):
                if len(parameters[key]) != pairs:
                    raise ValueError(
                        f"rope_parameters[{key!r}] has {len(parameters[key])} values; half the rotated size of a "
                        f"head, {pairs}, was expected."
                    )

    @property
    def rotary_dim(self) -> int:
        """Size of the rotated part of a head. An odd one is turned as if it had one more dimension."""
        head_dim = getattr(self, "head_dim", None) or self.hidden_size // self.num_attention_heads
        return int(head_dim * (self.rope_parameters.get("partial_rotary_factor") or 1.0))

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        return self.rope_parameters["rope_theta"]

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters["rope_theta"] = value

    @property
    def partial_rotary_factor(self) -> float | None:
        """Share of each head that is rotated; None for all of it."""
        return self.rope_parameters.get("partial_rotary_factor")

    @partial_rotary_factor.setter
    def partial_rotary_factor(self, value: float) -> None:
        self.rope_parameters["partial_rotary_factor"] = value

    @property
    def rope_scaling(self) -> dict[str, Any] | None:
        """The scaling as transformers 4 stores it: None for plain rotary embeddings."""
        outside = ("rope_theta", "partial_rotary_factor")
        inner = {key: value for key, value in self.rope_parameters.items() if key not in outside}
        return None if inner["rope_type"] == "default" else inner

    @rope_scaling.setter
    def rope_scaling(self, value: dict[str, Any] | None) -> None:
        self.rope_parameters = self.merge(self.to_dict(), {"rope_scaling": value})["rope_parameters"]
        RotaryConfig.finish(self)

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        values[self.theta_names[0]] = self.rope_theta
        values["rope_scaling"] = copy.deepcopy(self.rope_scaling)
        if self.rope_parameters.get("partial_rotary_factor") is not None:
            values[self.partial_names[0]] = self.rope_parameters["partial_rotary_factor"]
        return values
