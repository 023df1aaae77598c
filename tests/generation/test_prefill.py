"""Prompts that are run in chunks: the same tokens, and no pass that looks from all columns at all others."""

from __future__ import annotations

import re

import numpy as np
import pytest
import small_models as small

from tfmodels import Engine
from tfmodels.generation.prompt import Prompts, to_buckets
from tfmodels.generation.step import Decoder
from tfmodels.generation.strategies import Sampling

GRAPH = {"jit_compile": False, "eos_token_id": None, "max_new_tokens": 5}
# Rows of other lengths, which buckets pad to 32 columns.
IDS = np.random.default_rng(0).integers(3, 60, (2, 23))
MASK = np.array([[1] * 23, [0] * 9 + [1] * 14])


@pytest.fixture(scope="module", params=["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in small.SMALL)])
def model(request):
    if request.param == "mpnet":
        pytest.skip("it generates nothing")
    model = small.make(request.param, "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def ids_of(model, ids=IDS, **options):
    return np.asarray(model.generate(ids, **{**GRAPH, **options}))


@pytest.mark.parametrize("chunk", [8, 13, 100])
def test_the_tokens_are_the_same(model, chunk):
    want = ids_of(model, attention_mask=MASK)
    np.testing.assert_array_equal(ids_of(model, attention_mask=MASK, prefill_chunk_size=chunk), want)


@pytest.mark.slow
def test_with_other_ways_of_decoding(model):
    if model.config.model_type in ("gpt_neox", "mpt"):
        pytest.skip("nothing in it that the other families do not have")
    ways = [{"num_beams": 3}, {"ids": IDS[:1], "assistant_model": model}]
    if model.config.model_type == "llama":  # the windows of GPT-Neo have no part in these
        ways.append({"inputs_embeds": np.asarray(model.get_input_embeddings()(IDS[:1])), "ids": None})
        ways.append({"ids": IDS[:1], "prompt_lookup_num_tokens": 3})
    for options in ways:
        np.testing.assert_array_equal(ids_of(model, **options, prefill_chunk_size=9), ids_of(model, **options))
    output = model.generate(IDS[:1, :4], return_dict_in_generate=True, **GRAPH)
    past = output.past_key_values
    longer = np.concatenate([output.sequences, IDS[:1, :19]], axis=1)
    options = {"ids": longer, "max_new_tokens": 3}
    got = ids_of(model, past_key_values=past, prefill_chunk_size=9, **options)
    np.testing.assert_array_equal(got, ids_of(model, **options))


def test_no_pass_is_quadratic():
    model = small.make("llama", "ForCausalLM")
    prompt = to_buckets(Prompts(np.full((1, 512), 5, "int32"), np.ones((1, 512), bool), None), 8)
    found = {}
    for chunk in (None, 32):
        decoder = Decoder(model, Sampling(False), prefill_chunk=chunk)
        text = model.programs.hlo(("forward_prompt", decoder.key), decoder.traced("forward_prompt"), prompt)
        found[chunk] = re.findall(r"f32\[[0-9,]*512,512\]", text)
    assert found[None] and not found[32]


def test_what_does_not_go_together():
    model = small.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match="prefill_chunk_size=4 needs use_cache=True"):
        model.generate(IDS, prefill_chunk_size=4, use_cache=False)
    with pytest.raises(ValueError, match="prefill_chunk_size=0"):
        model.generate(IDS, prefill_chunk_size=0)
    with pytest.raises(
        ValueError, match="prefill_chunk_size=4 is not a setting of the engine's rows: give prefill_chunk"
    ):
        Engine(model, rows=1, capacity=16, jit_compile=False).add([5], prefill_chunk_size=4)
