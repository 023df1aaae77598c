"""Transformer models as native Keras 3 models on TensorFlow.

Public names are imported on first use: `import tfmodels` loads neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
from typing import Any

from tfmodels import moved, startup
from tfmodels.utils.text import quote

__version__ = "0.1.0"

_NAMES = {
    "tfmodels.auto": (
        "AutoConfig",
        "TFAutoModel",
        "TFAutoModelForCausalLM",
        "TFAutoModelForMaskedLM",
        "TFAutoModelForMultipleChoice",
        "TFAutoModelForQuestionAnswering",
        "TFAutoModelForSequenceClassification",
        "TFAutoModelForTokenClassification",
    ),
    "tfmodels.cache.kv": ("StaticCache",),
    "tfmodels.configs.base": ("ModelConfig",),
    "tfmodels.generation.config": ("GenerationConfig",),
    "tfmodels.generation.streamers": ("TextStreamer",),
    "tfmodels.models.base": ("TFPreTrainedModel",),
    "tfmodels.sentence.encoder": ("SentenceEncoder",),
    "tfmodels.training.callbacks": ("BackupAndRestore", "KerasMetricCallback", "PushToHubCallback"),
    "tfmodels.training.collators": (
        "DataCollatorForLanguageModeling",
        "DataCollatorForMultipleChoice",
        "DataCollatorForTokenClassification",
        "DataCollatorWithPadding",
        "DefaultDataCollator",
        "default_data_collator",
    ),
    "tfmodels.training.optimizers": ("AdamWeightDecay", "WarmUp", "create_optimizer", "set_seed"),
    "tfmodels.tokenization": (
        "AutoTokenizer",
        "BatchEncoding",
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "GPTNeoXTokenizer",
        "GPTNeoXTokenizerFast",
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "MPNetTokenizer",
        "MPNetTokenizerFast",
        "PreTrainedTokenizerFast",
    ),
}
moved.install()
startup.install()

# Parts that are imported when they are first named: `tfmodels.training` after `import tfmodels`.
_PACKAGES = (
    "auto",
    "checkpoints",
    "configs",
    "dtypes",
    "export",
    "generation",
    "models",
    "sentence",
    "tokenization",
    "training",
)
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def _family_names() -> dict[str, Any]:
    from tfmodels.auto import public_names

    return public_names()


def _hint(name: str) -> str:
    from tfmodels.auto import name_hint

    return name_hint(name, {*_MODULES, *_family_names()})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    elif not name.startswith("_") and name in _family_names():
        family, name = _family_names()[name]
        value = family.load(name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"tfmodels.{name}")
    else:
        hint = "" if name.startswith("_") else _hint(name)
        raise AttributeError(f"module 'tfmodels' has no attribute {quote(name)}{hint}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PACKAGES, *_family_names()})
