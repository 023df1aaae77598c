"""LiteRT: every family and head gives the model's numbers, in files of builtin operators, and decodes its tokens."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import small_models
import tensorflow as tf

import tfmodels
from tfmodels.export import export, litert
from tfmodels.export.models import causal, context_of
from tfmodels.export.verify import inputs_for, reference, verify

pytest.importorskip("ai_edge_litert")

FEW = [
    ("mpnet", "ForMultipleChoice"),
    ("llama", "ForSequenceClassification"),
    ("gpt_neo", "ForCausalLM"),
]
PROMPT = np.array([[1, 403, 407, 261]])


@pytest.fixture(scope="module")
def stories():
    return tfmodels.TFLlamaForCausalLM.from_pretrained("stories260K")


@pytest.fixture(scope="module")
def stories_file(stories, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "stories.tflite"
    told, logger = [], logging.getLogger("absl")
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    try:
        result = export(stories, path, "litert", max_length=96)
    finally:
        logger.removeHandler(handler)
    assert not told, "an export that works says nothing"
    return result


def convert(model, tmp_path, **options):
    return litert.open(export(model, tmp_path / "model.tflite", "litert", **options).path)


def largest_difference(runner, model, limit):
    """Over verification's inputs, those without padding for causal models; at padding itself numbers mean nothing."""
    worst = 0.0
    for inputs in inputs_for(model, limit):
        if causal(model) and not inputs["attention_mask"].all():
            continue
        expected, found = reference(model, inputs), runner.run(inputs)
        assert list(found) and set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].shape == values.shape
            difference, tokens = np.abs(found[name] - values), inputs["attention_mask"] != 0
            per_token = values.ndim > tokens.ndim or name in ("start_logits", "end_logits")
            worst = max(worst, float(difference[tokens].max() if per_token else difference.max()))
    return worst


def continued(model, ids, new):
    return np.asarray(model.generate(ids, max_new_tokens=new, use_cache=True, jit_compile=False))


# Numbers -------------------------------------------------------------------------------------------------------------


def assert_same(name, head, tmp_path):
    model = small_models.make(name, head)
    runner = convert(model, tmp_path, max_length=20)
    assert largest_difference(runner, model, 20) < 1e-5
    if not causal(model):
        assert isinstance(runner, litert.Forward)
        return
    # 15 tokens of prompt end in room that the cache does not have; the window of GPT-Neo is 3.
    for length in (1, 2, 7, 15):
        ids = np.random.default_rng(length).integers(1, 61, (1, length))
        np.testing.assert_array_equal(runner.generate(ids, 20 - length), continued(model, ids, 20 - length))


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name", "head"), FEW)
def test_outputs_equal_the_models(name, head, tmp_path):
    assert_same(name, head, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [case for case in small_models.EXPORTED if case not in FEW])
def test_outputs_equal_the_models_everywhere(name, head, tmp_path):
    assert_same(name, head, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "longrope",
            "original_max_position_embeddings": 16,
            "short_factor": [1.0, 1.5],
            "long_factor": [2.0, 3.0],
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_scalings(rope, tmp_path):
    model = small_models.make("llama", "ForCausalLM", rope_scaling=rope, max_position_embeddings=32)
    runner = convert(model, tmp_path)
    ids = np.random.default_rng(0).integers(1, 61, (1, 12))
    expected = model(ids, use_cache=False).logits.numpy()
    np.testing.assert_allclose(runner.run({"input_ids": ids})["logits"], expected, atol=1e-5)
    np.testing.assert_array_equal(runner.generate(ids, 20), continued(model, ids, 20))


def test_sentence_encoder(tmp_path):
    encoder = tfmodels.SentenceEncoder(small_models.make("mpnet", "Model"), tail=["normalize"], truncate_dim=6)
    runner = convert(encoder, tmp_path, max_length=20)
    assert verify(runner, encoder).differences.keys() == {"sentence_embedding"}
    assert runner.run(small_models.inputs_of("mpnet", "Model"))["sentence_embedding"].shape == (2, 6)


@pytest.mark.parametrize(
    "head", ["ForSequenceClassification", pytest.param("ForMultipleChoice", marks=pytest.mark.slow)]
)
def test_token_types(head, tmp_path):
    model = small_models.make("bert", head, initializer_range=0.5)
    report = export(model, tmp_path / "model.tflite", "litert", max_length=16, verify=True)
    (signature,) = report.signatures
    shape = (1, 1, 16) if head == "ForMultipleChoice" else (1, 16)
    assert signature.inputs == dict.fromkeys(("attention_mask", "input_ids", "token_type_ids"), ("int32", shape))
    inputs = small_models.inputs_of("bert", head)
    types = np.zeros_like(inputs["input_ids"])
    types[..., 2:] = inputs["attention_mask"][..., 2:]
    expected = model(**inputs, token_type_ids=types).logits
    assert np.abs(expected - model(**inputs).logits).max() > 1e-3
    runner = litert.open(report.path)
    np.testing.assert_allclose(runner.run({**inputs, "token_type_ids": types})["logits"], expected, atol=1e-5)
    np.testing.assert_allclose(runner.run(inputs)["logits"], model(**inputs).logits, atol=1e-5)
    if head == "ForSequenceClassification":  # by the interpreter alone
        interpreter = tf.lite.Interpreter(str(report.path))
        row = {name: np.zeros((1, 16), "int32") for name in signature.inputs}
        for name, values in {**inputs, "token_type_ids": types}.items():
            row[name][0, :5] = values[0]
        row["input_ids"][0, 5:] = -1
        got = interpreter.get_signature_runner("forward_16")(**row)["logits"]
        np.testing.assert_allclose(got, expected[:1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("mpnet", {}), ("roberta", {"type_vocab_size": 1}), ("distilbert", {}), ("modernbert", {})]
)
def test_families_of_one_type_have_two_inputs(name, options, tmp_path):
    model = small_models.make(name, "ForSequenceClassification", **options)
    (signature,) = export(model, tmp_path / "model.tflite", "litert", max_length=16).signatures
    assert set(signature.inputs) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(("cores", "threads"), [({0}, 1), ({0, 3, 5}, 3), (set(range(64)), 4)])
def test_no_more_threads_than_cores_that_the_process_may_use(stories_file, monkeypatch, cores, threads):
    from ai_edge_litert import interpreter

    given = []
    made = interpreter.Interpreter
    monkeypatch.setattr(
        interpreter, "Interpreter", lambda num_threads, **options: given.append(num_threads) or made(**options)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    litert.Generator(stories_file.path)
    litert.Generator(stories_file.path, num_threads=2)
    assert given == [threads, 2]


def test_greedy_tokens_of_a_trained_model(stories, stories_file):
    generator = litert.Generator(stories_file.path)
    expected = continued(stories, PROMPT, 64)
    np.testing.assert_array_equal(generator.generate(PROMPT, 64), expected)
    # A prompt of 66 tokens takes several signatures.
    np.testing.assert_array_equal(generator.generate(expected[:, :66], 2), expected)
    assert largest_difference(generator, stories, 33) < 1e-4


@pytest.mark.slow
def test_greedy_tokens_of_stories15m(stories15m, tmp_path):
    model = tfmodels.TFLlamaForCausalLM.from_pretrained(stories15m)
    ids = np.array([[1, 9038, 2501, 263, 931]])
    exact = export(model, tmp_path / "exact.tflite", "litert")
    assert exact.bytes < 4.1 * model.count_params()  # the tied table is stored once
    np.testing.assert_array_equal(litert.open(exact.path).generate(ids, 64), continued(model, ids, 64))
    small = export(model, tmp_path / "small.tflite", "litert", quantize="int8")
    assert small.bytes < 0.3 * exact.bytes
    np.testing.assert_array_equal(litert.open(small.path).generate(ids, 16), continued(model, ids, 16))


# The file ------------------------------------------------------------------------------------------------------------


def test_signatures(stories, stories_file):
    names = [signature.name for signature in stories_file.signatures]
    assert names == ["decode", "prefill_16", "prefill_64"]
    decode, prefill = stories_file.signatures[:2]
    room = ("float32", (1, 4, 96, 8))
    caches = {f"kv_cache_{kind}_{layer}": room for layer in range(5) for kind in "kv"}
    assert decode.inputs == {"input_pos": ("int32", (1,)), "tokens": ("int32", (1, 1)), **caches}
    assert decode.outputs == {"logits": ("float32", (1, 1, stories.config.vocab_size)), **caches}
    assert prefill.inputs == {"input_pos": ("int32", (16,)), "tokens": ("int32", (1, 16)), **caches}
    assert prefill.outputs == caches


def test_the_model_is_left_as_it_was(stories, stories_file):
    assert "to_logits" not in vars(stories)
    assert not any("call" in vars(layer) for layer in stories._flatten_layers())


def test_forward_signatures_reach_the_longest_input(tmp_path):
    model = small_models.make("mpnet", "ForTokenClassification")
    report = export(model, tmp_path / "tagger.tflite", "litert")
    longest = context_of(model)
    assert [signature.name for signature in report.signatures] == ["forward_16", f"forward_{longest}"]
    runner = litert.open(report.path)
    ids = np.arange(3, 8)[None]
    short = runner.run({"input_ids": ids})["logits"]
    np.testing.assert_allclose(runner.run({"input_ids": ids}, f"forward_{longest}")["logits"], short, atol=1e-6)
    with pytest.raises(ValueError, match=f"{longest + 1} tokens long; this file takes 1 to {longest}"):
        runner.run({"input_ids": np.ones((1, longest + 1), "int32")})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "share", "allowed"),
    [
        pytest.param({"dtype": "float16"}, 0.65, 2e-2, id="float16", marks=pytest.mark.slow),
        pytest.param({"quantize": "int8"}, 0.5, 0.1, id="int8"),
        pytest.param({"quantize": "int4"}, 0.35, 0.5, id="int4", marks=pytest.mark.slow),
    ],
)
def test_smaller_weights(stories, stories_file, tmp_path, options, share, allowed):
    report = export(stories, tmp_path / "small.tflite", "litert", max_length=96, **options)
    assert report.bytes < share * stories_file.bytes
    runner = litert.open(report.path)
    ids = np.random.default_rng(0).integers(3, 500, (1, 12))
    expected = stories(ids, use_cache=False).logits.numpy()
    found = runner.run({"input_ids": ids})["logits"]
    assert 0 < np.abs(found - expected).max() < allowed * np.abs(expected).max()
    assert (
        np.abs(expected).max() * runner.tolerance.relative + runner.tolerance.absolute > np.abs(found - expected).max()
    )
    assert not runner.exact_ids


def test_runs_without_tensorflow(stories, stories_file):
    script = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'tf_keras'): sys.modules[name] = None\n"
        "from tfmodels.export.litert import Generator\n"
        f"print(Generator({str(stories_file.path)!r}).generate([[1, 403, 407, 261]], 8).tolist())\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(continued(stories, PROMPT, 8).tolist())


# Generating ----------------------------------------------------------------------------------------------------------


def test_sampling_repeats_with_a_seed(stories_file):
    generator = litert.Generator(stories_file.path)

    def draw(seed):
        return generator.generate(PROMPT, 24, temperature=1.5, seed=seed).tolist()

    assert draw(1) == draw(1) != draw(2)
    cold = generator.generate(PROMPT, 24, temperature=1e-4, seed=1)
    np.testing.assert_array_equal(cold, generator.generate(PROMPT, 24))


def test_stops_at_the_end_of_sequence(stories, stories_file):
    generator = litert.Generator(stories_file.path)
    assert generator.eos_token_ids == stories.generation_config.eos_token_ids
    free = generator.generate(PROMPT, 10)
    generator.eos_token_ids = (int(free[0, 8]),)
    first = 1 + int(np.argmax(free[0, 4:] == free[0, 8]))
    np.testing.assert_array_equal(generator.generate(PROMPT, 10), free[:, : 4 + first])


@pytest.mark.parametrize(
    ("ids", "new", "options", "message"),
    [
        ([1, 2], 1, {}, r"ids has shape \(2,\); \(1, length\)"),
        ([[1], [2]], 1, {}, r"ids has shape \(2, 1\)"),
        (np.zeros((1, 0)), 1, {}, "the prompt is 0 tokens long; this file takes 1 to 96"),
        ([[1] * 90], 7, {}, "the prompt with max_new_tokens is 97 tokens long"),
        ([[1]], 1, {"temperature": -1.0}, r"temperature=-1\.0"),
    ],
)
def test_generate_refuses(stories_file, ids, new, options, message):
    with pytest.raises(ValueError, match=message):
        litert.Generator(stories_file.path).generate(ids, new, **options)


def test_run_refuses_padding(stories_file):
    with pytest.raises(ValueError, match="rows without padding"):
        litert.open(stories_file.path).run({"input_ids": PROMPT, "attention_mask": [[0, 1, 1, 1]]})


# What cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype='bfloat16'; a LiteRT file has float32 or float16"),
        ({"quantize": "int2"}, "quantize='int2'; int8 or int4"),
        ({"quantize": "int8", "dtype": "float16"}, "give one"),
        ({"max_length": 1000}, "max_length=1000; this model's context allows 2 to 512"),
        ({"max_length": 1}, "max_length=1;"),
        ({"signatures": "text"}, "signatures='text' is no option of format='litert'"),
    ],
)
def test_options_refused(stories, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(stories, tmp_path / "model.tflite", "litert", **options)


def test_classifier_without_padding_token(tmp_path):
    model = small_models.make("llama", "ForSequenceClassification", pad_token_id=None)
    with pytest.raises(ValueError, match="pad_token_id, which is None"):
        export(model, tmp_path / "model.tflite", "litert")


@pytest.mark.parametrize(("module", "options"), [("ai_edge_litert", {}), ("ai_edge_quantizer", {"quantize": "int8"})])
def test_missing_extra(stories, tmp_path, monkeypatch, module, options):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}, .*pip install 'tfmodels\[export\]'"):
        export(stories, tmp_path / "model.tflite", "litert", **options)


def test_operators_without_counterpart_are_named(tmp_path, monkeypatch):
    model = small_models.make("llama", "Model")
    norm = model.backbone.final_norm
    monkeypatch.setattr(model.backbone, "final_norm", lambda hidden: tf.math.digamma(norm(hidden)))
    with pytest.raises(ValueError, match="the model needs Digamma, which LiteRT does not have"):
        export(model, tmp_path / "model.tflite", "litert", max_length=16)
    assert not (tmp_path / "model.tflite").exists()


def test_foreign_files(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"TFL3 of somebody else")
    with pytest.raises(ValueError, match="was not written by tfmodels"):
        litert.open(path)


# Files of the larger vocabulary have their weights behind the flatbuffer.
@pytest.mark.parametrize(("embeddings", "vocab_size"), [(None, 96), ("int8", 96), ("int8", 4096)])
def test_packed_weights_keep_their_integers(tmp_path, embeddings, vocab_size):
    """The numbers of the file are those of `quantize`, not rounded again."""
    pytest.importorskip("ai_edge_quantizer")
    model = tfmodels.TFLlamaForCausalLM(
        tfmodels.LlamaConfig(
            vocab_size=vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4
        )
    )
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(size=w.shape, scale=0.2).astype(w.dtype) for w in model.get_weights()])
    texts = [rng.integers(3, 90, 40) for _ in range(4)]
    model.quantize("int4", group_size=32, calibration=texts, embeddings=embeddings)
    report = export(model, tmp_path / "packed.tflite", "litert", max_length=32, quantize="int4")
    found = dequantized_matrices(report.path)
    for layer in model.backbone.layers[0].mlp.up_proj, model.backbone.layers[0].self_attn.q_proj:
        want = layer.packed.dequantized().T
        step = np.abs(np.asarray(layer.packed.arrays()["scales"])).max()
        off = min((np.abs(one - want) for one in found if one.shape == want.shape), key=np.mean)
        # Of a group with a negative scale the largest number may be one step smaller.
        assert (off < 1e-3 * np.abs(want).max()).mean() > 0.96 and off.max() < 1.01 * step
    ids = rng.integers(3, 90, (1, 12))
    want, got = np.asarray(model(ids).logits), litert.open(report.path).run({"input_ids": ids})["logits"]
    assert np.abs(got - want).mean() < 0.1 * np.abs(want).max()  # activations are rounded to 8 bits


def test_factors_and_mixed_bits_beside_packed_weights(tmp_path):
    """Granite's factors stand behind matrices; tables in 8 bits lie beside blocks in 4."""
    pytest.importorskip("ai_edge_quantizer")
    config = tfmodels.GraniteConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_multiplier=0.22,
        logits_scaling=4.0,
        max_position_embeddings=32,
    )
    model = tfmodels.TFGraniteForCausalLM(config)
    model.quantize("int4", group_size=32, embeddings="int8")
    with pytest.raises(ValueError, match="dtype='float16' and packed weights, .* leave dtype out"):
        export(model, tmp_path / "f.tflite", "litert", max_length=16, dtype="float16")
    opened = litert.open(export(model, tmp_path / "g.tflite", "litert", max_length=16).path)
    assert opened.weights == "int4"
    ids = np.arange(3, 15)[None]
    want, got = np.asarray(model(ids).logits), opened.run({"input_ids": ids})["logits"]
    assert np.abs(got - want).mean() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_rows_of_zeros_are_quantised(tmp_path, quantize):
    pytest.importorskip("ai_edge_quantizer")
    config = tfmodels.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    model = tfmodels.TFLlamaForCausalLM(config)
    kernel = model.backbone.layers[0].self_attn.q_proj.kernel
    kernel.assign(np.asarray(kernel) * (np.arange(32) > 0))
    opened = litert.open(export(model, tmp_path / "z.tflite", "litert", max_length=16, quantize=quantize).path)
    ids = np.arange(3, 15)[None]
    want, got = np.asarray(model(ids).logits), opened.run({"input_ids": ids})["logits"]
    assert np.isfinite(got).all() and np.abs(got - want).mean() < 0.2 * np.abs(want).max()


def dequantized_matrices(path):
    """The block-wise matrices of a file, as floats (out, in)."""
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    file, found = schema.Model.GetRootAs(content, 0), []

    def stored(tensor):
        buffer = file.Buffers(tensor.Buffer())
        if buffer.DataLength():
            return buffer.DataAsNumpy()
        return np.frombuffer(content[buffer.Offset() :][: buffer.Size()], np.uint8)

    for graph in (file.Subgraphs(index) for index in range(file.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            settings = tensor.Quantization()
            if settings is None or settings.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization:
                continue
            blocks = schema.BlockwiseQuantization()
            blocks.Init(settings.Details().Bytes, settings.Details().Pos)
            packed = stored(tensor)
            low, high = packed & 15, packed >> 4
            q = np.stack([low, high], 1).reshape(tensor.ShapeAsNumpy()).astype("int8")
            scales = stored(graph.Tensors(blocks.Scales())).view("<f2").astype("f4")
            q = np.where(q > 7, q - 16, q).reshape(len(q), -1, blocks.BlockSize())
            found.append((q * scales.reshape(len(q), -1, 1)).reshape(len(q), -1))
    return found


def test_packed_weights_without_a_place_are_refused(tmp_path):
    model = tfmodels.TFLlamaForCausalLM.from_pretrained("stories260K")
    model.quantize("int4", group_size=16)
    with pytest.raises(ValueError, match="groups of 16, .* for which LiteRT has no place"):
        export(model, tmp_path / "model.tflite", "litert", max_length=32)


@pytest.mark.slow
def test_packed_weights_without_a_place_go_by_way_of_a_file_of_floats(tmp_path):
    model = tfmodels.TFLlamaForCausalLM.from_pretrained("stories260K")
    model.quantize("int4", group_size=16)
    model.save_pretrained(tmp_path / "packed")
    packed = tfmodels.TFLlamaForCausalLM.from_pretrained(tmp_path / "packed")
    way = r'export\(model, "floats.gguf", "gguf", dtype="float32", tokenizer=.*, and export from_pretrained'
    with pytest.raises(ValueError, match=rf'as floats, {way}\(folder, gguf_file="floats.gguf"\)\.$'):
        export(packed, tmp_path / "model.tflite", "litert", max_length=32)
    export(packed, tmp_path / "floats.gguf", "gguf", dtype="float32", tokenizer="stories260K")
    floats = tfmodels.TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="floats.gguf")
    ids = np.array([[1, 403, 407]])
    np.testing.assert_array_equal(floats(ids).logits, packed(ids).logits)
    export(floats, tmp_path / "model.tflite", "litert", max_length=32, quantize="int4")
    assert (tmp_path / "model.tflite").stat().st_size > 200_000


def test_an_encoder_without_a_place_is_not_sent_to_gguf(tmp_path):
    model = small_models.make("bert", "ForMaskedLM")
    model.quantize("int4", group_size=8)
    with pytest.raises(ValueError, match='no place: .* export that with quantize="int8" or "int4"\\.$'):
        export(model, tmp_path / "model.tflite", "litert", max_length=32)
