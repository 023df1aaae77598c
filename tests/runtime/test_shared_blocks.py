"""Blocks that are traced once: which are, and that all compute what they would by themselves."""

import collections
import re
from importlib import util

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.generation import step
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.prompt import Prompts, to_buckets
from tfmodels.generation.run import sampling_inputs
from tfmodels.generation.strategies import Sampling
from tfmodels.runtime import shared_blocks as shared
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.lowering import Lowering
from tfmodels.training.lora import add_lora

needs_triton = pytest.mark.skipif(util.find_spec("triton") is None, reason="triton is not installed")
IDS = np.random.default_rng(0).integers(2, 61, (2, 6))
WEIGHTS_ONLY = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)


@pytest.fixture
def traced(monkeypatch):
    """The blocks that were traced."""
    blocks = []
    make = shared._function

    def watched(block, context):
        blocks.append(block)
        return make(block, context)

    monkeypatch.setattr(shared, "_function", watched)
    return blocks


def together(model, **inputs):
    """The first output, with blocks shared, as a plain graph."""

    @tf.function(autograph=False)
    def run():
        return model(**inputs, lowering=Lowering(reuse=True))[0]

    return np.asarray(run())


SEVERAL = {"mpt": {"n_layers": 4}, "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_hidden_layers": 4}}


def several(name):
    return small.make(name, "Model", **SEVERAL.get(name, {"num_hidden_layers": 4}))


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mpt", "mpnet", "gpt_neo"])
def test_those_alike_are_traced_once(name, traced):
    model = several(name)
    mask = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    want = np.asarray(model(input_ids=IDS, attention_mask=mask)[0])
    choices = model.backbone.attention_log.paths
    assert traced == []
    np.testing.assert_allclose(together(model, input_ids=IDS, attention_mask=mask), want, rtol=1e-5, atol=1e-6)
    # Half of GPT-Neo's blocks look back on all positions, half on the last few.
    assert len(traced) == (2 if name == "gpt_neo" else 1)
    assert model.backbone.attention_log.paths == choices and len(choices) == 4


CHANGES = {
    "activation": lambda model: setattr(model.backbone.layers[2].mlp, "activation", keras.activations.relu),
    "epsilon": lambda model: setattr(model.backbone.layers[2].input_layernorm, "epsilon", 0.5),
    "adapter": lambda model: add_lora(model, r"layers\.2\..*q_proj", rank=2),
    "int8": lambda model: model.quantize(
        config=WEIGHTS_ONLY, filters=lambda layer: layer in model.backbone.layers[2]._flatten_layers()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_those_that_differ_are_not_taken_for_each_other(change, traced):
    model = several("llama")
    whole = np.asarray(model(input_ids=IDS)[0])
    CHANGES[change](model)
    if change == "adapter":
        for weight in model.trainable_weights:
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    want = np.asarray(model(input_ids=IDS)[0])
    assert np.abs(want - whole).max() > 1e-3
    np.testing.assert_allclose(together(model, input_ids=IDS), want, rtol=1e-5, atol=1e-5)
    assert len(traced) == 2


@pytest.mark.parametrize(
    "name, target",
    [("prefill", "cpu"), ("loop", "cpu"), pytest.param("loop", "triton", marks=needs_triton)],
)
def test_xla_gets_the_same_program(name, target):
    """Apart from names, which number the operations; on a GPU with the same kernels of our own."""

    model = small.make("gpt_neox", "ForCausalLM", dtype="float16")
    decoder = step.Decoder(model, Sampling(do_sample=False), lowering=Lowering("cpu"))
    prompt = to_buckets(Prompts(IDS.astype("int32"), np.ones(IDS.shape, bool), None), 4)
    inputs = sampling_inputs(GenerationConfig(), (), 4)
    given = (prompt, inputs)
    if name == "loop":
        given = (decoder.prefill(*given), inputs, tf.constant(4))

    def operations(reuse):
        decoder = step.Decoder(model, Sampling(do_sample=False), lowering=Lowering(target, reuse=reuse))
        hlo = ProgramCache().hlo(name, decoder.traced(name), *given)
        found = re.findall(r"^ +(?:ROOT )?[^ ]+ = (\([^=]*?\)|[^ ]+) ([\w-]+)\(", hlo, re.MULTILINE)
        return collections.Counter((shape, operation) for shape, operation in found)

    together = operations(reuse=True)
    kernels = sum(count for (_, operation), count in together.items() if operation == "custom-call")
    # Products, and between the blocks a sum with its norms; heads and the vocabulary are too small.
    assert kernels == (2 * 4 + 1 if target == "triton" else 0)
    assert operations(reuse=False) == together and sum(together.values()) > 300


@pytest.mark.slow
def test_weights_are_read_where_they_are_now(traced):
    model = small.make("llama", "ForCausalLM")
    settings = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    before = model.generate(IDS, **settings)
    for variable in model.backbone.layers[1].weights:
        variable.assign(2 * variable)
    after = model.generate(IDS, **settings)
    assert len(traced) == 2  # one in each program
    assert np.abs(np.asarray(after.logits[0]) - np.asarray(before.logits[0])).max() > 1e-3
    want = np.asarray(model(input_ids=np.asarray(after.sequences)[:, :-1]).logits)
    np.testing.assert_allclose(np.stack(after.logits, axis=1), want[:, -3:], rtol=1e-4, atol=1e-5)


def test_training_and_weights_of_attention_are_traced_as_ever(traced):
    model = several("llama")

    @tf.function(autograph=False)
    def run():
        reuse = Lowering(reuse=True)
        trained = model(input_ids=IDS, training=True, lowering=reuse)[0]
        return trained, model(input_ids=IDS, output_attentions=True, lowering=reuse).attentions

    _, attentions = run()
    assert len(attentions) == len(model.backbone.layers) and traced == []


@pytest.mark.parametrize("same", [True, False])
def test_a_block_that_keeps_an_array_is_compared_by_it(same, traced):
    model = several("llama")
    for index, block in enumerate(model.backbone.layers):
        block.table_of_mine = np.arange(3.0) + (0 if same else index)
    together(model, input_ids=IDS)
    assert len(traced) == (1 if same else 4)
