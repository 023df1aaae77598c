"""The registry of architectures and the classes that pick one by a checkpoint's `model_type`."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from tfmodels.checkpoints import hub
from tfmodels.checkpoints.gguf_map import GGUFMap
from tfmodels.configs.base import ModelConfig
from tfmodels.configs.files import errors_name, read_config_file
from tfmodels.utils.text import did_you_mean, quote

ENCODER_HEADS = (
    *("Model", "ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification"),
    "ForQuestionAnswering",
)
BERT_HEADS = (
    *("Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification"),
    *("ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering"),
)
DECODER_HEADS = ("Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


@dataclasses.dataclass(frozen=True)
class Family:
    """An architecture: the module below `tfmodels.families`, the stem of its class names, its heads, its tokenizer.

    `others` are public classes of the module beside its models and configuration. `gguf` is the module whose `GGUF`
    says how GGUF files name the family's weights; it needs no backend. `named` holds the heads whose class has another
    name in transformers than stem and head together.
    """

    module: str
    stem: str
    heads: tuple[str, ...]
    tokenizer: str
    others: tuple[str, ...] = ()
    gguf: str | None = None
    named: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def class_name(self, head: str) -> str:
        """The name of the public class with a head.

        Example:
            >>> FAMILIES["llama"].class_name("ForCausalLM")
            'TFLlamaForCausalLM'
        """
        return "TF" + self.named.get(head, self.stem + head)

    def load(self, name: str) -> Any:
        """An attribute of the family's module."""
        return getattr(importlib.import_module(f"tfmodels.families.{self.module}"), name)

    def gguf_map(self) -> GGUFMap | None:
        """The family's names of weights and settings in GGUF files; None where no such files are known."""
        return None if self.gguf is None else importlib.import_module(f"tfmodels.families.{self.gguf}").GGUF


# One line per architecture, under its `model_type`.
FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "Llama", DECODER_HEADS, "LlamaTokenizer", gguf="llama_gguf"),
    "mistral": Family("mistral", "Mistral", DECODER_HEADS, "LlamaTokenizer"),
    "qwen2": Family("qwen2", "Qwen2", DECODER_HEADS, "Qwen2Tokenizer", gguf="qwen2_gguf"),
    "qwen3": Family("qwen3", "Qwen3", DECODER_HEADS, "Qwen2Tokenizer", gguf="qwen3_gguf"),
    "granite": Family("granite", "Granite", DECODER_HEADS[:2], "GPT2Tokenizer", gguf="granite_gguf"),
    "smollm3": Family("smollm3", "SmolLM3", DECODER_HEADS, "PreTrainedTokenizer", gguf="smollm3_gguf"),
    "gemma3_text": Family(
        "gemma3",
        "Gemma3Text",
        DECODER_HEADS[:3],
        "PreTrainedTokenizer",
        gguf="gemma3_gguf",
        named={"ForCausalLM": "Gemma3ForCausalLM"},
    ),
    "gpt2": Family(
        "gpt2",
        "GPT2",
        DECODER_HEADS,
        "GPT2Tokenizer",
        others=("TFGPT2DoubleHeadsModel",),
        gguf="gpt2_gguf",
        named={"ForCausalLM": "GPT2LMHeadModel"},
    ),
    "gpt_neox": Family("gpt_neox", "GPTNeoX", DECODER_HEADS, "GPTNeoXTokenizer", gguf="gpt_neox_gguf"),
    "gpt_neo": Family("gpt_neo", "GPTNeo", DECODER_HEADS, "GPT2Tokenizer"),
    "mpt": Family("mpt", "Mpt", DECODER_HEADS, "GPTNeoXTokenizer", others=("MptAttentionConfig",), gguf="mpt_gguf"),
    "bert": Family("bert", "Bert", BERT_HEADS, "BertTokenizer", gguf="bert_gguf"),
    "distilbert": Family("distilbert", "DistilBert", ENCODER_HEADS, "DistilBertTokenizer"),
    "roberta": Family("roberta", "Roberta", ENCODER_HEADS, "RobertaTokenizer"),
    "modernbert": Family("modernbert", "ModernBert", ENCODER_HEADS, "PreTrainedTokenizer"),
    "mpnet": Family("mpnet", "MPNet", ENCODER_HEADS, "MPNetTokenizer"),
}


def gguf_maps() -> dict[str, GGUFMap]:
    """The architectures that GGUF files may hold: `general.architecture` -> how such files name things.

    Example:
        >>> "llama" in gguf_maps()
        True
    """
    maps = (family.gguf_map() for family in FAMILIES.values())
    return {gguf_map.architecture: gguf_map for gguf_map in maps if gguf_map is not None}


def public_names() -> dict[str, tuple[Family, str]]:
    """Every public class of every family: its name -> (family, name)."""
    names = {}
    for family in FAMILIES.values():
        models = map(family.class_name, family.heads)
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
    if model_type is None and isinstance(architectures, (list, tuple)):
        for architecture in architectures:
            for family in FAMILIES.values():
                if f"TF{str(architecture).removeprefix('TF')}" in map(family.class_name, family.heads):
                    return family
    raise ValueError(
        f"model_type={quote(model_type)} (architectures={quote(architectures)}) is not an architecture of "
        f"tfmodels; it has {', '.join(FAMILIES)}{did_you_mean(model_type, FAMILIES) or '.'}"
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
        options, overrides = hub.split_options(kwargs)
        values = read_config_file(pretrained_model_name_or_path, **options)
        with errors_name(pretrained_model_name_or_path):
            family = family_of(values)
            result = family.load(f"{family.stem}Config").from_dict(values, **overrides)
        (result[0] if isinstance(result, tuple) else result).name_or_path = pretrained_model_name_or_path
        return result

    @staticmethod
    def for_model(model_type: str, *args: Any, **kwargs: Any) -> ModelConfig:
        """A configuration of an architecture from its fields."""
        family = family_of({"model_type": model_type})
        return family.load(f"{family.stem}Config")(*args, **kwargs)


class _AutoModel:
    """Base of the classes that pick a family's model by its configuration."""

    head: ClassVar[str]
    # Heads that serve, in this order, where a family lacks the first.
    other_heads: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def class_for(cls, config: ModelConfig | dict[str, Any]) -> Any:
        """The model class for a configuration.

        Raises:
            ValueError: no such architecture, or it has no such head; the message names those that exist.
        """
        family = family_of(config)
        head = next((head for head in (cls.head, *cls.other_heads) if head in family.heads), None)
        if head is None:
            raise ValueError(
                f"{family.stem} has no {cls.__name__.removeprefix('TFAutoModel')} model; it has "
                f"{', '.join(map(family.class_name, family.heads))}."
            )
        return family.load(family.class_name(head))

    def __init__(self, *_: Any, **__: Any):
        raise TypeError(
            f"{type(self).__name__} picks a class and is none itself: use its from_pretrained(...) or its "
            f"from_config(config)."
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load a checkpoint into the right class; arguments as in `TFPreTrainedModel.from_pretrained`."""
        # Models take it; tokenizers and configurations, which share the table of arguments, do not.
        options, _ = hub.split_options({name: kwargs[name] for name in kwargs if name != "quantization_config"})
        source = hub.Source(pretrained_model_name_or_path, **options)
        config = kwargs.get("config")
        if not isinstance(config, (ModelConfig, Mapping)):
            config = read_config_file(source if config is None else config, **options)
        return cls.class_for(config).from_pretrained(source, **{**kwargs, "config": config})

    @classmethod
    def from_config(cls, config: ModelConfig, **kwargs: Any) -> Any:
        """A model with random weights; `dtype`, `attn_implementation` and `name` as in the model's constructor."""
        return cls.class_for(config)._from_config(config, **kwargs)


class TFAutoModel(_AutoModel):
    """Any family's bare model."""

    head = "Model"


class TFAutoModelForCausalLM(_AutoModel):
    """Any family's causal language model."""

    head = "ForCausalLM"


class TFAutoModelForMaskedLM(_AutoModel):
    """Any family's masked language model."""

    head = "ForMaskedLM"


class TFAutoModelForPreTraining(_AutoModel):
    """Any family's model with the heads of its pretraining: those of BERT, else the one of its language model."""

    head = "ForPreTraining"
    other_heads = ("ForMaskedLM", "ForCausalLM")


class TFAutoModelWithLMHead(_AutoModel):
    """Any family's language model, masked or causal; the name that older scripts use."""

    head = "ForMaskedLM"
    other_heads = ("ForCausalLM",)


class TFAutoModelForNextSentencePrediction(_AutoModel):
    """Any family's next-sentence predictor."""

    head = "ForNextSentencePrediction"


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
