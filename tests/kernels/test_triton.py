"""Triton kernels for decoding: their IR, what is traced of them, and (with PyTorch) what they compute.

They run on a GPU only, where tests/gpu compares them with plain float32. Here they are compiled to IR,
traced into programs, and run by Triton's own interpreter.
"""

import collections
import functools
import json
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.prompt import Prompts, to_buckets
from tfmodels.generation.run import sampling_inputs
from tfmodels.generation.step import Decoder
from tfmodels.generation.strategies import Sampling
from tfmodels.kernels import decoding, triton_call, triton_decoding
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.attention import choose
from tfmodels.layers.linear import build_all, linear, project
from tfmodels.runtime.lowering import Lowering

needs_triton = pytest.mark.skipif(util.find_spec("triton") is None, reason="triton is not installed")


ON_A_GPU = Lowering("triton")


def kernels_of(function, *arguments):
    """How often each Triton kernel is called in a traced function, the bodies of its loops included."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    configs = [node.attr["backend_config"].s.decode() for node in nodes if node.op == "XlaCustomCallV2"]
    modules = [node.attr["module"].s.decode() for node in nodes if node.op == "XlaCallModule"]
    configs += [module.split("backend_config = ")[1] for module in modules]
    return collections.Counter(config.split('"')[1] for config in configs)


def test_it_says_why_it_cannot_run():
    if not tf.config.get_visible_devices("GPU"):
        assert "triton is not installed" in triton_decoding.unavailable() or "GPU" in triton_decoding.unavailable()


def test_a_trial_has_gradients_wherever_it_is_asked_for(monkeypatch):
    """While a program is traced, too, and once."""
    monkeypatch.setattr(triton_call, "missing", lambda: None)
    gradients = []

    def trial():
        x = tf.constant(3.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x * x
        gradients.append(float(tape.gradient(y, x)))
        return "wrong numbers"

    @tf.function
    def traced():
        assert triton_call.tried(trial) == "wrong numbers"
        return tf.constant(1)

    traced()
    assert triton_call.tried(trial) == "wrong numbers"
    assert gradients == [6.0]


@needs_triton
@pytest.mark.parametrize(("rows", "by_tensor_cores"), [(1, False), (4, True)])
def test_ir_is_the_same_wherever_it_is_made(rows, by_tensor_cores):
    sizes = {"ROWS": rows, "IN": 64, "OUT": 48, "BLOCK_ROWS": 1 if rows == 1 else 16, "BLOCK_IN": 32, "BLOCK_OUT": 16}
    ir = triton_call.triton_ir("table_product", ("float16", "int8", "float32"), tuple(sizes.items()), 4)
    assert "tt.func public @table_product(%x: !tt.ptr<f16> {tt.divisibility = 16 : i32}" in ir
    assert "%table: !tt.ptr<i8> {tt.divisibility = 16 : i32}" in ir
    assert "loc(" not in ir and __file__.rsplit("/tests", 1)[0] not in ir
    assert ("tt.dot" in ir) == by_tensor_cores


@needs_triton
def test_what_triton_refuses_is_said():
    with pytest.raises(RuntimeError, match="Triton could not compile 'product'.*"):
        triton_call.triton_ir("product", ("float16",), (), 4)
    with pytest.raises(RuntimeError, match="could not compile 'none'.*no attribute 'none'"):
        triton_call.triton_ir("none", (), (), 4)


def test_a_compiler_that_dies_is_replaced_once(monkeypatch):
    scripts = {
        "dies": "import sys; sys.stdin.readline(); sys.exit(3)",
        "answers": 'import sys\nfor line in sys.stdin: print(\'{"ir": "of another"}\', flush=True)',
    }
    started = []

    def compiler(lives):
        command = [sys.executable, "-c", scripts[next(lives)]]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    def compiled(*lives):
        lives = iter(lives)
        monkeypatch.setattr(triton_call, "_compiler", functools.cache(lambda: compiler(lives)))
        return triton_call.triton_ir("none", ("float16",), (("LIVES", str(lives)),), 4)

    try:
        assert compiled("dies", "answers") == "of another"
        with pytest.raises(RuntimeError, match="ended with code 3 before it had compiled 'none'"):
            compiled("dies", "dies")
    finally:
        for process in started:
            process.communicate()


@needs_triton
@pytest.mark.parametrize(
    ("x", "kernel", "served"),
    [
        ((2, 1, 64), (64, 48), True),
        ((128, 1, 64), (64, 48), True),
        ((129, 1, 64), (64, 48), False),
        ((2, 1, 60), (60, 48), False),
        ((2, 1, 64), (64, 47), False),
    ],
)
def test_which_products_are_served(x, kernel, served):
    def kernels_in(dtype):
        layers = [linear(kernel[1], std=1.0, use_bias=True, dtype=dtype, name="layer") for _ in range(3)]
        build_all(kernel[0], *layers)
        return kernels_of(
            lambda x: (layers[0](x, lowering=ON_A_GPU), project(x, *layers, lowering=ON_A_GPU)), tf.zeros(x, dtype)
        )

    assert kernels_in("bfloat16") == ({"product": 2} if served else {})
    assert kernels_in("float32") == {}


def test_packed_products_have_no_activation():
    matrices = [tf.zeros((64, 48), "int8")] * 2
    for options in ({"activation": "silu"}, {"gated": True}):
        with pytest.raises(ValueError, match="products of packed matrices have neither"):
            triton_decoding.product(tf.zeros((1, 64), "float16"), matrices, **options)


@needs_triton
@pytest.mark.parametrize(("batch", "keys", "shares"), [(1, 32, 1), (1, 4096, 64), (128, 4096, 1)])
def test_the_keys_of_few_rows_are_shared_among_programs(batch, keys, shares):
    """A second kernel adds up what they found."""
    cache = tf.zeros((batch, 8, keys, 64), "bfloat16")
    found = {"attention": 1} if shares == 1 else {"attention": 1, "attention_total": 1}
    assert kernels_of(lambda x: decoding.attention(x, cache, cache, None, scale=1.0), cache[:, :, :1]) == found


SMALL = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.quick(1)
@needs_triton
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("cls", "values", "norms"),
    [
        ("GPTNeoX", SMALL | {"intermediate_size": 128}, 1),
        ("Llama", SMALL | {"intermediate_size": 128, "num_key_value_heads": 2, "tie_word_embeddings": True}, 3),
        ("GPTNeo", SMALL | {"attention_types": [[["global", "local"], 1]], "window_size": 16}, 3),
        ("Mpt", SMALL, 3),
    ],
)
def test_every_decoder_decodes_by_kernels(cls, values, norms, dtype):
    """A token takes a kernel for the projections of each input, each attention, and each sum with its norms.

    The first norm has no sum before it. An export has no kernels.
    """
    config = getattr(tfmodels, cls + "Config")(**values)
    model = getattr(tfmodels, f"TF{cls}ForCausalLM")(config, dtype=dtype)
    tied = config.tie_word_embeddings
    want = {"product": 8 + (not tied), "attention": 2, "added_norms": norms}
    assert kernels_of_decoding(model) == want | ({"table_product": 1} if tied else {})
    assert kernels_of_decoding(model, on_any_device=True) == {}


def kernels_of_decoding(model, rows=2, on_any_device=False):
    """Those of a token of a model that goes on with some rows."""
    decoder = Decoder(model, Sampling(do_sample=False))
    prompt = to_buckets(Prompts(np.full((rows, 3), 5, "int32"), np.ones((rows, 3), bool), None), 4)
    inputs = sampling_inputs(GenerationConfig(), (), 4)
    state = tf.function(decoder.prefill)(prompt, inputs)
    if not on_any_device:
        decoder = Decoder(model, Sampling(do_sample=False), lowering=ON_A_GPU)
    return kernels_of(lambda state, inputs: decoder.loop(state, inputs, tf.constant(4)), state, inputs)


@pytest.mark.quick(1)
@needs_triton
@pytest.mark.parametrize(("embeddings", "rows"), [("int8", 100), (None, 1)])
def test_packed_weights_have_a_kernel_of_their_own(embeddings, rows):
    """The tied table among them, where it is packed."""
    values = SMALL | {"intermediate_size": 128, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = tfmodels.TFLlamaForCausalLM(tfmodels.LlamaConfig(**values), dtype="bfloat16")
    model.quantize("int4", group_size=32, embeddings=embeddings)
    packed = {"packed_product": 8, "table_product": 1} if embeddings is None else {"packed_product": 9}
    assert kernels_of_decoding(model, rows) == packed | {"attention": 2, "added_norms": 3}


@pytest.mark.parametrize(("target", "name"), [("triton", "decode"), ("gpu", "eager"), ("cpu", "eager")])
def test_the_choice_says_why_a_gpu_decodes_without_kernels(target, name):
    mask = make_mask(None, causal=True, query_length=1, key_length=32)
    query, key = tf.zeros((1, 4, 1, 16), tf.float16), tf.zeros((1, 2, 32, 16), tf.float16)
    lowering = Lowering(target)
    choice = choose("auto", query, key, mask=mask, lowering=lowering)
    assert choose("eager", query, key, mask=mask, lowering=lowering).name == "eager"
    assert choice == (name, (triton_decoding.unavailable() or "") if target == "gpu" else "")


def test_what_is_compiled_for_any_device_has_no_kernels(monkeypatch):
    """Where there is a GPU that would have them."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    monkeypatch.setattr(triton_decoding, "unavailable", lambda: None)
    assert decoding.for_xla().target == "triton"
    assert decoding.for_xla(portable=True).target == "gpu"


@needs_triton
@pytest.mark.slow
def test_what_kernels_compute():
    """By Triton's interpreter, which needs PyTorch's tensors."""
    pytest.importorskip("torch", reason="Triton's interpreter takes PyTorch's tensors")
    script = Path(__file__).with_name("interpreted.py")
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    errors = {case["case"]: case["error"] for case in map(json.loads, result.stdout.splitlines())}
    assert len(errors) > 30
    assert not {case: error for case, error in errors.items() if not error < 1e-3}
