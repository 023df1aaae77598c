"""Making quantised models: by rounding, by calibration, while reading; saving them, and training beside them."""

import json
import warnings

import keras
import numpy as np
import pytest
import small_models as small

from tfmodels import TFAutoModelForCausalLM
from tfmodels.checkpoints.quantized.scheme import Scheme, dequantize, round_to_nearest
from tfmodels.models.calibration import fitted, gptq, to_batches
from tfmodels.models.quantization_requests import read_request
from tfmodels.training.lora import (
    LoraAdapter,
    LoraConfig,
    add_lora,
    load_adapter,
    merge_lora,
    save_adapter,
    unmerge_lora,
)

IDS = np.random.default_rng(0).integers(3, 60, (4, 10))


def logits(model):
    return np.asarray(model(input_ids=IDS).logits, np.float64)


def make(name="llama", **changes):
    """A small model whose weights are so large that rounding them shows."""
    model = small.make(name, "ForCausalLM", **changes)
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(size=w.shape, scale=0.2).astype(w.dtype) for w in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "mode, settings, most",
    [
        ("int8", {"group_size": "channel"}, 0.02),
        ("int8", {"group_size": 8, "symmetric": False, "embeddings": "int8"}, 0.02),
        ("int4", {"group_size": 8}, 0.3),
    ],
)
def test_saved_and_read_again(mode, settings, most, tmp_path):
    model = make(tie_word_embeddings="embeddings" in settings)
    before = logits(model)
    model.quantize(mode, **settings)
    after = logits(model)
    assert 0 < np.linalg.norm(after - before) < most * np.linalg.norm(before)
    model.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert stated["quant_method"] == "compressed-tensors" and stated["format"] == "pack-quantized"
    again = type(model).from_pretrained(tmp_path)
    assert again.quantization == mode
    # A table is written as floats, and multiplied in another order.
    np.testing.assert_allclose(logits(again), after, rtol=1e-5, atol=1e-5 if "embeddings" in settings else 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_rounded_table_is_written_in_the_dtype_of_the_model(dtype, tmp_path):
    make(tie_word_embeddings=True).save_pretrained(tmp_path / "float")
    model = TFAutoModelForCausalLM.from_pretrained(tmp_path / "float", dtype=dtype)
    model.quantize("int8", group_size="channel", embeddings="int8")
    model.save_pretrained(tmp_path / "int8")
    stated = json.loads((tmp_path / "int8" / "config.json").read_text())
    assert stated.get("dtype", stated.get("torch_dtype")) == dtype
    again = TFAutoModelForCausalLM.from_pretrained(tmp_path / "int8", dtype=dtype)
    table = again.get_input_embeddings().embeddings
    assert keras.backend.standardize_dtype(table.dtype) == dtype
    sizes = [sum(file.stat().st_size for file in (tmp_path / one).glob("*.safetensors")) for one in ("int8", "float")]
    assert sizes[0] < 0.6 * sizes[1]
    ids = np.arange(table.shape[0])
    np.testing.assert_array_equal(again.get_input_embeddings()(ids), model.get_input_embeddings()(ids))
    np.testing.assert_allclose(logits(again), logits(model), rtol=0.02, atol=0.02 * np.abs(logits(model)).max())


def test_an_unknown_argument_is_named_with_the_nearest():
    with pytest.raises(TypeError, match=r"unknown argument 'groupsize'; did you mean group_size\?"):
        make().quantize("int8", groupsize=32)
    with pytest.raises(ValueError, match="embeddings=True; 'int8' or 'int4' was expected"):
        make().quantize("int8", embeddings=True)
    for mistake in ({"max_length": 8}, {"group_size": 32, "tokenizer": print}):
        with pytest.raises(ValueError, match=f"quantize uses {[*mistake][-1]}= to read texts of calibration="):
            make().quantize("int8", **mistake)
    with pytest.raises(TypeError, match="tokenizer='stories260K'; a tokenizer was expected"):
        make().quantize("int8", calibration=["a text"], tokenizer="stories260K")


def test_keras_refuses_int8_beside_float16():
    model = small.make("llama", "ForCausalLM", dtype="float16")
    with pytest.raises(ValueError, match="compute_dtype='float16'"):
        model.quantize("int8")
    assert model.quantization is None


def test_rounding_while_reading(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    read = TFAutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config={
            "quant_method": "torchao",
            "quant_type": "int4_weight_only",
            "quant_type_kwargs": {"group_size": 8},
            "modules_to_not_convert": ["lm_head", "o_proj"],
        },
    )
    model.quantize("int4", group_size=8, filters=lambda layer: layer.name != "o_proj")
    np.testing.assert_array_equal(logits(read), logits(model))
    assert read.backbone.layers[0].self_attn.o_proj.packed is None


def test_groups_that_are_wider_than_a_layer_are_named(tmp_path):
    model = make(intermediate_size=24)
    model.save_pretrained(tmp_path)
    message = (
        r"group_size=20 is more than the 16 inputs of .*self_attn\.k_proj.*: they are filled up to 20, which takes "
        r"memory\. 16 or less, or 'channel', was expected"
    )
    with pytest.warns(UserWarning, match=message):
        model.quantize("int4", group_size=20)
    settings = {"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 32}}
    with pytest.warns(UserWarning, match="group_size=32 is more than the 16 inputs of"):
        TFAutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(intermediate_size=24).quantize("int4", group_size=16)
        make(intermediate_size=24).quantize("int4", group_size="channel")
        make(intermediate_size=24).quantize("int4", group_size=24, filters="down_proj")


def test_calibration_loses_less_than_rounding():
    model = make()
    whole = logits(model)
    lost = []
    for settings in ({"calibration": IDS}, {}):
        same = make()
        same.quantize("int4", group_size=16, **settings)
        lost.append(np.linalg.norm(logits(same) - whole))
    assert lost[0] < 0.8 * lost[1]


def test_weights_are_fitted_to_the_outputs_of_whole_inputs():
    rng = np.random.default_rng(0)
    whole, weights = rng.normal(size=(300, 24)), rng.normal(size=(24, 6)).astype(np.float32)
    rounded = whole + 0.3 * whole @ rng.normal(size=(24, 24)) / 5
    found = fitted(weights, rounded.T @ rounded, rounded.T @ whole)
    errors = [np.square(rounded @ one - whole @ weights).sum() for one in (found, weights)]
    assert errors[0] < 0.3 * errors[1]
    np.testing.assert_allclose(fitted(weights, whole.T @ whole, whole.T @ whole), weights, atol=1e-5)


@pytest.mark.parametrize("offsets", [None, "zeros", "minimums"])
def test_gptq_against_rounding(offsets):
    """On inputs that depend on each other, errors are made good by other inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 48)) @ rng.normal(size=(48, 48))
    weights = rng.normal(size=(48, 12)).astype(np.float32)
    scheme = Scheme(bits=4, group_size=16, offsets=offsets)
    found = gptq(weights, inputs.T @ inputs, scheme)
    errors = [
        np.square(inputs @ (dequantize(parts, scheme, 48) - weights)).sum()
        for parts in (found, round_to_nearest(weights, scheme))
    ]
    assert errors[0] < 0.6 * errors[1]
    for name, (shape, dtype) in scheme.parts(48, 12).items():
        assert found[name].shape == shape and found[name].dtype == dtype


def test_adapters_train_and_packed_weights_stay(tmp_path):
    model = make()
    model.quantize("int4", group_size=8)
    add_lora(model, r"\.(q|v|down)_proj$", rank=2)
    model.gradient_checkpointing_enable()
    packed = [np.asarray(variable) for variable in model.non_trainable_variables]
    assert len(model.trainable_variables) == 12
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    losses = model.fit({"input_ids": IDS, "labels": IDS}, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    for before, variable in zip(packed, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, np.asarray(variable))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(keras.models.load_model(tmp_path / "model.keras")), logits(model))


@pytest.mark.parametrize("settings", [{}, {"calibration": IDS}])
def test_adapters_that_are_there_take_up_what_rounding_loses(settings, tmp_path):
    whole, after = logits(make()), make()
    after.quantize("int4", group_size=16, **settings)
    add_lora(after, "_proj$", rank=4)
    before = make()
    add_lora(before, "_proj$", rank=4, alpha=12)
    before.quantize("int4", group_size=16, **settings)
    lost = [np.linalg.norm(logits(model) - whole) for model in (before, after)]
    assert before.quantization == "int4" and lost[0] < 0.8 * lost[1]
    assert all("lora_" in variable.name for variable in before.trainable_variables)
    # The packed model and its adapters, in files of their own, and in one.
    with pytest.warns(UserWarning, match=r"save_adapter\(model, folder\) writes them\.$"):  # they cannot be merged
        before.save_pretrained(tmp_path / "packed")
    save_adapter(before, tmp_path / "adapter")
    again = type(before).from_pretrained(tmp_path / "packed")
    load_adapter(again, tmp_path / "adapter")
    np.testing.assert_allclose(logits(again), logits(before), rtol=1e-5, atol=1e-6)
    before.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(keras.models.load_model(tmp_path / "model.keras")), logits(before))


def test_adapters_that_make_up_for_rounding_belong_beside_packed_weights(tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "float")
    add_lora(model, "_proj$", rank=4)
    model.quantize("int4", group_size=8)
    model.save_pretrained(tmp_path / "packed")
    save_adapter(model, tmp_path / "adapter")
    model.save(tmp_path / "model.keras")
    # Files and copies keep what the adapters are for.
    save_adapter(keras.models.load_model(tmp_path / "model.keras"), tmp_path / "from_keras")
    for folder in ("adapter", "from_keras"):
        whole, packed = (TFAutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("float", "packed"))
        with pytest.warns(UserWarning, match=r"makes up for weights rounded to 4 bits.*load the packed model"):
            load_adapter(whole, tmp_path / folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_adapter(packed, tmp_path / folder)
        assert whole.lora_config.loftq_bits == packed.lora_config.loftq_bits == 4
    # Adapters that began at nothing suit both.
    model = make()
    model.quantize("int4", group_size=8)
    add_lora(model, "_proj$", rank=4)
    save_adapter(model, tmp_path / "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(make(), tmp_path / "plain")
    path = tmp_path / "plain" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "loftq_config": {"loftq_bits": "four"}}))
    with pytest.raises(ValueError, match=r"has loftq_bits='four' in loftq_config; a number of bits was expected"):
        load_adapter(make(), tmp_path / "plain")


@pytest.mark.parametrize("settings", [{}, {"calibration": IDS}])
def test_trained_adapters_keep_their_part(settings):
    """With as many ranks as the kernels have, nothing of either part is lost."""
    model = make()
    add_lora(model, r"\.(q|v|o)_proj$", rank=16)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.1))
    want = logits(model)
    model.quantize("int4", group_size=16, filters=r"\.(q|v|o)_proj$", **settings)
    assert model.backbone.layers[0].self_attn.q_proj.packed is not None
    np.testing.assert_allclose(logits(model), want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_adapters_come_nearest_for_the_inputs_that_there_are():
    rng = np.random.default_rng(0)
    inputs, change = rng.normal(size=(300, 24)) @ rng.normal(size=(24, 24)), rng.normal(size=(24, 12))
    adapter = LoraAdapter(24, 12, LoraConfig("q", rank=3, alpha=6))
    lost = {}
    for name, products in {"kernel": None, "outputs": inputs.T @ inputs}.items():
        adapter.approximate(change, products)
        missing = change - np.asarray(adapter.change())
        lost[name] = np.linalg.norm(missing), np.linalg.norm(inputs @ missing)
        # Factors of equal size: each column of A has the norm of its row of B.
        norms = [np.linalg.norm(adapter.lora_a, axis=0), np.linalg.norm(adapter.lora_b, axis=1)]
        np.testing.assert_allclose(*norms, rtol=1e-4)
    sizes = [np.linalg.svd(matrix, compute_uv=False)[3:] for matrix in (change, inputs @ change)]
    np.testing.assert_allclose(lost["kernel"][0], np.linalg.norm(sizes[0]), rtol=1e-4)
    np.testing.assert_allclose(lost["outputs"][1], np.linalg.norm(sizes[1]), rtol=1e-4)
    assert lost["outputs"][0] > lost["kernel"][0] and lost["kernel"][1] > lost["outputs"][1]


def test_adapters_that_packing_would_break_are_named():
    model = make()
    add_lora(model, r"\.q_proj$", train_fully=r"layers\.0\..*up_proj$")
    with pytest.raises(ValueError, match=r"model.layers.0.mlp.up_proj is trained whole \(train_fully\)"):
        model.quantize("int4", group_size=8)
    merge_lora(model)
    with pytest.raises(ValueError, match="are merged: unmerge_lora"):
        model.quantize("int4", group_size=8, filters="q_proj")
    unmerge_lora(model)
    model.quantize("int4", group_size=8, filters="q_proj")
    assert model.quantization == "int4"


def test_the_gradient_is_that_of_the_dequantised_weights():
    import tensorflow as tf

    model = make()
    model.quantize("int4", group_size=8)
    layer = model.backbone.layers[0].mlp.up_proj
    x = tf.constant(np.random.default_rng(2).normal(size=(2, 3, 16)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x) ** 2)
    kernel = layer.packed.dequantized()
    np.testing.assert_allclose(tape.gradient(total, x), 2 * (x.numpy() @ kernel) @ kernel.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, settings, message",
    [
        (["int3"], {"group_size": 8}, "mode='int3'; 'int8' or 'int4' was expected"),
        (["int5"], {}, "mode='int5'; 'int8' or 'int4' was expected"),
        ([], {"mode": 8}, "mode=8; 'int8' or 'int4' was expected"),
        ([["int8"]], {}, r"mode=\['int8'\]; 'int8' or 'int4' was expected"),
        (["gptq"], {}, "mode='gptq'; 'int8' or 'int4' was expected; calibration= rounds as GPTQ does"),
        ([], {}, "mode=None; 'int8' or 'int4' was expected"),
        (["float8"], {}, "mode='float8'; 'int8' or 'int4' was expected"),
        ([], {"config": keras.quantizers.AWQConfig(dataset=["a"], tokenizer=len)}, "calibration= rounds as GPTQ does"),
        (["int4"], {"group_size": 7}, "group_size=7; an even number"),
        (["int4"], {"group_size": 8, "symmetric": "no"}, "symmetric='no'; True or False"),
        (["int4"], {"group_size": 8, "embeddings": "int2"}, "embeddings='int2'; 'int8' or 'int4'"),
        (["int4"], {"group_size": 8, "filters": "nothing"}, "filters='nothing' fits no dense layer"),
        (["int4"], {"calibration": ["a text"]}, "pass the model's tokenizer"),
        (["int4"], {"calibration": []}, "calibration holds no tokens"),
        (["int4"], {"calibration": [{"ids": [1]}]}, "one with input_ids was expected"),
    ],
)
def test_arguments_that_cannot_be(arguments, settings, message):
    model = small.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match=message):
        model.quantize(*arguments, **settings)
    assert model.quantization is None


def test_once_is_enough():
    model = make()
    model.quantize("int8", group_size="channel")
    for settings in ({}, {"group_size": 8}):
        with pytest.raises(ValueError, match=r"is quantised already \(int8\)"):
            model.quantize("int4", **settings)
    with pytest.raises(ValueError, match="resize it before"):
        model.resize_token_embeddings(70)
    with pytest.raises(AttributeError, match="its weights are packed"):
        _ = model.backbone.layers[0].mlp.up_proj.kernel


class TestRequests:
    @pytest.mark.parametrize(
        "given, mode, size",
        [
            ("int8", "int8", None),
            ({"load_in_4bit": True}, "int4", 64),
            ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "int8", None),
            ({"quant_method": "gptq", "bits": 4, "dataset": ["text"]}, "int4", 128),
            ({"quant_method": "gptq", "bits": 8, "group_size": -1, "dataset": ["text"]}, "int8", "channel"),
            ({"quant_method": "quanto", "weights": "int4"}, "int4", 128),
        ],
    )
    def test_what_users_write(self, given, mode, size):
        request = read_request(given)
        assert (request.mode, request.group_size) == (mode, size)

    def test_objects_of_transformers(self):
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("torch")
        request = read_request(transformers.GPTQConfig(bits=4, group_size=32, dataset=["text"]))
        assert (request.mode, request.group_size, request.calibration) == ("int4", 32, ["text"])
        for settings, mode in (({"load_in_8bit": True}, "int8"), ({"load_in_4bit": True}, "int4")):
            try:
                given = transformers.BitsAndBytesConfig(**settings)
            except ImportError:  # where its library has to be there
                continue
            assert read_request(given).mode == mode

    @pytest.mark.parametrize(
        "given, message",
        [
            ({"quant_method": "hqq"}, "cannot be used; 'int8' or 'int4', a dict"),
            (3, "quantization_config=3; 'int8' or 'int4'"),
            ({"quant_method": "gptq", "bits": 3}, "bits=3 in quantization_config"),
            ({"quant_method": "gptq", "bits": 4, "dataset": "c4"}, "named data sets are not downloaded"),
            ({"quant_method": "torchao", "quant_type": "float8_weight_only"}, "int8_weight_only and int4_weight_only"),
            ({"quant_method": "bitsandbytes"}, "one of load_in_8bit=True and load_in_4bit=True"),
        ],
    )
    def test_what_cannot_be(self, given, message):
        with pytest.raises(ValueError, match=message):
            read_request(given)

    def test_what_does_not_fit_the_checkpoint(self, tmp_path):
        model = small.make("llama", "ForCausalLM")
        model.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="names awq, and the checkpoint is not quantised"):
            type(model).from_pretrained(tmp_path, quantization_config={"quant_method": "awq"})
        with pytest.raises(ValueError, match="name the file, too, as gguf_file="):
            type(model).from_pretrained(tmp_path, quantization_config={"quant_method": "gguf"})
        model.quantize("int8", group_size=8)
        model.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="quantised already, by compressed-tensors"):
            type(model).from_pretrained(tmp_path, quantization_config="int4")


def test_batches_of_rows_and_dicts():
    batches = to_batches([{"input_ids": [[5, 6, 0]], "attention_mask": [[1, 1, 0]]}, [7, 8, 9]], None, 2)
    assert [batch["input_ids"].tolist() for batch in batches] == [[[5, 6], [7, 8]]]
