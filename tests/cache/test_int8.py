"""Keys and values in eight bits: rounding, caches, `generate` and the engine."""

import keras
import numpy as np
import pytest
import small_models as small

from tfmodels import Engine, GenerationConfig
from tfmodels.cache import kv
from tfmodels.cache.int8 import rounded, whole
from tfmodels.layers.tokens import TokenInputs

PROMPT = np.array([[5, 9, 2, 7, 11, 3, 8]])


@pytest.mark.parametrize(("dtype", "beside"), [("float32", 0.0), ("bfloat16", 2**-7)])
def test_a_number_is_off_by_half_a_step_at_most(dtype, beside):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 16)) * 10.0 ** rng.integers(-6, 5, (2, 3, 5, 1))
    x[0, 0, 0] = 0.0
    given = keras.ops.cast(x.astype("float32"), dtype)
    kept = rounded(given)
    assert kept.values.shape == x.shape and kept.scales.shape == (2, 3, 5, 1)
    assert keras.backend.standardize_dtype(whole(kept).dtype) == dtype
    exact = np.asarray(keras.ops.cast(given, "float32"), "float64")
    largest = np.abs(exact).max(axis=-1, keepdims=True)
    off = np.abs(np.asarray(keras.ops.cast(whole(kept), "float32"), "float64") - exact)
    assert (off <= largest * (0.501 / 127 + beside)).all()
    assert not off[0, 0, 0].any()


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt_neo", "mpt", "gpt2"])
def test_tokens_run_one_by_one_over_an_int8_cache_come_close_to_the_whole(name):
    model = small.make(name, "ForCausalLM")
    want = np.asarray(model(PROMPT).logits)[0, 3:]
    _, cache = model.backbone.step(TokenInputs(PROMPT[:, :3]))
    cache = kv.to_static(cache, 8, int8=True)
    found = []
    for token in PROMPT[0, 3:]:
        hidden, cache = model.backbone.step(TokenInputs(np.array([[token]])), cache)
        found.append(np.asarray(model.to_logits(hidden))[0, 0])
    assert keras.backend.standardize_dtype(cache.layers[0][1].values.dtype) == "int8"
    off = np.abs(np.array(found) - want).max() / np.abs(want).max()
    assert 0 < off < 0.01


@pytest.fixture(scope="module")
def model():
    return small.make("llama", "ForCausalLM")


SETTINGS = {"max_new_tokens": 6, "jit_compile": False, "eos_token_id": None, "pad_token_id": 0}
IDS = [5, 9, 2, 7, 11, 3]


def continued(model, prompt, new=6, *, rounded_prompt=False):
    """Greedy tokens one by one over an int8 cache; the prompt's own pass sees floats, or what the cache holds."""
    hidden, grown = model.backbone.step(TokenInputs(np.array([prompt])))
    cache = kv.to_static(grown, 32, int8=True)
    if rounded_prompt:
        empty = kv.StaticCache(keras.tree.map_structure(keras.ops.zeros_like, cache.layers), cache.length * 0)
        hidden, cache = model.backbone.step(TokenInputs(np.array([prompt])), empty)
    tokens = []
    for _ in range(new):
        tokens.append(int(np.argmax(model.to_logits(hidden)[0, -1])))
        hidden, cache = model.backbone.step(TokenInputs(np.array([tokens[-1:]])), cache)
    return tokens


@pytest.mark.parametrize(
    "way",
    [{}, {"prefill_chunk_size": 4}, pytest.param({"prompt_lookup_num_tokens": 3}, marks=pytest.mark.slow)],
    ids=str,
)
def test_generate_gives_the_tokens_of_a_plain_loop(model, way):
    kept = {"cache_implementation": "quantized", "cache_config": {"nbits": 8}}
    found = np.asarray(model.generate([IDS], **kept, **way, **SETTINGS))
    assert found[0, len(IDS) :].tolist() == continued(model, IDS, rounded_prompt="prefill_chunk_size" in way)


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"num_beams": 3}, {"penalty_alpha": 0.5, "top_k": 3}], ids=["beams", "contrastive"])
def test_searches_give_nearly_the_tokens_of_floats(model, way):
    plain = np.asarray(model.generate([IDS], **way, **SETTINGS))
    found = np.asarray(model.generate([IDS], cache_implementation="quantized", **way, **SETTINGS))
    assert (plain == found).mean() > 0.8


def test_the_cache_that_generate_returns_is_of_floats_and_goes_on(model):
    first = model.generate(
        [IDS], cache_implementation="quantized", return_dict_in_generate=True, output_logits=True, **SETTINGS
    )
    plain = model.generate([IDS], return_dict_in_generate=True, output_logits=True, **SETTINGS)
    np.testing.assert_array_equal(first.logits[0], plain.logits[0])  # the prompt sees floats
    off = np.abs(first.logits[1] - plain.logits[1]).max()
    assert 0 < off < 0.05 * np.abs(plain.logits[1]).max()
    key, _ = first.past_key_values[0]
    assert key.shape == plain.past_key_values[0][0].shape and key.dtype == plain.past_key_values[0][0].dtype
    again = model.generate(first.sequences, past_key_values=first.past_key_values, **SETTINGS)
    assert again.shape[1] == first.sequences.shape[1] + 6


def test_the_engine_keeps_less_and_gives_the_tokens_of_a_plain_loop(model):
    prompts = [IDS, [*IDS, 12]]

    def engine_of(**options):
        return Engine(model, rows=1, capacity=32, jit_compile=False, **options)

    engine = engine_of(cache_implementation="quantized")
    engine.prefixes.least = 3  # the second prompt goes on with the first one's row
    ids = [engine.add(prompt, max_new_tokens=6, eos_token_id=None) for prompt in prompts]
    done = engine.run()
    for one, prompt in zip(ids, prompts, strict=True):
        assert list(done[one].tokens) == continued(model, prompt, rounded_prompt=True)
    assert done[ids[1]].reused >= 3
    head_dim = model.config.hidden_size // model.config.num_attention_heads
    assert engine.stats["cache_bytes"] == engine_of().stats["cache_bytes"] * (head_dim + 4) // (4 * head_dim)


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match=r"cache_config=\{'nbits': 4\}: it should be \{\"nbits\": 8\}"):
        GenerationConfig(cache_implementation="quantized", cache_config={"nbits": 4})
    with pytest.raises(ValueError, match=r"cache_implementation='offloaded': it should be .*quantized"):
        model.generate([[1]], cache_implementation="offloaded")
    with pytest.raises(ValueError, match="needs use_cache=True"):
        model.generate([[1]], cache_implementation="quantized", use_cache=False)
    with pytest.warns(UserWarning, match="cache_config: used with cache_implementation"):
        GenerationConfig(cache_config={"nbits": 8})
    engine = Engine(model, rows=1, capacity=32, jit_compile=False)
    with pytest.raises(ValueError, match="not a setting of one request: give it to the engine, which keeps floats"):
        engine.add([1], cache_implementation="quantized")
    with pytest.raises(ValueError, match="cache_implementation='paged'"):
        Engine(model, rows=1, capacity=32, cache_implementation="paged")
