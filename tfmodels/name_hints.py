"""Hints for names that the package does not have: names of transformers, and names near ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from tfmodels.auto import FAMILIES, Family
from tfmodels.utils.text import did_you_mean

# Names of transformers that have another name here, or another way.
OTHER_NAMES = {
    "PretrainedConfig": "ModelConfig",
    "PreTrainedConfig": "ModelConfig",
    "PreTrainedModel": "TFPreTrainedModel",
    "FlaxPreTrainedModel": "TFPreTrainedModel",
    "PreTrainedTokenizer": "PreTrainedTokenizerFast",
    "PreTrainedTokenizerBase": "PreTrainedTokenizerFast",
    "TFBertLMHeadModel": "TFBertForMaskedLM, or a decoder such as TFGPT2LMHeadModel: BERT is an encoder here",
    "TFRobertaForCausalLM": "TFRobertaForMaskedLM, or a decoder such as TFGPT2LMHeadModel: RoBERTa is an encoder here",
    "TFBertTokenizer": "BertTokenizer before the model, which takes ids: tokenizer(texts, return_tensors='tf')",
    "TFGPT2Tokenizer": "GPT2Tokenizer before the model, which takes ids: tokenizer(texts, return_tensors='tf')",
    "TFTrainer": "model.compile(...) and model.fit(...)",
    "TFTrainingArguments": "model.compile(...) and model.fit(...)",
    "Trainer": "model.compile(...) and model.fit(...)",
    "TrainingArguments": "model.compile(...) and model.fit(...)",
    "StoppingCriteria": "a function (input_ids, scores) in generate(..., stopping_criteria=[...])",
    "StoppingCriteriaList": "a list: generate(..., stopping_criteria=[...])",
    "LogitsProcessor": "a function (input_ids, scores) in generate(..., logits_processor=[...])",
    "LogitsProcessorList": "a list: generate(..., logits_processor=[...])",
    "TFLogitsProcessor": "a function (input_ids, scores) in generate(..., logits_processor=[...])",
    "TFLogitsProcessorList": "a list: generate(..., logits_processor=[...])",
    "TFGenerationMixin": "TFPreTrainedModel, whose causal models have generate",
    "GenerationMixin": "TFPreTrainedModel, whose causal models have generate",
    "TFModelUtilsMixin": "TFPreTrainedModel, which has num_parameters",
    "SpecialTokensMixin": "PreTrainedTokenizerFast",
    "TruncationStrategy": 'the names themselves, such as truncation="longest_first"',
    "PaddingStrategy": 'the names themselves, such as padding="max_length"',
    "TensorType": 'the names themselves, such as return_tensors="tf"',
    "CharSpan": "BatchEncoding.word_to_chars(...), which returns (start, end)",
    "TokenSpan": "BatchEncoding.word_to_tokens(...), which returns (start, end)",
    "BatchFeature": "BatchEncoding",
    "GenerationMode": "GenerationConfig, whose settings say which way generate takes",
    "CompileConfig": "generate(...), which compiles by itself",
    "shape_list": "keras.ops.shape",
    "get_initializer": "keras.initializers.TruncatedNormal(stddev)",
    "get_tf_activation": "tfmodels.layers.activations.get_activation",
    "keras_serializable": "keras.saving.register_keras_serializable()",
    "unpack_inputs": "keyword arguments: models take them, a dict or a list",
    "TFConv1D": "keras.layers.Dense, whose kernel has the same axes",
    "TFSharedEmbeddings": "keras.layers.Embedding",
    "TFSequenceSummary": "TFGPT2DoubleHeadsModel, which has one",
    "LearningRateSchedule": "keras.optimizers.schedules.LearningRateSchedule",
    "DynamicCache": "StaticCache",
    "BitsAndBytesConfig": 'from_pretrained(..., quantization_config="int8"), or transformers\' own object there',
}
_MODEL_NAME = re.compile(r"(TF|Flax|)(\w+?)(Model|PreTrainedModel|For\w+|LMHeadModel|DoubleHeadsModel|WithLMHead)")
_MAIN_LAYER = re.compile(r"TF(\w+)MainLayer")
# Layers that models of transformers are made of, behind the family's name.
_LAYER = re.compile(
    r"\w*Embeddings?|Transformer|(Encoder|Decoder|Transformer)?(Layer|Block)|Encoder|Decoder|\w*Attention\w*|SelfOutput"
    r"|Output|Intermediate|MLP|FFN|FeedForward|Pooler|(RMS|Layer)?Norm|PredictionHeadTransform"
    r"|(MLM|LM|NSP|Classification|OnlyMLM|OnlyNSP|PreTraining|LMPrediction)Heads?"
)
# Output classes, losses and score processors.
_OUTPUT = re.compile(r"(?:TF)?(\w+?)(?:Model)?Output\w*")
_LOSS = re.compile(r"TF\w+Loss")
_PROCESSOR = re.compile(r"(?:TF)?\w+Logits(?:Processor|Warper)")
_OUTPUTS = (
    *("BaseModelOutput", "CausalLMOutput", "MaskedLMOutput", "NextSentencePredictorOutput", "MultipleChoiceOutput"),
    *("SequenceClassifierOutput", "TokenClassifierOutput", "QuestionAnsweringOutput", "PreTrainingOutput"),
)


def _way(name: str) -> str | None:
    """Name the replacement of a class of outputs, losses or score processors; None for other classes."""
    if _LOSS.fullmatch(name):
        return "model(..., labels=labels).loss, or tfmodels.models.losses"
    if _PROCESSOR.fullmatch(name):
        return "the setting of generate, or a function (input_ids, scores) in generate(..., logits_processor=[...])"
    if matched := _OUTPUT.fullmatch(name):
        if re.search("Search|Sample|Generate", name):
            return "the output of generate(..., return_dict_in_generate=True), whatever the way"
        kind = "BaseModel" if matched[1] == "Base" else matched[1]
        if f"{kind}Output" in _OUTPUTS:
            pooled = "WithPooling" * (kind == "BaseModel" and "Pooling" in name)
            return f"tfmodels.models.outputs.{kind}Output{pooled}"
        return "tfmodels.models.outputs, which has the outputs of these models"
    return None


def _stems() -> dict[str, Family]:
    """The families by the stem of their class names."""
    return {family.stem: family for family in FAMILIES.values()}


def _family_of_layer(name: str) -> Family | None:
    """The family inside of whose models transformers has a layer of a name, such as BertSelfAttention; else None."""
    bare = re.sub("^(TF|Flax)", "", name)
    stems = (stem for stem in _stems() if bare.startswith(stem) and _LAYER.fullmatch(bare.removeprefix(stem)))
    longest = max(stems, key=len, default=None)
    return None if longest is None else _stems()[longest]


def name_hint(name: str, known: Collection[str]) -> str:
    """A hint of the name to use for one that the package does not have; "" where nothing is close.

    Example:
        >>> from tfmodels.auto import public_names
        >>> name_hint("LlamaForCausalLM", public_names())
        '; did you mean TFLlamaForCausalLM?'
        >>> name_hint("FlaxGPTNeoForCausalLM", public_names())
        '; use TFGPTNeoForCausalLM, which runs on JAX where KERAS_BACKEND=jax is set before Keras is imported.'
    """
    if name in OTHER_NAMES:
        return f"; use {OTHER_NAMES[name]}."
    if (family := _family_of_layer(name)) is not None:
        return (
            f"; layers inside of models have no public names here: TF{family.stem}Model(config).backbone is a Keras "
            f"layer, and holds those of {family.stem}."
        )
    if (way := _way(name)) is not None:
        return f"; use {way}."
    if (matched := _MAIN_LAYER.fullmatch(name)) and matched[1] in _stems():
        return f"; use TF{matched[1]}Model(config).backbone, which is a Keras layer."
    if matched := _MODEL_NAME.fullmatch(name):
        return _model_hint(*matched.groups(), known)
    return did_you_mean(name, known)


def _model_hint(prefix: str, stem: str, head: str, known: Collection[str]) -> str:
    """The class to use in place of a name, from its parts: "TF" or "Flax", the family, the head."""
    if stem == "AutoModel":  # such as AutoModelForCausalLM
        stem, head = "Auto", f"Model{head}"
    stems = _stems()
    if stem not in stems and stem != "Auto":
        near = [one for one in stems if one.lower() == stem.lower()]
        near = near or difflib.get_close_matches(stem, stems, n=1, cutoff=0.7)
        others = sorted(one for one in known if one.startswith(prefix + stem))  # such as DataCollatorForSeq2Seq
        if not near and others:
            return f"; {stem} has {', '.join(others)}."
        if not near:
            return f"; the architectures here are {', '.join(stems)}."
        stem = near[0]
    # Head -> class; classes with two heads and the like have no entry of their own.
    names = {one: stems[stem].class_name(one) for one in stems[stem].heads} if stem != "Auto" else {}
    longer = tuple(f"TF{one}" for one in stems if one.startswith(stem) and one != stem)
    others = {one for one in known if one.startswith(f"TF{stem}") and not one.startswith(longer)}
    names |= {one.removeprefix(f"TF{stem}"): one for one in others - set(names.values())}
    if head not in names:
        head = {"LMHeadModel": "ForCausalLM", "DoubleHeadsModel": "ForCausalLM"}.get(head, head)
    near = [head] if head in names else difflib.get_close_matches(head, names, n=1, cutoff=0.85)
    if not near:
        return f"; {stem} has {', '.join(sorted(names.values()))}."
    wanted = names[near[0]]
    if prefix == "Flax":
        return f"; use {wanted}, which runs on JAX where KERAS_BACKEND=jax is set before Keras is imported."
    return f"; did you mean {wanted}?"
