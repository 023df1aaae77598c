"""Transformer models as native Keras 3 models on TensorFlow.

Public names are imported on first use: `import tfmodels` loads neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfmodels import moved, startup
from tfmodels.utils.text import quote

if TYPE_CHECKING:  # what type checkers and editors know; tests compare it with the names below
    from tfmodels import (
        auto as auto,
        checkpoints as checkpoints,
        configs as configs,
        dtypes as dtypes,
        export as export,
        generation as generation,
        models as models,
        pipelines as pipelines,
        sentence as sentence,
        tokenization as tokenization,
        training as training,
        visualize as visualize,
    )
    from tfmodels.auto import (
        AutoConfig as AutoConfig,
        TFAutoModel as TFAutoModel,
        TFAutoModelForCausalLM as TFAutoModelForCausalLM,
        TFAutoModelForMaskedLM as TFAutoModelForMaskedLM,
        TFAutoModelForMultipleChoice as TFAutoModelForMultipleChoice,
        TFAutoModelForNextSentencePrediction as TFAutoModelForNextSentencePrediction,
        TFAutoModelForPreTraining as TFAutoModelForPreTraining,
        TFAutoModelForQuestionAnswering as TFAutoModelForQuestionAnswering,
        TFAutoModelForSequenceClassification as TFAutoModelForSequenceClassification,
        TFAutoModelForTokenClassification as TFAutoModelForTokenClassification,
        TFAutoModelWithLMHead as TFAutoModelWithLMHead,
    )
    from tfmodels.cache.kv import (
        StaticCache as StaticCache,
    )
    from tfmodels.configs.base import (
        ModelConfig as ModelConfig,
    )
    from tfmodels.families.bert import (
        BertConfig as BertConfig,
        TFBertForMaskedLM as TFBertForMaskedLM,
        TFBertForMultipleChoice as TFBertForMultipleChoice,
        TFBertForNextSentencePrediction as TFBertForNextSentencePrediction,
        TFBertForPreTraining as TFBertForPreTraining,
        TFBertForQuestionAnswering as TFBertForQuestionAnswering,
        TFBertForSequenceClassification as TFBertForSequenceClassification,
        TFBertForTokenClassification as TFBertForTokenClassification,
        TFBertModel as TFBertModel,
    )
    from tfmodels.families.distilbert import (
        DistilBertConfig as DistilBertConfig,
        TFDistilBertForMaskedLM as TFDistilBertForMaskedLM,
        TFDistilBertForMultipleChoice as TFDistilBertForMultipleChoice,
        TFDistilBertForQuestionAnswering as TFDistilBertForQuestionAnswering,
        TFDistilBertForSequenceClassification as TFDistilBertForSequenceClassification,
        TFDistilBertForTokenClassification as TFDistilBertForTokenClassification,
        TFDistilBertModel as TFDistilBertModel,
    )
    from tfmodels.families.gemma3 import (
        Gemma3TextConfig as Gemma3TextConfig,
        TFGemma3ForCausalLM as TFGemma3ForCausalLM,
        TFGemma3TextForSequenceClassification as TFGemma3TextForSequenceClassification,
        TFGemma3TextModel as TFGemma3TextModel,
    )
    from tfmodels.families.gpt2 import (
        GPT2Config as GPT2Config,
        TFGPT2DoubleHeadsModel as TFGPT2DoubleHeadsModel,
        TFGPT2ForQuestionAnswering as TFGPT2ForQuestionAnswering,
        TFGPT2ForSequenceClassification as TFGPT2ForSequenceClassification,
        TFGPT2ForTokenClassification as TFGPT2ForTokenClassification,
        TFGPT2LMHeadModel as TFGPT2LMHeadModel,
        TFGPT2Model as TFGPT2Model,
    )
    from tfmodels.families.gpt_neo import (
        GPTNeoConfig as GPTNeoConfig,
        TFGPTNeoForCausalLM as TFGPTNeoForCausalLM,
        TFGPTNeoForQuestionAnswering as TFGPTNeoForQuestionAnswering,
        TFGPTNeoForSequenceClassification as TFGPTNeoForSequenceClassification,
        TFGPTNeoForTokenClassification as TFGPTNeoForTokenClassification,
        TFGPTNeoModel as TFGPTNeoModel,
    )
    from tfmodels.families.gpt_neox import (
        GPTNeoXConfig as GPTNeoXConfig,
        TFGPTNeoXForCausalLM as TFGPTNeoXForCausalLM,
        TFGPTNeoXForQuestionAnswering as TFGPTNeoXForQuestionAnswering,
        TFGPTNeoXForSequenceClassification as TFGPTNeoXForSequenceClassification,
        TFGPTNeoXForTokenClassification as TFGPTNeoXForTokenClassification,
        TFGPTNeoXModel as TFGPTNeoXModel,
    )
    from tfmodels.families.granite import (
        GraniteConfig as GraniteConfig,
        TFGraniteForCausalLM as TFGraniteForCausalLM,
        TFGraniteModel as TFGraniteModel,
    )
    from tfmodels.families.llama import (
        LlamaConfig as LlamaConfig,
        TFLlamaForCausalLM as TFLlamaForCausalLM,
        TFLlamaForQuestionAnswering as TFLlamaForQuestionAnswering,
        TFLlamaForSequenceClassification as TFLlamaForSequenceClassification,
        TFLlamaForTokenClassification as TFLlamaForTokenClassification,
        TFLlamaModel as TFLlamaModel,
    )
    from tfmodels.families.mistral import (
        MistralConfig as MistralConfig,
        TFMistralForCausalLM as TFMistralForCausalLM,
        TFMistralForQuestionAnswering as TFMistralForQuestionAnswering,
        TFMistralForSequenceClassification as TFMistralForSequenceClassification,
        TFMistralForTokenClassification as TFMistralForTokenClassification,
        TFMistralModel as TFMistralModel,
    )
    from tfmodels.families.modernbert import (
        ModernBertConfig as ModernBertConfig,
        TFModernBertForMaskedLM as TFModernBertForMaskedLM,
        TFModernBertForMultipleChoice as TFModernBertForMultipleChoice,
        TFModernBertForQuestionAnswering as TFModernBertForQuestionAnswering,
        TFModernBertForSequenceClassification as TFModernBertForSequenceClassification,
        TFModernBertForTokenClassification as TFModernBertForTokenClassification,
        TFModernBertModel as TFModernBertModel,
    )
    from tfmodels.families.mpnet import (
        MPNetConfig as MPNetConfig,
        TFMPNetForMaskedLM as TFMPNetForMaskedLM,
        TFMPNetForMultipleChoice as TFMPNetForMultipleChoice,
        TFMPNetForQuestionAnswering as TFMPNetForQuestionAnswering,
        TFMPNetForSequenceClassification as TFMPNetForSequenceClassification,
        TFMPNetForTokenClassification as TFMPNetForTokenClassification,
        TFMPNetModel as TFMPNetModel,
    )
    from tfmodels.families.mpt import (
        MptAttentionConfig as MptAttentionConfig,
        MptConfig as MptConfig,
        TFMptForCausalLM as TFMptForCausalLM,
        TFMptForQuestionAnswering as TFMptForQuestionAnswering,
        TFMptForSequenceClassification as TFMptForSequenceClassification,
        TFMptForTokenClassification as TFMptForTokenClassification,
        TFMptModel as TFMptModel,
    )
    from tfmodels.families.qwen2 import (
        Qwen2Config as Qwen2Config,
        TFQwen2ForCausalLM as TFQwen2ForCausalLM,
        TFQwen2ForQuestionAnswering as TFQwen2ForQuestionAnswering,
        TFQwen2ForSequenceClassification as TFQwen2ForSequenceClassification,
        TFQwen2ForTokenClassification as TFQwen2ForTokenClassification,
        TFQwen2Model as TFQwen2Model,
    )
    from tfmodels.families.qwen3 import (
        Qwen3Config as Qwen3Config,
        TFQwen3ForCausalLM as TFQwen3ForCausalLM,
        TFQwen3ForQuestionAnswering as TFQwen3ForQuestionAnswering,
        TFQwen3ForSequenceClassification as TFQwen3ForSequenceClassification,
        TFQwen3ForTokenClassification as TFQwen3ForTokenClassification,
        TFQwen3Model as TFQwen3Model,
    )
    from tfmodels.families.roberta import (
        RobertaConfig as RobertaConfig,
        TFRobertaForMaskedLM as TFRobertaForMaskedLM,
        TFRobertaForMultipleChoice as TFRobertaForMultipleChoice,
        TFRobertaForQuestionAnswering as TFRobertaForQuestionAnswering,
        TFRobertaForSequenceClassification as TFRobertaForSequenceClassification,
        TFRobertaForTokenClassification as TFRobertaForTokenClassification,
        TFRobertaModel as TFRobertaModel,
    )
    from tfmodels.families.smollm3 import (
        SmolLM3Config as SmolLM3Config,
        TFSmolLM3ForCausalLM as TFSmolLM3ForCausalLM,
        TFSmolLM3ForQuestionAnswering as TFSmolLM3ForQuestionAnswering,
        TFSmolLM3ForSequenceClassification as TFSmolLM3ForSequenceClassification,
        TFSmolLM3ForTokenClassification as TFSmolLM3ForTokenClassification,
        TFSmolLM3Model as TFSmolLM3Model,
    )
    from tfmodels.generation.config import (
        GenerationConfig as GenerationConfig,
    )
    from tfmodels.generation.engine import (
        Engine as Engine,
        EngineFull as EngineFull,
    )
    from tfmodels.generation.streamers import (
        AsyncTextIteratorStreamer as AsyncTextIteratorStreamer,
        TextIteratorStreamer as TextIteratorStreamer,
        TextStreamer as TextStreamer,
    )
    from tfmodels.models.base import (
        TFPreTrainedModel as TFPreTrainedModel,
    )
    from tfmodels.pipelines import (
        FeatureExtractionPipeline as FeatureExtractionPipeline,
        FillMaskPipeline as FillMaskPipeline,
        NerPipeline as NerPipeline,
        Pipeline as Pipeline,
        QuestionAnsweringPipeline as QuestionAnsweringPipeline,
        SentenceSimilarityPipeline as SentenceSimilarityPipeline,
        TextClassificationPipeline as TextClassificationPipeline,
        TextGenerationPipeline as TextGenerationPipeline,
        TokenClassificationPipeline as TokenClassificationPipeline,
        ZeroShotClassificationPipeline as ZeroShotClassificationPipeline,
        pipeline as pipeline,
    )
    from tfmodels.sentence.cross_encoder import (
        CrossEncoder as CrossEncoder,
    )
    from tfmodels.sentence.encoder import (
        SentenceEncoder as SentenceEncoder,
    )
    from tfmodels.tokenization import (
        AutoTokenizer as AutoTokenizer,
        BatchEncoding as BatchEncoding,
        BertTokenizer as BertTokenizer,
        BertTokenizerFast as BertTokenizerFast,
        DistilBertTokenizer as DistilBertTokenizer,
        DistilBertTokenizerFast as DistilBertTokenizerFast,
        GPT2Tokenizer as GPT2Tokenizer,
        GPT2TokenizerFast as GPT2TokenizerFast,
        GPTNeoXTokenizer as GPTNeoXTokenizer,
        GPTNeoXTokenizerFast as GPTNeoXTokenizerFast,
        LlamaTokenizer as LlamaTokenizer,
        LlamaTokenizerFast as LlamaTokenizerFast,
        MPNetTokenizer as MPNetTokenizer,
        MPNetTokenizerFast as MPNetTokenizerFast,
        PreTrainedTokenizerFast as PreTrainedTokenizerFast,
        Qwen2Tokenizer as Qwen2Tokenizer,
        Qwen2TokenizerFast as Qwen2TokenizerFast,
        RobertaTokenizer as RobertaTokenizer,
        RobertaTokenizerFast as RobertaTokenizerFast,
    )
    from tfmodels.training.callbacks import (
        BackupAndRestore as BackupAndRestore,
        KerasMetricCallback as KerasMetricCallback,
        PushToHubCallback as PushToHubCallback,
    )
    from tfmodels.training.collators import (
        DataCollatorForLanguageModeling as DataCollatorForLanguageModeling,
        DataCollatorForMultipleChoice as DataCollatorForMultipleChoice,
        DataCollatorForTokenClassification as DataCollatorForTokenClassification,
        DataCollatorWithPadding as DataCollatorWithPadding,
        DefaultDataCollator as DefaultDataCollator,
        default_data_collator as default_data_collator,
    )
    from tfmodels.training.optimizers import (
        AdamWeightDecay as AdamWeightDecay,
        GradientAccumulator as GradientAccumulator,
        WarmUp as WarmUp,
        create_optimizer as create_optimizer,
        set_seed as set_seed,
    )
    from tfmodels.visualize import (
        AttentionMaskVisualizer as AttentionMaskVisualizer,
    )

__version__ = "0.1.0"

_NAMES = {
    "tfmodels.auto": (
        "AutoConfig",
        "TFAutoModel",
        "TFAutoModelForCausalLM",
        "TFAutoModelForMaskedLM",
        "TFAutoModelForMultipleChoice",
        "TFAutoModelForNextSentencePrediction",
        "TFAutoModelForPreTraining",
        "TFAutoModelForQuestionAnswering",
        "TFAutoModelForSequenceClassification",
        "TFAutoModelForTokenClassification",
        "TFAutoModelWithLMHead",
    ),
    "tfmodels.cache.kv": ("StaticCache",),
    "tfmodels.configs.base": ("ModelConfig",),
    "tfmodels.generation.config": ("GenerationConfig",),
    "tfmodels.generation.engine": ("Engine", "EngineFull"),
    "tfmodels.generation.streamers": ("AsyncTextIteratorStreamer", "TextIteratorStreamer", "TextStreamer"),
    "tfmodels.models.base": ("TFPreTrainedModel",),
    "tfmodels.pipelines": (
        "FeatureExtractionPipeline",
        "FillMaskPipeline",
        "NerPipeline",
        "Pipeline",
        "QuestionAnsweringPipeline",
        "SentenceSimilarityPipeline",
        "TextClassificationPipeline",
        "TextGenerationPipeline",
        "TokenClassificationPipeline",
        "ZeroShotClassificationPipeline",
        "pipeline",
    ),
    "tfmodels.sentence.cross_encoder": ("CrossEncoder",),
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
    "tfmodels.training.optimizers": (
        "AdamWeightDecay",
        "GradientAccumulator",
        "WarmUp",
        "create_optimizer",
        "set_seed",
    ),
    "tfmodels.visualize": ("AttentionMaskVisualizer",),
    "tfmodels.tokenization": (
        "AutoTokenizer",
        "BatchEncoding",
        "BertTokenizer",
        "BertTokenizerFast",
        "DistilBertTokenizer",
        "DistilBertTokenizerFast",
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "GPTNeoXTokenizer",
        "GPTNeoXTokenizerFast",
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "MPNetTokenizer",
        "MPNetTokenizerFast",
        "PreTrainedTokenizerFast",
        "Qwen2Tokenizer",
        "Qwen2TokenizerFast",
        "RobertaTokenizer",
        "RobertaTokenizerFast",
    ),
}
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
    "pipelines",
    "sentence",
    "tokenization",
    "training",
    "visualize",
)
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def _family_names() -> dict[str, Any]:
    from tfmodels.auto import public_names

    return public_names()


def _hint(name: str) -> str:
    if name in _PACKAGES:  # there is such a part: whoever looks for it elsewhere gets Python's own answer
        return ""
    from tfmodels.name_hints import name_hint

    return name_hint(name, {*_MODULES, *_family_names()})


moved.install(_hint)


def _imported(name: str) -> Any:
    if name == "__all__":
        value = sorted({*_MODULES, *_family_names()})
    elif name in _MODULES:
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


if not TYPE_CHECKING:  # checkers know the names, and take others for mistakes
    __getattr__ = _imported


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PACKAGES, *_family_names()})
