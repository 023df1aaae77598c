"""The facts about a head that exports and training read from its class."""

import pytest
from small_models import EVERY, class_of, config_of

# Head -> (axes of input_ids, whether an example is one text, whether logits are scores of a text's classes).
FACTS = {
    "Model": (2, True, False),
    "ForCausalLM": (2, True, False),
    "ForMaskedLM": (2, True, False),
    "ForSequenceClassification": (2, True, True),
    "ForTokenClassification": (2, True, False),
    "ForMultipleChoice": (3, False, False),
    "ForQuestionAnswering": (2, False, False),
}


@pytest.mark.parametrize(("name", "head"), EVERY)
def test_facts_of_every_head(name, head):
    found = class_of(name, head)
    assert (found.input_rank, found.takes_one_text, found.classifies_texts) == FACTS[head]


@pytest.mark.parametrize(("name", "expected"), [("llama", True), ("mpnet", False)])
def test_only_decoders_look_for_the_last_token(name, expected):
    classifier = class_of(name, "ForSequenceClassification")(config_of(name))
    assert classifier.finds_last_token is expected
    assert class_of(name, "Model")(config_of(name)).finds_last_token is False
