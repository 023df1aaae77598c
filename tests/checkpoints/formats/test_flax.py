"""`flax_model.msgpack`, packed as Flax packs it: the same numbers as from safetensors; and what is refused."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmodels import GPTNeoConfig, LlamaConfig, TFGPTNeoForCausalLM, TFLlamaForCausalLM, TFLlamaModel
from tfmodels.checkpoints import CheckpointError, open_checkpoint
from tfmodels.checkpoints.formats.flax import FlaxFile
from tfmodels.checkpoints.weight_map import slots_of

msgpack = pytest.importorskip("msgpack", reason="writing the files needs the msgpack package")

IDS = np.array([[1, 5, 60, 7, 33]])
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
MODELS = {
    "llama": lambda: TFLlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, num_attention_heads=4)),
    "gpt_neo": lambda: TFGPTNeoForCausalLM(
        GPTNeoConfig(**SIZES, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=3)
    ),
}


def packed(array, code=1):
    """An array as Flax packs it; `array` may also be the (shape, dtype, bytes) to say instead."""
    content = (array.shape, array.dtype.name, array.tobytes()) if isinstance(array, np.ndarray) else array
    return msgpack.ExtType(code, msgpack.packb(content, use_bin_type=True))


def in_pieces(array, size):
    """A large array as Flax packs it."""
    pieces = [array.reshape(-1)[at : at + size] for at in range(0, array.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(axis): length for axis, length in enumerate(array.shape)},
        "chunks": {str(number): packed(piece) for number, piece in enumerate(pieces)},
    }


def nested(leaves):
    tree = {}
    for path, leaf in leaves.items():
        *steps, last = path.split("/")
        node = tree
        for step in steps:
            node = node.setdefault(step, {})
        node[last] = leaf
    return msgpack.packb(tree, strict_types=True)


def flax_leaves(model):
    """A model's weights under the names, and in the orientation, of Flax."""
    names = {"kernel": "kernel", "embeddings": "embedding", "gamma": "scale", "beta": "bias", "bias": "bias"}
    leaves = {}
    for name, slot in model.stored_names(slots_of(model)).items():
        parameter = names.get(slot.variable.name, slot.variable.name)  # Llama's norms: "weight"
        leaves["/".join([*name.split(".")[:-1], parameter])] = slot.variable.numpy()
    return leaves


def write(folder, model, pack=packed):
    model.config.save_pretrained(folder)
    (folder / "flax_model.msgpack").write_bytes(
        nested({path: pack(array) for path, array in flax_leaves(model).items()})
    )


@pytest.mark.parametrize("family", MODELS)
def test_models(tmp_path, family):
    model = MODELS[family]()
    for weight in model.weights:  # biases and norms would start as zeros and ones
        weight.assign(np.random.default_rng(len(weight.shape)).normal(0.3, 0.5, weight.shape))
    write(tmp_path, model)
    loaded = type(model).from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("family", MODELS)
def test_pieces_and_half_precision(tmp_path, family):
    model = MODELS[family]()

    def rounded(array):
        return array.astype(ml_dtypes.bfloat16)

    for pack, convert in ((lambda a: in_pieces(a, 100), np.asarray), (lambda a: packed(rounded(a)), rounded)):
        write(tmp_path, model, pack)
        loaded = type(model).from_pretrained(tmp_path)
        for got, want in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got.numpy(), convert(want.numpy()).astype("float32"))


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("change", [0.5, 0.0, None])
def test_a_tied_configuration_and_a_head_in_the_file(tmp_path, family, change, recwarn):
    """The head's matrix differs from the table, or repeats it, or the configuration wants one that is not there."""
    config = MODELS[family]().config.replace(tie_word_embeddings=change is not None)
    model = type(MODELS[family]())(config.replace(tie_word_embeddings=True))
    config.save_pretrained(tmp_path)
    leaves = {path: packed(array) for path, array in flax_leaves(model).items()}
    table = np.asarray(model.get_input_embeddings().embeddings)
    if change is not None:
        leaves["lm_head/kernel"] = packed((table + np.float32(change)).T.copy())
    (tmp_path / "flax_model.msgpack").write_bytes(nested(leaves))
    loaded = type(model).from_pretrained(tmp_path)
    told = " ".join(str(one.message) for one in recwarn)
    if change is None:
        assert "lm_head.weight did not come from the checkpoint and start at random; train them before use" in told
    else:
        assert loaded.config.tie_word_embeddings is (change == 0)
        assert ("lm_head.weight differs from the embeddings" in told) == (change != 0)
        hidden = model(IDS, output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(loaded(IDS).logits, np.asarray(hidden) @ (table + change).T, atol=1e-4)


def test_a_backbone_alone_and_missing_weights(tmp_path):
    model = MODELS["llama"]()
    write(tmp_path, model)
    backbone = TFLlamaModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(
        backbone(IDS).last_hidden_state, model(IDS, output_hidden_states=True).hidden_states[-1]
    )
    leaves = {path: packed(array) for path, array in flax_leaves(model).items() if "v_proj" not in path}
    (tmp_path / "flax_model.msgpack").write_bytes(nested(leaves))
    with pytest.raises(CheckpointError, match=r"missing from the file: model.layers.0.self_attn.v_proj.weight"):
        TFLlamaForCausalLM.from_pretrained(tmp_path)


def test_shards(tmp_path):
    model = MODELS["gpt_neo"]()
    model.config.save_pretrained(tmp_path)
    leaves, index = flax_leaves(model), {}
    for number in range(2):
        part = dict(list(leaves.items())[number::2])
        name = f"flax_model-0000{number + 1}-of-00002.msgpack"
        (tmp_path / name).write_bytes(nested({path: packed(array) for path, array in part.items()}))
        index |= dict.fromkeys(part, name)
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    np.testing.assert_array_equal(TFGPTNeoForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5, "float32"),
        np.arange(3, dtype="int64"),
        np.zeros((0, 4), "float16"),
        np.arange(70_000, dtype="float32").reshape(700, 100),
        np.array([True, False]),
        np.array([1.5, -2], ml_dtypes.bfloat16),
    ],
    ids=lambda array: f"{array.dtype.name}{list(array.shape)}",
)
def test_arrays(tmp_path, array):
    leaf = packed(array, code=1 if array.shape else 3)
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb({"outer": {"kernel": leaf, "other": leaf}}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.format, checkpoint.names()) == ("flax", ["outer.weight", "outer.other"])
        for name, want in (("outer.weight", array.T), ("outer.other", array)):
            got, info = checkpoint.read(name), checkpoint.info(name)
            np.testing.assert_array_equal(got, want)
            assert not got.flags.writeable
            assert (info.shape, info.dtype, info.nbytes) == (got.shape, got.dtype.name, got.nbytes)
            assert (got.shape, got.dtype) == (want.shape, want.dtype)


def test_pieces_in_any_order_of_keys(tmp_path):
    array = np.arange(24, dtype="float32").reshape(4, 6)
    node = in_pieces(array, 2)
    node["chunks"] = dict(sorted(node["chunks"].items()))  # "10" before "2"
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb({"kernel": dict(reversed(node.items()))}))
    with open_checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("weight"), array.T)
        assert not checkpoint.read("weight").flags.writeable


ONES = np.ones((2, 3), "float32")
PIECES = in_pieces(ONES, 2)
BAD = {
    "a list": ([1], r"begins with a list, not with a map"),
    "text": ({"w": "x"}, r"'w' at byte \d+ is a text, not an array or a map"),
    "nothing": ({"w": None}, r"a value of the type 0xc0"),
    "a number": ({"step": 7, "w": packed(ONES)}, r"parameter 'step' is the number 7, not an array"),
    "number keys": ({1: packed(ONES)}, r"a key at byte 1 is a number; a text was expected"),
    "too few bytes": ({"w": packed(((2, 4), "float32", ONES.tobytes()))}, r"shape \(2, 4\) of float32, but 24 bytes"),
    "a huge shape": ({"w": packed(((1 << 62, 4), "float32", b""))}, r"shape \(\d+, 4\) of float32, but 0 bytes"),
    "dimensions": ({"w": packed(([1] * 99, "float32", bytes(4)))}, r"has 99 dimensions"),
    "a negative size": ({"w": packed(((-2, 3), "float32", ONES.tobytes()))}, r"a value of the type 0xfe"),
    "an object": ({"w": packed(((1,), "object", bytes(8)))}, r"the element type 'object', which cannot be read"),
    "text as elements": ({"w": packed(((1,), "float32", "abcd"))}, r"elements at byte \d+ is a text"),
    "names that outgrow the file": (
        {"k" * 500: {"l" * 500: {"m" * 500: {str(n): packed(ONES) for n in range(9)}}}},
        r"name is longer than 1024: '(k+) \.\.\.",
    ),
    "two parts": ({"w": packed(((1,), "float32"))}, r"does not consist of shape, dtype and elements"),
    "complex": ({"w": msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))}, r"an extension with the code 2; 1 and 3 can"),
    "more behind": (
        {"w": msgpack.ExtType(1, msgpack.packb(((), "int8", b"1")) + b"xx")},
        r"should end at byte \d+, but its elements end at",
    ),
    "alike": ({"w": {"kernel": packed(ONES), "scale": packed(ONES)}}, r"'w/scale' is there twice"),
    "a piece missing": (
        {"w": {**PIECES, "chunks": {"0": PIECES["chunks"]["0"], "2": PIECES["chunks"]["2"]}}},
        r"in pieces that do not make up an array",
    ),
    "no pieces": ({"w": {**PIECES, "chunks": {}}}, r"in pieces that do not make up an array"),
    "pieces without shape": ({"w": {**PIECES, "shape": [2, 3]}}, r"'shape' at byte \d+ is a list"),
    "another shape": ({"w": {**PIECES, "shape": {"0": 7}}}, r"in pieces that do not make up an array"),
    "mixed pieces": (
        {"w": {**PIECES, "chunks": {**PIECES["chunks"], "1": packed(np.ones(2, "float64"))}}},
        r"in pieces that do not make up an array",
    ),
}


@pytest.mark.parametrize(("content", "problem"), BAD.values(), ids=BAD)
def test_bad_content(tmp_path, content, problem):
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(content, use_bin_type=True))
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"is empty"),
        (b"\x81\xa1w" * 100, r"maps within maps beyond 64"),
        (b"\xdf" + struct.pack(">I", 2**32 - 1) + b"\xa1w", r"cut short or damaged: 1 bytes are wanted"),
        (b"\xdf\xff", r"4 bytes are wanted at byte 1 of 2"),
        (b"\x81\xa1w\xc9" + struct.pack(">I", 2**31) + b"\x01", r"2147483648 bytes are wanted"),
        (b"\x81\xdb" + struct.pack(">I", 2**32 - 1), r"4294967295 bytes are wanted"),
        (b"\x81\xa2\xff\xff\x80", r"a key at byte 2 is not UTF-8"),
        (b"\x82\xa1w\x80\xa1w\x80", r"has the key 'w' twice"),
        (msgpack.packb({"w": packed(ONES)}) + b"\0", r"but has 1 bytes more"),
    ],
)
def test_bad_bytes(tmp_path, content, problem):
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=problem):
        open_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("flax") / "flax_model.msgpack"
    leaves = {"a/kernel": packed(ONES), "a/bias": packed(np.ones(300, "float16")), "b/embedding": PIECES}
    path.write_bytes(nested(leaves))
    return path


def test_cut_short_anywhere(good):
    content = good.read_bytes()
    for size in range(1, len(content)):
        path = good.with_name("short")
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"is cut short or damaged"):
            FlaxFile(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_anywhere(good, data):
    """Whatever bytes change, the file is refused, or read within its bounds."""
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = good.with_name("damaged")
    path.write_bytes(content)
    try:
        file = FlaxFile(path)
    except CheckpointError:
        return
    for name, info in file.tensors.items():
        array = file.read(name)
        assert (info.shape, info.dtype, info.nbytes) == (array.shape, array.dtype.name, array.nbytes)
