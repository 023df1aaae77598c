"""verify: it finds what is wrong, and says how much."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from tfmodels.export.artifact import Runner, Tolerance
from tfmodels.export.verify import VerificationError, inputs_for, reference, verify


class Echo(Runner):
    """Gives what the model gives, with something done to it."""

    def __init__(self, model, change=lambda name, values, inputs: values, greedy=None):
        self.model, self.change, self.greedy = model, change, greedy
        self.generates = greedy is not None
        self.seen = []

    def run(self, inputs, signature=None):
        self.seen.append(inputs["attention_mask"])
        return {name: self.change(name, values, inputs) for name, values in reference(self.model, inputs).items()}

    def generate(self, ids, max_new_tokens):
        return self.greedy(self.model.generate(ids, max_new_tokens=max_new_tokens, jit_compile=False).numpy())


@pytest.fixture(scope="module")
def tagger():
    return small_models.make("mpnet", "ForQuestionAnswering")


@pytest.fixture(scope="module")
def writer():
    return small_models.make("llama", "ForCausalLM", max_position_embeddings=24)


def test_equal_outputs(tagger):
    runner = Echo(tagger)
    report = verify(runner, tagger)
    assert report.differences == {"start_logits": 0.0, "end_logits": 0.0}
    assert report.largest_difference == 0.0 and report.greedy_tokens is None
    assert report.latency_ms > 0 and report.latency_tokens == 16
    shapes = {mask.shape for mask in runner.seen}
    assert {batch for batch, _ in shapes} == {1, 3} and {length for _, length in shapes} == {1, 7, 16, 30}
    assert any((mask == 0).any() for mask in runner.seen)


@pytest.mark.slow
def test_difference_is_measured_and_refused(tagger):
    runner = Echo(tagger, lambda name, values, inputs: values + (0.25 if name == "end_logits" else 0))
    with pytest.raises(VerificationError, match=r"end_logits by 0\.25 \(at most 1(\.\d+)?e-05\)") as caught:
        verify(runner, tagger)
    assert caught.value.report.differences["end_logits"] == pytest.approx(0.25, abs=1e-6)
    assert verify(runner, tagger, tolerance=0.3).largest_difference == pytest.approx(0.25, abs=1e-6)
    assert verify(runner, tagger, tolerance=Tolerance(0.0, 10.0)).calls > 5


def test_numbers_that_are_none_are_refused(tagger):
    runner = Echo(tagger, lambda name, values, inputs: np.where(values == values.max(), np.nan, values))
    with pytest.raises(VerificationError, match="by inf"):
        verify(runner, tagger, tolerance=1e9)


def test_a_mask_that_is_ignored_is_found(tagger):
    def unmasked(name, values, inputs):
        return reference(tagger, {**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])})[name]

    with pytest.raises(VerificationError):
        verify(Echo(tagger, unmasked), tagger)


def test_missing_output_and_wrong_shape(tagger):
    runner = Echo(tagger)
    runner.run = lambda inputs, signature=None: {"start_logits": reference(tagger, inputs)["start_logits"]}
    with pytest.raises(ValueError, match="output 'end_logits' is missing; it gives start_logits"):
        verify(runner, tagger)
    with pytest.raises(ValueError, match="output 'start_logits' has shape"):
        verify(Echo(tagger, lambda name, values, inputs: values[:, :-1]), tagger)


def test_lengths_stay_within_what_the_artefact_takes(tagger):
    runner = Echo(tagger)
    runner.max_length = 5
    verify(runner, tagger)
    assert {mask.shape[1] for mask in runner.seen} == {1, 5}


def test_greedy_ids(writer):
    settings = writer.generation_config
    report = verify(Echo(writer, greedy=lambda ids: ids), writer)
    # Prompts of 5 and 11 tokens in a context of 24.
    assert report.greedy_tokens == report.equal_tokens == 19 + 13
    assert writer.generation_config is settings


@pytest.mark.slow
def test_greedy_ids_that_differ(writer):
    def change(ids):
        return np.concatenate([ids[:, :-2], (ids[:, -2:] + 1) % 61], axis=1)

    with pytest.raises(VerificationError, match="28 of 32 before the first that differs"):
        verify(Echo(writer, greedy=change), writer)
    inexact = Echo(writer, greedy=change)
    inexact.exact_ids = False
    assert verify(inexact, writer).equal_tokens == 28


def test_left_padding_is_compared_at_tokens_only(writer):
    def garbage_at_padding(name, values, inputs):
        left = inputs["attention_mask"][:, :1] == 0
        return np.where((left & (inputs["attention_mask"] == 0))[..., None], 77.0, values)

    assert any(
        inputs["attention_mask"][1, 0] == 0 for inputs in inputs_for(writer, 16) if len(inputs["input_ids"]) > 1
    )
    assert verify(Echo(writer, garbage_at_padding), writer).largest_difference == 0.0
