"""Gradient checkpointing and resized vocabularies."""

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

DROPOUTS = {
    "llama": {"attention_dropout": 0.3},
    "gpt_neox": {"attention_dropout": 0.3, "hidden_dropout": 0.3},
    "gpt_neo": {"attention_dropout": 0.3, "resid_dropout": 0.3, "embed_dropout": 0.3},
    "mpt": {"resid_pdrop": 0.3, "emb_pdrop": 0.3, "attn_config": {"attn_pdrop": 0.3}},
    "mpnet": {"attention_probs_dropout_prob": 0.3, "hidden_dropout_prob": 0.3},
}


def gradients(model, inputs, compiled=None):
    def step():
        with tf.GradientTape() as tape:
            loss = model(**inputs, training=True).loss
        return loss, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    if compiled is not None:
        step = tf.function(step, jit_compile=compiled)
    loss, found = step()
    return [loss, *(tf.convert_to_tensor(one) for one in found)]


MODES = {"eager": None, "graph": False, "xla": True}
# Every family eagerly, and in the one of the other modes that takes its turn; Llama in all.
TURNS = {"llama": MODES, "gpt_neox": ("eager", "graph"), "gpt_neo": ("eager", "graph"), "mpt": ("eager", "graph")}
TURNS |= {"mpnet": ("eager", "xla")}
MODE_CASES = [
    pytest.param(name, MODES[mode], id=f"{name}-{mode}", marks=[] if name == "llama" else [pytest.mark.slow])
    for name, modes in TURNS.items()
    for mode in modes
]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name, mode", MODE_CASES)
def test_gradients_are_the_same_dropout_included(name, mode):
    inputs = {**small.inputs_of(name, "ForTokenClassification"), **small.labels_of(name, "ForTokenClassification")}
    found = []
    for enable in (False, True):
        model = small.make(name, "ForTokenClassification", **DROPOUTS[name])
        if enable:
            model.gradient_checkpointing_enable()
        first, second = gradients(model, inputs, mode), gradients(model, inputs, mode)
        assert abs(first[0] - second[0]) > 1e-6  # another step drops other values
        found.append((first, second))
    for plain, recomputed in zip(*found, strict=True):
        for one, other in zip(plain, recomputed, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6, rtol=1e-5)


def products_of_a_step(model):
    """Matrix products in the optimised XLA program of a loss and its gradients."""
    weights = [weight.value for weight in model.trainable_weights]

    @tf.function(jit_compile=True)
    def step(ids):
        with tf.GradientTape() as tape:
            loss = model(input_ids=ids, labels=ids, training=True).loss
        return tape.gradient(loss, weights)

    ids = tf.constant(small.inputs_of("llama", "ForCausalLM")["input_ids"])
    return step.experimental_get_compiler_ir(ids)(stage="optimized_hlo").count(" dot(")


@pytest.mark.slow
def test_xla_keeps_the_second_run():
    """A compiler that took the first run's results for the second would keep them all: memory would not shrink."""
    model = small.make("llama", "ForCausalLM")
    plain = products_of_a_step(model)
    model.gradient_checkpointing_enable()
    # At least the products to queries, keys and values and two of the feed-forward run again in each block.
    assert products_of_a_step(model) >= plain + 5 * model.config.num_hidden_layers


@pytest.mark.slow
def test_attention_in_blocks_that_runs_twice_drops_the_same():
    inputs = {
        **small.inputs_of("llama", "ForTokenClassification"),
        **small.labels_of("llama", "ForTokenClassification"),
    }
    found = []
    for enable in (False, True):
        model = small.make("llama", "ForTokenClassification", attention_dropout=0.3)
        model.backbone.attn_implementation = "blockwise"
        if enable:
            model.gradient_checkpointing_enable()
        found.append([gradients(model, inputs, False) for _ in range(2)])
        assert model.attention_report() == "2 blocks: blockwise"
        assert abs(found[-1][0][0] - found[-1][1][0]) > 1e-6
    for plain, recomputed in zip(*found, strict=True):
        for one, other in zip(plain, recomputed, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6, rtol=1e-5)


def test_blocks_run_twice_in_training_only_and_can_be_switched_off():
    model = small.make("llama", "ForCausalLM")
    calls = []
    block = type(model.backbone.layers[0])
    inputs = {**small.inputs_of("llama", "ForCausalLM"), **small.labels_of("llama", "ForCausalLM")}
    plain = block.call

    def counted(self, *args, **kwargs):
        calls.append(self.name)
        return plain(self, *args, **kwargs)

    block.call = counted
    try:
        for switch, want in ((model.gradient_checkpointing_enable, 4), (model.gradient_checkpointing_disable, 2)):
            switch()
            calls.clear()
            gradients(model, inputs)
            assert len(calls) == want
            calls.clear()
            model(**inputs)
            assert len(calls) == 2
    finally:
        block.call = plain


def test_everything_else_still_comes_out():
    model = small.make("llama", "ForCausalLM")
    inputs = small.inputs_of("llama", "ForCausalLM")
    options = {"training": True, "use_cache": True, "output_attentions": True, "output_hidden_states": True}
    want = model(**inputs, **options)
    model.gradient_checkpointing_enable()
    got = model(**inputs, **options)
    assert list(got) == list(want)
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_fit_with_checkpointing_reaches_the_same_weights():
    data = {**small.inputs_of("llama", "ForCausalLM"), **small.labels_of("llama", "ForCausalLM")}
    results = []
    for enable in (False, True):
        model = small.make("llama", "ForCausalLM")
        if enable:
            model.gradient_checkpointing_enable()
        model.compile(keras.optimizers.SGD(0.5))
        model.fit(data, epochs=3, verbose=0)
        results.append(np.asarray(model(small.inputs_of("llama", "ForCausalLM")["input_ids"]).logits))
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.quick(3)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", small.SMALL)
def test_resizing_keeps_what_stays(name, tied, tmp_path):
    head = "ForMaskedLM" if name == "mpnet" else "ForCausalLM"
    model = small.make(name, head, tie_word_embeddings=tied)
    inputs = small.inputs_of(name, head)
    want = np.asarray(model(**inputs).logits)
    old = model.config
    table = model.resize_token_embeddings(64)
    assert old.vocab_size == 61 and model.config.vocab_size == model.backbone.config.vocab_size == 64
    assert table is model.get_input_embeddings() and table.input_dim == 64
    logits = np.asarray(model(**inputs).logits)
    np.testing.assert_allclose(logits[..., :61], want, atol=1e-6)
    assert logits.shape[-1] == 64 and np.isfinite(model(np.array([[63, 62]])).logits).all()
    # It trains, and goes through files, like any other model.
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit({**inputs, **small.labels_of(name, head)}, verbose=0)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(**inputs).logits, model(**inputs).logits)
    model.resize_token_embeddings(61)
    np.testing.assert_allclose(model(**inputs).logits, again(**inputs).logits[..., :61], atol=1e-6)


def test_what_cannot_be_resized():
    model = small.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match="new_num_tokens=0; a whole number above 0"):
        model.resize_token_embeddings(0)
