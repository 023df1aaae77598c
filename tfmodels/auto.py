"""The registry of architectures and the classes that pick one by a checkpoint's `model_type`."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any, ClassVar

from tfmodels.configs.base import ModelConfig, errors_name, read_config_file
from tfmodels.utils.text import quote

ENCODER_HEADS = (
    *("Model", "ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification"),
    "ForQuestionAnswering",
)
DECODER_HEADS = ("Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


@dataclasses.dataclass(frozen=True)
class Family:
    """An architecture: the module below `tfmodels.families`, the stem of its class names, its heads, its tokenizer.

    `others` are public classes of the module beside its models and configuration.
    """

    module: str
    stem: str
    heads: tuple[str, ...]
    tokenizer: str
    others: tuple[str, ...] = ()

    def load(self, name: str) -> Any:
        """An attribute of the family's module."""
        return getattr(importlib.import_module(f"tfmodels.families.{self.module}"), name)


# One line per architecture, under its `model_type`.
FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "Llama", DECODER_HEADS, "LlamaTokenizer"),
    "gpt_neox": Family("gpt_neox", "GPTNeoX", DECODER_HEADS, "GPTNeoXTokenizer"),
    "gpt_neo": Family("gpt_neo", "GPTNeo", DECODER_HEADS, "GPT2Tokenizer"),
    "mpt": Family("mpt", "Mpt", DECODER_HEADS, "GPTNeoXTokenizer", others=("MptAttentionConfig",)),
    "mpnet": Family("mpnet", "MPNet", ENCODER_HEADS, "MPNetTokenizer"),
}


def public_names() -> dict[str, tuple[Family, str]]:
    """Every public class of every family: its name -> (family, name)."""
    names = {}
    for family in FAMILIES.values():
        models = (f"TF{family.stem}{head}" for head in family.heads)
        for name in (f"{family.stem}Config", *family.others, *models):
            names[name] = (family, name)
    return names


def family_of(config: ModelConfig | dict[str, Any]) -> Family:
    """The family of a configuration, by `model_type`, else by `architectures`.

    Raises:
        ValueError: the architecture does not exist here; the message names those that do.
    """
    values = config.to_dict() if isinstance(config, ModelConfig) else config
    model_type, architectures = values.get("model_type"), values.get("architectures")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type is None:
        for architecture in architectures if isinstance(architectures, list) else ():
            for family in FAMILIES.values():
                if str(architecture).removeprefix("TF") in {family.stem + head for head in family.heads}:
                    return family
    raise ValueError(
        f"model_type={quote(model_type)} (architectures={quote(architectures)}) is not an architecture of "
        f"tfmodels; it has {', '.join(FAMILIES)}."
    )


class AutoConfig:
    """Reads any family's configuration.

    Example:
        >>> from tfmodels import AutoConfig
        >>> type(AutoConfig.from_pretrained("stories260K")).__name__
        'LlamaConfig'
    """

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """The configuration of a folder, bundled model or hub id; arguments as in `ModelConfig.from_pretrained`."""
        from tfmodels.checkpoints import hub

        options, overrides = hub.split_options(kwargs)
        values = read_config_file(pretrained_model_name_or_path, **options)
        with errors_name(pretrained_model_name_or_path):
            family = family_of(values)
            result = family.load(f"{family.stem}Config").from_dict(values, **overrides)
        (result[0] if isinstance(result, tuple) else result).name_or_path = pretrained_model_name_or_path
        return result

    @staticmethod
    def for_model(model_type: str, **kwargs: Any) -> ModelConfig:
        """A configuration of an architecture from keyword arguments."""
        family = family_of({"model_type": model_type})
        return family.load(f"{family.stem}Config")(**kwargs)


class _AutoModel:
    """Base of the classes that pick a family's model by its configuration."""

    head: ClassVar[str]

    @classmethod
    def class_for(cls, config: ModelConfig | dict[str, Any]) -> Any:
        """The model class for a configuration.

        Raises:
            ValueError: no such architecture, or it has no such head; the message names those that exist.
        """
        family = family_of(config)
        if cls.head not in family.heads:
            raise ValueError(
                f"{family.stem} has no {cls.__name__.removeprefix('TFAutoModel')} model; it has "
                f"{', '.join(f'TF{family.stem}{head}' for head in family.heads)}."
            )
        return family.load(f"TF{family.stem}{cls.head}")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load a checkpoint into the right class; arguments as in `TFPreTrainedModel.from_pretrained`."""
        from tfmodels.checkpoints import hub

        options, _ = hub.split_options(kwargs)
        source = hub.Source(pretrained_model_name_or_path, **options)
        config = kwargs.get("config")
        if not isinstance(config, ModelConfig):
            config = read_config_file(source, **options) if config is None else read_config_file(config, **options)
        return cls.class_for(config).from_pretrained(source, **{**kwargs, "config": config})

    @classmethod
    def from_config(cls, config: ModelConfig, **kwargs: Any) -> Any:
        """A model with random weights."""
        return cls.class_for(config)(config, **kwargs)


class TFAutoModel(_AutoModel):
    """Any family's bare model."""

    head = "Model"


class TFAutoModelForCausalLM(_AutoModel):
    """Any family's causal language model."""

    head = "ForCausalLM"


class TFAutoModelForMaskedLM(_AutoModel):
    """Any family's masked language model."""

    head = "ForMaskedLM"


class TFAutoModelForMultipleChoice(_AutoModel):
    """Any family's multiple-choice model."""

    head = "ForMultipleChoice"


class TFAutoModelForSequenceClassification(_AutoModel):
    """Any family's sequence classifier."""

    head = "ForSequenceClassification"


class TFAutoModelForTokenClassification(_AutoModel):
    """Any family's token classifier."""

    head = "ForTokenClassification"


class TFAutoModelForQuestionAnswering(_AutoModel):
    """Any family's question-answering model."""

    head = "ForQuestionAnswering"
