"""The tasks by name, which class does each, and which tasks a model can do."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from tfmodels.auto import FAMILIES
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.utils.text import did_you_mean, quote

# A task's module in this package and its class there.
TASKS = {
    "text-generation": ("text_generation", "TextGenerationPipeline"),
    "text-classification": ("text_classification", "TextClassificationPipeline"),
    "token-classification": ("token_classification", "TokenClassificationPipeline"),
    "question-answering": ("question_answering", "QuestionAnsweringPipeline"),
    "fill-mask": ("fill_mask", "FillMaskPipeline"),
    "feature-extraction": ("feature_extraction", "FeatureExtractionPipeline"),
    "zero-shot-classification": ("zero_shot_classification", "ZeroShotClassificationPipeline"),
    "sentence-similarity": ("sentence_similarity", "SentenceSimilarityPipeline"),
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
# The tasks of a head; the first is the one that `pipeline` takes where none is named.
HEADS = {
    "ForCausalLM": ("text-generation",),
    "ForMaskedLM": ("fill-mask",),
    "ForSequenceClassification": ("text-classification", "zero-shot-classification"),
    "ForTokenClassification": ("token-classification",),
    "ForQuestionAnswering": ("question-answering",),
    "Model": ("feature-extraction", "sentence-similarity"),
}
# Tasks of a checkpoint's bare model, which every head has below it.
BARE = HEADS["Model"]


def task_class(task: str) -> Any:
    """The class of a task.

    Raises:
        ValueError: there is no such task; the message names those that there are.
    """
    name = ALIASES.get(task, task) if isinstance(task, str) else task
    if not isinstance(name, str) or name not in TASKS:
        names = [*TASKS, *ALIASES]
        raise ValueError(
            f"task={quote(task)} is none of the tasks here: {', '.join(names)}{did_you_mean(task, names) or '.'}"
        )
    module, class_name = TASKS[name]
    return getattr(importlib.import_module(f"tfmodels.pipelines.{module}"), class_name)


def head_of_architecture(architecture: Any) -> str | None:
    """The head in an architecture's name, as `config.json` has it; None for an unknown one.

    Example:
        >>> head_of_architecture("GPT2LMHeadModel"), head_of_architecture("MPNetModel"), head_of_architecture("X")
        ('ForCausalLM', 'Model', None)
    """
    name = f"TF{str(architecture).removeprefix('TF')}"
    heads = (head for family in FAMILIES.values() for head in family.heads if family.class_name(head) == name)
    return next(heads, None)


def head_of(model: Any) -> str | None:
    """The head of a model object; None where it is no model of this package.

    Example:
        >>> from tfmodels import LlamaConfig, TFLlamaForCausalLM
        >>> head_of(TFLlamaForCausalLM(LlamaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
        ...                                        intermediate_size=8, num_attention_heads=2)))
        'ForCausalLM'
    """
    for kind in type(model).__mro__:
        head = head_of_architecture(kind.__name__)
        if head is not None:
            return head
    return None


def check_head(pipeline_class: Any, model: Any) -> None:
    """Raise where a model cannot do a pipeline's task, with what it can."""
    if not isinstance(model, TFPreTrainedModel):
        raise TypeError(f"{pipeline_class.__name__} needs a model of tfmodels; got {quote(model)}.")
    head = head_of(model)
    if head == pipeline_class.head or (pipeline_class.task == "feature-extraction" and head != "ForMultipleChoice"):
        return
    raise ValueError(
        f"{type(model).__name__} cannot do {pipeline_class.task}, which needs a {pipeline_class.head} model; it does "
        f"{_listed(dict.fromkeys([*HEADS.get(head, ()), 'feature-extraction'] if head in HEADS else ()))}."
    )


def check_checkpoint(pipeline_class: Any, config: Mapping[str, Any], name: Any) -> None:
    """Raise ValueError where a checkpoint says that it was made with another head than the task needs.

    Its weights would be drawn at random, and so would the results.
    """
    architectures = config.get("architectures") or ()
    heads = [head for head in map(head_of_architecture, architectures) if head is not None]
    if not heads or pipeline_class.head == "Model" or pipeline_class.head in heads:
        return
    if pipeline_class.head == "ForCausalLM" and heads == ["Model"] and config.get("tie_word_embeddings"):
        return
    if pipeline_class.head == "ForMaskedLM" and "ForPreTraining" in heads:  # which has that head among others
        return
    tasks = dict.fromkeys(task for head in heads for task in (*HEADS.get(head, ()), *BARE))
    raise ValueError(
        f"{quote(str(name))} holds {' and '.join(map(str, architectures))}, which has no weights for "
        f"{pipeline_class.task}; it does {_listed(tasks)}."
    )


def task_of_checkpoint(config: Mapping[str, Any], name: Any) -> str:
    """The first task of a checkpoint's architecture.

    Raises:
        ValueError: `config.json` names no architecture with a task.
    """
    for architecture in config.get("architectures") or ():
        if tasks := HEADS.get(head_of_architecture(architecture) or ""):
            return tasks[0]
    raise ValueError(
        f"config.json of {quote(str(name))} (architectures={quote(config.get('architectures'))}) does not tell a "
        f"task; name one: {', '.join(TASKS)}."
    )


def _listed(tasks: Any) -> str:
    return ", ".join(tasks) or "none of the tasks here"
