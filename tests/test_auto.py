"""The classes that pick a model by its configuration."""

import pytest
import small_models

from tfmodels import (
    TFAutoModelForNextSentencePrediction,
    TFAutoModelForPreTraining,
    TFAutoModelWithLMHead,
    TFBertForNextSentencePrediction,
)


@pytest.mark.parametrize(
    "family, pretraining, language_model",
    [
        ("bert", "TFBertForPreTraining", "TFBertForMaskedLM"),
        ("roberta", "TFRobertaForMaskedLM", "TFRobertaForMaskedLM"),
        ("distilbert", "TFDistilBertForMaskedLM", "TFDistilBertForMaskedLM"),
        ("mpnet", "TFMPNetForMaskedLM", "TFMPNetForMaskedLM"),
        ("gpt2", "TFGPT2LMHeadModel", "TFGPT2LMHeadModel"),
        ("llama", "TFLlamaForCausalLM", "TFLlamaForCausalLM"),
    ],
)
def test_names_of_older_scripts(family, pretraining, language_model):
    config = small_models.config_of(family)
    assert TFAutoModelForPreTraining.class_for(config).__name__ == pretraining
    assert TFAutoModelWithLMHead.class_for(config).__name__ == language_model


def test_next_sentences_are_those_of_bert():
    model = TFAutoModelForNextSentencePrediction.from_config(small_models.config_of("bert"))
    assert type(model) is TFBertForNextSentencePrediction
    with pytest.raises(ValueError, match="GPT2 has no ForNextSentencePrediction model; it has TFGPT2Model"):
        TFAutoModelForNextSentencePrediction.from_config(small_models.config_of("gpt2"))
