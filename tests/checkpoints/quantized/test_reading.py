"""Quantised checkpoints are read without making floats of them, and compute what their dequantised weights compute."""

import copy
import functools
import pickle
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
import quantized_files as files
import small_models as small
from safetensors.numpy import load_file

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.weight_map import slots_of

WIDE = {"llama": {"hidden_size": 32, "intermediate_size": 64}, "gpt_neox": {"hidden_size": 32}, "mpt": {"d_model": 32}}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True, "version": "gemm"}


def compressed(kind="pack-quantized", **weights):
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 8, **weights}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def checkpoint(family, folder, settings, writer, seed=0, **options):
    """Folders of the quantised and the dequantised checkpoint of a small model."""
    rng = np.random.default_rng(seed)
    model = small.make(family, "ForCausalLM", seed=seed, **WIDE.get(family, {}))
    return files.write(model, folder, settings, lambda tensors, name: writer(tensors, name, rng), **options)


def load(family, folder, **options):
    return small.class_of(family, "ForCausalLM").from_pretrained(folder, **options)


def logits(model, family):
    return np.asarray(model(**small.inputs_of(family, "ForCausalLM")).logits, np.float64)


def assert_near(model, whole, family, most=1e-4):
    found, wanted = logits(model, family), logits(whole, family)
    assert np.abs(found - wanted).max() <= most * np.abs(wanted).max()


CASES = {
    "gptq": (GPTQ, functools.partial(files.gptq, symmetric=True)),
    "gptq order": (GPTQ | {"desc_act": True, "sym": False}, functools.partial(files.gptq, order=True)),
    "gptq 8 bits": (GPTQ | {"bits": 8, "group_size": 16}, functools.partial(files.gptq, bits=8, group=16)),
    "gptq v2, 2 bits": (
        GPTQ | {"bits": 2, "checkpoint_format": "gptq_v2", "sym": False},
        functools.partial(files.gptq, bits=2, version="gptq_v2"),
    ),
    "gptq one group": (GPTQ | {"group_size": -1}, functools.partial(files.gptq, group=1 << 10)),
    "awq": (AWQ, files.awq),
    "pack-quantized": (compressed(), files.pack_quantized),
    "pack-quantized zeros": (
        compressed(num_bits=8, symmetric=False),
        functools.partial(files.pack_quantized, bits=8, symmetric=False),
    ),
    "pack-quantized order": (
        compressed(symmetric=False, actorder="group"),
        functools.partial(files.pack_quantized, symmetric=False, order=True),
    ),
    "pack-quantized channel": (
        compressed(strategy="channel", group_size=None),
        functools.partial(files.pack_quantized, group=None),
    ),
    "int-quantized": (compressed("int-quantized", num_bits=8, strategy="channel"), files.int_quantized),
    "int-quantized tensor": (
        compressed("int-quantized", num_bits=8, strategy="tensor"),
        functools.partial(files.int_quantized, strategy="tensor"),
    ),
    "int-quantized zeros": (
        compressed("int-quantized", num_bits=8, strategy="channel", symmetric=False),
        functools.partial(files.int_quantized, symmetric=False),
    ),
}
FIRST = ("gptq order", "awq", "pack-quantized zeros", "int-quantized")


@pytest.mark.filterwarnings("ignore:.*asymmetric GPTQ")
@pytest.mark.parametrize("case", [*FIRST, *(pytest.param(x, marks=pytest.mark.slow) for x in CASES if x not in FIRST)])
def test_llama(case, tmp_path):
    settings, writer = CASES[case]
    quantised, whole = checkpoint("llama", tmp_path, settings, writer)
    model = load("llama", quantised)
    assert model.quantization == f"int{8 if '8' in case or 'int' in case or 'zeros' in case else 4}"
    assert_near(model, load("llama", whole), "llama")


@pytest.mark.filterwarnings("ignore:.*asymmetric GPTQ")
@pytest.mark.parametrize("family", ["gpt_neox", "mpt"])
def test_other_families(family, tmp_path):
    quantised, whole = checkpoint(family, tmp_path, *CASES["gptq order"])
    assert_near(load(family, quantised), load(family, whole), family)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*asymmetric GPTQ")
@pytest.mark.parametrize(
    "family, case",
    [("llama", "gptq order"), ("llama", "awq"), ("llama", "pack-quantized zeros")]
    + [("gpt_neox", "awq"), ("mpt", "pack-quantized zeros")],
)
def test_greedy_ids(family, case, tmp_path):
    """Decoding multiplies few rows, in a form of its own."""
    quantised, whole = checkpoint(family, tmp_path, *CASES[case])
    model, other = load(family, quantised), load(family, whole)
    prompt = np.array([[5, 9, 2]])
    settings = {"max_new_tokens": 5, "eos_token_id": None, "use_cache": True}
    np.testing.assert_array_equal(*(np.asarray(one.generate(prompt, **settings)) for one in (model, other)))


@pytest.mark.parametrize(
    "family, layer, source",
    [
        ("mpt", "ffn.down_proj", "transformer.blocks.{}.ffn.act.scales"),
        ("gpt_neox", "mlp.dense_4h_to_h", "gpt_neox.layers.{}.mlp.act.scales"),
    ],
)
def test_activation_scales_of_awq(family, layer, source, tmp_path):
    def writer(tensors, name, rng):
        index = next(part for part in name.split(".") if part.isdigit())
        return files.awq(tensors, name, rng, divisors=source.format(index) if name.endswith(layer) else None)

    quantised, whole = checkpoint(family, tmp_path, AWQ, writer)
    assert_near(load(family, quantised), load(family, whole), family)


def test_mlx_with_quantised_embeddings(tmp_path):
    settings = {"group_size": 32, "bits": 4, "lm_head": False}
    quantised, whole = checkpoint(
        "llama", tmp_path, settings, files.mlx, key="quantization", also=["model.embed_tokens"]
    )
    files.edit_config(quantised, quantization_config=settings)  # newer versions write both
    model = load("llama", quantised)
    assert_near(model, load("llama", whole), "llama")
    assert model.get_input_embeddings().packed.scheme.offsets == "minimums"
    with pytest.raises(ValueError, match="cannot be written as compressed-tensors: .* minimums"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("bits", [3, 6])
def test_mlx_with_bits_across_words(bits, tmp_path):
    settings = {"group_size": 32, "bits": bits}
    quantised, whole = checkpoint(
        "llama", tmp_path, settings, functools.partial(files.mlx, bits=bits), key="quantization"
    )
    model = load("llama", quantised)
    assert model.quantization == {3: "int4", 6: "int8"}[bits]
    assert_near(model, load("llama", whole), "llama")


def test_float8(tmp_path):
    """All finite numbers of the format, subnormal ones included."""
    finite = np.array([bits for bits in range(256) if bits & 127 != 127], np.uint8)

    def writer(tensors, name, rng):
        shape = tensors[f"{name}.weight"].shape
        values = rng.choice(finite, shape).view(ml_dtypes.float8_e4m3fn)
        scales = rng.uniform(0.0005, 0.001, (shape[0], 1)).astype(np.float32)
        tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"] = values, scales
        return values.astype(np.float32) * scales

    settings = compressed("float-quantized", num_bits=8, type="float", strategy="channel")
    rng = np.random.default_rng(0)
    model = small.make("llama", "ForCausalLM")
    for path in (tmp_path / "quantised", tmp_path / "whole"):
        model.save_pretrained(path)
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    whole = {}
    for name in files.dense_names(tensors):
        whole[f"{name}.weight"] = writer(tensors, name, rng)
    save_file(as_torch(tensors), tmp_path / "quantised" / "model.safetensors")
    files.edit_config(tmp_path / "quantised", quantization_config=settings)
    files.edit_tensors(tmp_path / "whole", lambda held: held.update(whole))
    model = load("llama", tmp_path / "quantised")
    assert model.quantization == "float8"
    assert_near(model, load("llama", tmp_path / "whole"), "llama")
    model.save_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(logits(load("llama", tmp_path / "again"), "llama"), logits(model, "llama"))


def as_torch(tensors):
    """Arrays as tensors of torch, whose safetensors know float8."""
    import torch

    return {
        name: torch.tensor(tensor.view(np.uint8)).view(torch.float8_e4m3fn)
        if tensor.dtype.name.startswith("float8")
        else torch.tensor(tensor)
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("block", [[12, 8], None])
def test_float8_without_another_method(block, tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    model = small.make("qwen3", "ForCausalLM")
    for path in (tmp_path / "quantised", tmp_path / "whole"):
        model.save_pretrained(path)
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    whole = {}
    for name in files.dense_names(tensors):
        values = rng.normal(size=tensors[f"{name}.weight"].shape).astype(ml_dtypes.float8_e4m3fn)
        rows, columns = block or (*values.shape[:1], values.shape[1])
        scales = rng.uniform(0.1, 0.2, [-(-values.shape[0] // rows), -(-values.shape[1] // columns)])
        spread = np.repeat(np.repeat(scales.astype("f"), rows, axis=0), columns, axis=1)
        whole[f"{name}.weight"] = values.astype("f") * spread[: values.shape[0], : values.shape[1]]
        tensors[f"{name}.weight"] = values
        tensors[f"{name}.weight_scale_inv" if block else f"{name}.weight_scale"] = (
            scales.astype("f") if block else scales.astype("f").reshape(())
        )
    save_file(as_torch(tensors), tmp_path / "quantised" / "model.safetensors")
    files.edit_tensors(tmp_path / "whole", lambda held: held.update(whole))
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block}
    files.edit_config(tmp_path / "quantised", quantization_config=settings)
    model = load("qwen3", tmp_path / "quantised")
    assert model.quantization == "float8"
    assert_near(model, load("qwen3", tmp_path / "whole"), "qwen3")
    files.edit_config(tmp_path / "quantised", quantization_config=settings | {"weight_block_size": [4, 8]})
    with pytest.raises(CheckpointError, match="weight_scale_inv is missing|was expected|holds quantised weights"):
        load("qwen3", tmp_path / "quantised")


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """Folders of a checkpoint with zeros and an order of inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return checkpoint("llama", tmp_path_factory.mktemp("ordered"), *CASES["pack-quantized order"])


def test_files_and_copies_are_exact(ordered, tmp_path):
    model = load("llama", ordered[0])
    wanted = logits(model, "llama")
    model.save(tmp_path / "model.keras")
    model.save_pretrained(tmp_path / "saved")
    for same in (
        keras.models.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        load("llama", tmp_path / "saved"),
    ):
        assert same.quantization == "int4"
        np.testing.assert_array_equal(logits(same, "llama"), wanted)
    saved, read = (load_file(folder / "model.safetensors") for folder in (tmp_path / "saved", ordered[0]))
    assert saved.keys() == read.keys()
    for name, tensor in read.items():
        np.testing.assert_array_equal(saved[name], tensor)


def test_memory_and_dtypes(ordered):
    model = load("llama", ordered[0], dtype="bfloat16")
    slots = {name: slot for name, slot in slots_of(model).items() if slot.packed is not None}
    assert len(slots) == 14
    for slot in slots.values():
        units, width = slot.shape
        assert slot.packed.variable.shape == (width // 2, units) and not slot.packed.trainable_weights
        assert slot.packed.parts["scales"].dtype == "float16"
    assert model(**small.inputs_of("llama", "ForCausalLM")).logits.dtype == "bfloat16"
    assert_near(model, load("llama", ordered[1]), "llama", most=0.03)


def test_functional_models(ordered):
    model = load("llama", ordered[0])
    ids = keras.Input((None,), dtype="int32")
    functional = keras.Model(ids, model(ids).logits)
    rows = np.array([[5, 9, 2]])
    np.testing.assert_allclose(functional(rows), model(rows).logits, atol=1e-6)


BAD = {
    "a lying shape": (lambda t, n: t.update({n + "qweight": t[n + "qweight"][:-1]}), "g_idx has the shape"),
    "too few groups": (lambda t, n: t.update({n + "scales": t[n + "scales"][:-1]}), r"scales is float16 \(3, 24\)"),
    "no scales": (lambda t, n: t.pop(n + "scales"), "the tensor model.layers.0.mlp.up_proj.scales is missing"),
    "no order": (lambda t, n: t.pop(n + "g_idx"), "desc_act=True, and the tensor model.layers.0.mlp.up_proj.g_idx is"),
    "no zeros": (lambda t, n: t.pop(n + "qzeros"), "qzeros is missing"),
    "scales that are not finite": (lambda t, n: t[n + "scales"].fill(np.inf), "numbers that are not finite"),
    "groups out of range": (lambda t, n: t[n + "g_idx"].fill(4), "g_idx names groups 4 to 4; there are 4"),
    "groups that are no integers": (
        lambda t, n: t.update({n + "g_idx": t[n + "g_idx"] + np.float32(0.5)}),
        "g_idx holds float.* numbers; integers were expected",
    ),
    "uneven groups": (lambda t, n: t[n + "g_idx"].fill(3), "g_idx puts 0 to 32 inputs into a group; 8 were expected"),
    "floats for integers": (
        lambda t, n: t.update({n + "qweight": t[n + "qweight"].astype("float32")}),
        "qweight is float32",
    ),
    "an orphan": (lambda t, n: t.pop(n + "qweight"), "does not fit.*missing from the file: .*up_proj.weight"),
    "both kinds": (lambda t, n: t.update({n + "weight": np.ones((32, 32), "float32")}), "twice: quantised, and as"),
    "another width": (
        lambda t, n: t.update({k: t[k.replace("up_proj", "down_proj")] for k in list(t) if k.startswith(n)}),
        r"of another shape: model.layers.0.mlp.up_proj.weight \(32, 24\) in the file, \(24, 32\) here",
    ),
}


@pytest.fixture(scope="module")
def plain_gptq(tmp_path_factory):
    changes = {"hidden_size": 32, "intermediate_size": 24}
    folder, rng = tmp_path_factory.mktemp("gptq"), np.random.default_rng(0)
    model = small.make("llama", "ForCausalLM", **changes)
    writer = CASES["gptq"][1]
    return files.write(model, folder, GPTQ, lambda tensors, name: writer(tensors, name, rng))[0]


def changed(folder, target, edit=None, **config):
    """A copy of a folder with other tensors or settings of the quantisation."""
    import shutil

    shutil.copytree(folder, target)
    if edit is not None:
        files.edit_tensors(target, lambda tensors: edit(tensors, "model.layers.0.mlp.up_proj."))
    if config:
        files.edit_config(target, **config)
    return target


@pytest.mark.parametrize("case", BAD)
def test_damaged_gptq(case, plain_gptq, tmp_path):
    edit, message = BAD[case]
    config = {"quantization_config": GPTQ | {"desc_act": True}} if case == "no order" else {}
    with pytest.raises(CheckpointError, match=message):
        load("llama", changed(plain_gptq, tmp_path / "bad", edit, **config))


@pytest.mark.parametrize(
    "settings, message",
    [
        (GPTQ | {"bits": 3}, "GPTQ with bits=3; 2, 4 and 8 can be read"),
        (GPTQ | {"dynamic": ["q_proj"]}, r"dynamic=\['q_proj'\]; settings by patterns of names were expected"),
        (GPTQ | {"dynamic": {"+:(": {"bits": 8}}}, r"the settings have '\(', which is no regular expression"),
        (GPTQ | {"dynamic": {".*up_proj": {"bits": 8.0}}}, "words of 4 inputs were expected .*up_proj"),
        (GPTQ | {"group_size": 7}, "group_size=7; -1 or an even number was expected"),
        (GPTQ | {"group_size": 16}, r"scales is float16 \(3, 32\); float \(2, 32\) was expected"),
        (GPTQ | {"checkpoint_format": "marlin"}, "GPTQ in the format 'marlin'; gptq and gptq_v2 can be read"),
        (AWQ | {"version": "gemv"}, "AWQ of the version 'gemv'; gemm can be read"),
        (AWQ | {"version": None, "checkpoint_format": "gemv"}, "AWQ of the version 'gemv'; gemm can be read"),
        (AWQ | {"bits": 8}, "AWQ with bits=8; 4 can be read"),
        (AWQ, "group_size=8; -1 or an even number, of which 3 inputs"),
        ({"quant_method": "hqq"}, "quantised weights, by hqq"),
    ],
)
def test_settings_that_do_not_fit(settings, message, plain_gptq, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load("llama", changed(plain_gptq, tmp_path / "bad", quantization_config=settings))


@pytest.mark.parametrize(
    "settings, message",
    [
        (compressed(num_bits=3, symmetric=False), "num_bits=3 of type 'int'; integers of 4 and 8 bits"),
        (compressed("nvfp4-pack-quantized", symmetric=False), "in the format 'nvfp4-pack-quantized'"),
        (compressed(symmetric=False, strategy="token"), "strategy='token'; tensor, channel, group, block can be read"),
        (compressed(num_bits=8, symmetric=False), r"weight_packed is int32 \(32, 8\); int32 \(32, 16\) was expected"),
        (
            compressed(symmetric=False, strategy="block", block_structure="8"),
            "block_structure='8'; a list of two sizes",
        ),
        ({**compressed(), "config_groups": {"g": {"targets": ["re:.*lm_head"]}}}, "no group .* among its targets"),
        ({**compressed(), "config_groups": {"g": {"targets": ["re:.*(("]}}}, "which is no regular expression"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "has no config_groups"),
        (compressed(symmetric=True), "says symmetric, and .*weight_zero_point holds numbers other than 0"),
        (compressed(symmetric=None), "says symmetric, and .*weight_zero_point holds numbers other than 0"),
        (compressed(symmetric="no"), "symmetric='no'; true or false was expected"),
    ],
)
def test_settings_of_compressed_tensors_that_do_not_fit(settings, message, ordered, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load("llama", changed(ordered[0], tmp_path / "bad", quantization_config=settings))


@pytest.mark.parametrize("zeros", [np.int32(-0x77777778), np.int32(0), np.int8(0)])  # packed, and not
def test_zeros_of_symmetric_weights(zeros, ordered, tmp_path):
    """Older writers of compressed-tensors had them for symmetric weights, too."""

    def edit(tensors, _):
        for name in [name for name in tensors if name.endswith("zero_point")]:
            tensors[name] = np.full_like(tensors[name], zeros, dtype=zeros.dtype)

    def without(tensors, _):
        for name in [name for name in tensors if name.endswith("zero_point")]:
            del tensors[name]

    settings = compressed(symmetric=True, num_bits=4.0)
    folder = changed(ordered[0], tmp_path / "zeros", edit, quantization_config=settings)
    other = changed(ordered[0], tmp_path / "none", without, quantization_config=settings)
    np.testing.assert_array_equal(logits(load("llama", folder), "llama"), logits(load("llama", other), "llama"))


@pytest.mark.parametrize("strategy, shape", [("channel", (1,)), ("channel", ()), ("tensor", (24, 1))])
def test_zeros_of_another_shape_than_the_scales(strategy, shape, tmp_path):
    settings = compressed("int-quantized", num_bits=8, strategy=strategy, symmetric=False)
    writer = functools.partial(files.int_quantized, strategy=strategy, symmetric=False)
    quantised, whole = checkpoint("llama", tmp_path, settings, writer)
    assert_near(load("llama", quantised), load("llama", whole), "llama")
    edit = lambda tensors, name: tensors.update({name + "weight_zero_point": np.ones(shape, np.int8)})
    with pytest.raises(CheckpointError, match=r"up_proj.weight_zero_point is int8 .* was expected"):
        load("llama", changed(quantised, tmp_path / "bad", edit))


@pytest.mark.parametrize("actorder", [True, "group"])
def test_an_order_that_the_file_lacks(actorder, ordered, tmp_path):
    edit = lambda tensors, name: tensors.pop(name + "weight_g_idx")
    settings = compressed(symmetric=False, actorder=actorder)
    with pytest.raises(CheckpointError, match="the tensor model.layers.0.mlp.up_proj.weight_g_idx is missing"):
        load("llama", changed(ordered[0], tmp_path / "bad", edit, quantization_config=settings))


def test_packed_weights_beside_floats_of_the_same_layer(ordered, tmp_path):
    edit = lambda tensors, name: tensors.update({name + "weight": np.ones((24, 32), "float32")})
    with pytest.raises(
        CheckpointError, match="up_proj.weight and .*up_proj.weight_packed are there; one was expected"
    ):
        load("llama", changed(ordered[0], tmp_path / "both", edit))


def test_biases_of_zeros_beside_layers_without(plain_gptq, tmp_path):
    """AutoGPTQ gave every layer one."""
    name = "model.layers.0.mlp.up_proj."
    edit = lambda tensors, name: tensors.update(
        {name + "bias": np.zeros(tensors[name + "scales"].shape[1], "float16")}
    )
    folder = changed(plain_gptq, tmp_path / "zeros", edit)
    np.testing.assert_array_equal(logits(load("llama", folder), "llama"), logits(load("llama", plain_gptq), "llama"))
    files.edit_tensors(folder, lambda tensors: tensors[name + "bias"].fill(1))
    with pytest.raises(CheckpointError, match="in the file but not in the model: model.layers.0.mlp.up_proj.bias"):
        load("llama", folder)


def test_scales_of_a_rounded_cache_are_left_out(ordered, tmp_path):
    folder = changed(ordered[0], tmp_path / "cache")
    files.edit_tensors(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.k_scale": np.ones(1, "f")}))
    with pytest.raises(CheckpointError, match="k_scale"):
        load("llama", folder)
    settings = {**CASES["pack-quantized order"][0], "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    files.edit_config(folder, quantization_config=settings)
    np.testing.assert_array_equal(logits(load("llama", folder), "llama"), logits(load("llama", ordered[0]), "llama"))


def test_settings_in_a_file_of_their_own(plain_gptq, tmp_path):
    folder = changed(plain_gptq, tmp_path / "old", quantization_config=None)
    with pytest.raises(CheckpointError, match="quantised weights, by GPTQ or AWQ"):
        load("llama", folder)
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 8, "desc_act": false, "sym": true}')
    np.testing.assert_array_equal(logits(load("llama", folder), "llama"), logits(load("llama", plain_gptq), "llama"))


def test_asymmetric_gptq_of_the_first_format_warns(tmp_path):
    quantised, _ = checkpoint("llama", tmp_path, GPTQ | {"sym": False}, files.gptq)
    with pytest.warns(UserWarning, match="asymmetric GPTQ of the first format"):
        load("llama", quantised)


def test_zeros_that_borrowed_from_their_neighbours(tmp_path):
    """Writers subtract 1 from whole words: a zero of 0 takes 1 from the next place, which the reader puts back."""

    def writer(tensors, name, rng):
        weights = files.gptq(tensors, name, rng, version="gptq_v2")
        zeros = tensors[f"{name}.qzeros"]
        zeros &= np.int32(-16)  # the first of each word is 0
        q = np.zeros((weights.shape[1], weights.shape[0]))
        groups = tensors[f"{name}.g_idx"]
        unpacked = np.stack([(zeros.view(np.uint32) >> np.uint32(4 * i)) & 15 for i in range(8)], -1)
        unpacked = unpacked.reshape(len(zeros), -1)[:, : weights.shape[0]].astype(np.float32)
        packed = tensors[f"{name}.qweight"].view(np.uint32)
        for index in range(8):
            q[index::8] = (packed >> np.uint32(4 * index)) & 15
        tensors[f"{name}.qzeros"] = (zeros.view(np.uint32) - np.uint32(0x11111111)).view(np.int32)
        return (tensors[f"{name}.scales"].astype(np.float32)[groups] * (q - unpacked[groups])).T

    quantised, whole = checkpoint("llama", tmp_path, GPTQ | {"sym": True}, writer)
    assert_near(load("llama", quantised), load("llama", whole), "llama")


def test_bits_written_as_a_float(plain_gptq, tmp_path):
    found = load("llama", changed(plain_gptq, tmp_path / "other", quantization_config=GPTQ | {"bits": 4.0}))
    np.testing.assert_array_equal(logits(found, "llama"), logits(load("llama", plain_gptq), "llama"))
