"""export/saved_model/lengths.py: rows that a server has batched and padded by their first element are right."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from tfmodels.export import saved_model


def batched(requests):
    """Requests joined as TensorFlow Serving joins them: each tensor is padded by its own first element.

    Source: BatchingSession's MaybePadding, batching_util.cc (`pad_variable_length_inputs`).
    """
    joined = {}
    for name in requests[0]:
        tensors = [request[name] for request in requests]
        sizes = np.max([tensor.shape[1:] for tensor in tensors], axis=0).astype(int)
        padded = []
        for tensor in tensors:
            whole = np.full((len(tensor), *sizes), tensor.ravel()[0], tensor.dtype)
            whole[tuple(slice(size) for size in tensor.shape)] = tensor
            padded.append(whole)
        joined[name] = np.concatenate(padded)
    return joined


def requests_of(rows):
    return [{"input_ids": np.array([row], "int32"), "lengths": np.array([len(row)], "int32")} for row in rows]


ROWS = [[5, 9, 2, 44, 17, 8], [7, 3], [58, 11, 40]]


@pytest.mark.parametrize(
    ("name", "head", "output"),
    [
        ("mpnet", "Model", "pooler_output"),
        pytest.param("gpt_neo", "ForSequenceClassification", "logits", marks=pytest.mark.slow),
    ],
)
def test_texts_of_other_lengths_share_a_batch(tmp_path, name, head, output):
    model = small_models.make(name, head)
    runner = saved_model.open(model.export(tmp_path / "model").path)
    requests = requests_of(ROWS)
    alone = np.concatenate([runner.run(request, "serving_lengths")[output] for request in requests])
    expected = np.concatenate([np.asarray(model(np.array([row]))[output]) for row in ROWS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(runner.run(batched(requests), "serving_lengths")[output], alone, atol=1e-5)
    # The mask does not survive such a server, which is what the other signature is for.
    masks = [{"input_ids": one["input_ids"], "attention_mask": np.ones_like(one["input_ids"])} for one in requests]
    assert np.abs(runner.run(batched(masks), "serving_default")[output] - alone).max() > 1e-4


@pytest.mark.slow
def test_choices_have_lengths_of_their_own(tmp_path):
    model = small_models.make("mpnet", "ForMultipleChoice")
    runner = saved_model.open(model.export(tmp_path / "model").path)
    inputs = small_models.inputs_of("mpnet", "ForMultipleChoice")
    lengths = inputs["attention_mask"].sum(-1).astype("int32")
    got = runner.run({"input_ids": inputs["input_ids"], "lengths": lengths}, "serving_lengths")["logits"]
    np.testing.assert_allclose(got, model(**inputs)["logits"], atol=1e-5)


@pytest.mark.slow
def test_prompts_of_other_lengths_share_a_batch(tmp_path):
    model = small_models.make("llama", "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    model.generation_config = model.generation_config.update(eos_token_id=None)
    report = model.export(tmp_path / "model", batch_sizes=(2,), jit_compile=False, max_length=32)
    runner, most = saved_model.open(report.path), [7, 4, 9]
    requests = [
        {**request, "max_new_tokens": np.array([new], "int32")}
        for request, new in zip(requests_of(ROWS), most, strict=True)
    ]
    got = runner.run(batched(requests), "generate_lengths")["new_tokens"]
    assert got.shape == (3, 9)
    for row, new, tokens in zip(ROWS, most, got.tolist(), strict=True):
        expected = np.asarray(model.generate([row], max_new_tokens=new, jit_compile=False))[0, len(row) :].tolist()
        assert tokens == expected + [model.generation_config.fill_token_id] * (9 - new)
    for lengths, message in (([0], "must be positive"), ([7], "beyond input_ids")):
        wrong = {**requests[0], "lengths": np.array(lengths, "int32")}
        with pytest.raises(Exception, match=message):
            runner.run(wrong, "generate_lengths")
