"""Kinds of files for `fuzz.py`: how a good one is made, how it is damaged, and what reads it."""

from __future__ import annotations

import copy
import io
import itertools
import json
import pickle
import pickletools
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.checkpoints import TensorSpec, open_checkpoint, write_checkpoint

Random = random.Random


class Kind(NamedTuple):
    """One kind of file."""

    write: Callable[[Random, Path], None]
    """Writes a damaged file, and the good ones that belong to it, into a folder."""
    read: Callable[[Path], None]
    prepare: Callable[[], None] = lambda: None
    """Imports what `read` needs, before worker processes start."""


# Damage ----------------------------------------------------------------------------------------------------------


def damage_bytes(rng: Random, data: bytes) -> bytes:
    """A few changes of bytes anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        data = _damage_once(rng, bytearray(data))
    return data


def _damage_once(rng: Random, data: bytearray) -> bytes:
    if not data:
        return bytes(rng.randbytes(4))
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8))
    change = rng.randrange(9)
    if change == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif change == 1:
        data[at] = rng.randrange(256)
    elif change == 2:
        del data[at : at + rng.choice((1, 2, 8, 64, len(data)))]
    elif change == 3:
        data[at:at] = data[at : at + rng.choice((1, 8, 64, 512))] * rng.choice((1, 1, 2, 20))
    elif change == 4:
        other = rng.randrange(len(data))
        data[at : at + size] = data[other : other + size]
    elif change == 5:
        value = rng.choice((0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
        data[at : at + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
    elif change == 6:  # a position in the file, where a format has one
        at = at // 8 * 8
        data[at : at + 8] = rng.randrange(len(data)).to_bytes(8, "little")
    elif change == 7:
        data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    else:
        return bytes(data[:at])
    return bytes(data)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**60),
    *("", "x", "../x", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "None", "1", "1e-05", "🙂", "float16", "\n"),
    *([], [[]], [None], [1, 2], ["a"], {}, {"a": 1}, {"content": "x"}, {"content": 1}, {"type": "BPE"}, [0.1] * 40),
    *(["x"] * 3, [[1, [2, [3, {}]]]], {"": {"": {}}}, {"0": "a", "1": "b"}, {"-1": "a"}, {"a": [{}]}),
)


def damage_tree(rng: Random, value: Any) -> Any:
    """A copy of a JSON value with some nodes changed, moved or left out."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD_VALUES))
        parent, key = rng.choice(places)
        change = rng.randrange(10)
        if change <= 5:
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif change == 6:
            del parent[key]
        elif change == 7:
            other, other_key = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[other_key]))
        elif change == 8 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "../x", key + "x", key.upper(), "\ud800", "9" * 40))] = parent.pop(key)
        elif isinstance(parent, list):
            parent += parent[: rng.choice((1, 8, 100))]
        elif isinstance(parent[key], int):
            parent[key] = parent[key] * rng.choice((-1, 0, 2, 10**6)) + rng.choice((0, 1, -1))
    return value


def _places(value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:200]:
        yield value, key
        yield from _places(value[key])


def damage_json(rng: Random, value: Any) -> bytes:
    """The bytes of a damaged JSON file."""
    if rng.random() < 0.6:
        return json.dumps(damage_tree(rng, value)).encode()
    text = json.dumps(value)
    change = rng.randrange(10)
    if change == 0:
        return b"\xef\xbb\xbf" + text.encode()
    if change == 1:
        return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-16-be")))
    if change == 2:
        return (text + rng.choice((" x", "{}", "\0", text))).encode()
    if change == 3:
        depth = rng.choice((10, 90, 101, 1000, 100_000))
        return _put(rng, text, rng.choice(("[", '{"a":')) * depth, "").encode()
    if change == 4:
        return _put(rng, text, "9" * rng.choice((50, 65, 5000)), "").encode()
    if change == 5:
        return _put(rng, text, rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e400")), "").encode()
    if change == 6:
        return text.replace('"', '"\xe9', 1).encode("latin-1", "replace")
    if change == 7 and text.startswith("{"):
        return (text[:-1] + "," + text[1:]).encode()
    return damage_bytes(rng, text.encode())


def _put(rng: Random, text: str, what: str, end: str) -> str:
    """Put something in the place of a value."""
    places = [at + 2 for at in range(len(text) - 2) if text[at : at + 2] == ": "] or [0]
    at = rng.choice(places)
    stop = next((stop for stop in range(at, len(text)) if text[stop] in ",}]"), len(text))
    return text[:at] + what + end + text[stop:]


# Weights ---------------------------------------------------------------------------------------------------------


def _tensors(count: int = 4) -> list[Any]:
    shapes = [(4, 6), (6,), (2, 3, 4), ()]
    arrays = {f"model.layers.{n}.weight": np.ones(shapes[n % 4], "float32") for n in range(count)}
    return [(name, TensorSpec(array.shape, "float32"), lambda array=array: array) for name, array in arrays.items()]


def read_weights(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for name in checkpoint.names():
            array, info = checkpoint.read(name), checkpoint.info(name)
            assert (array.shape, array.dtype.name) == (info.shape, info.dtype)
            if array.size:
                array.reshape(-1)[:1].tobytes()
                array[(-1,) * array.ndim].tobytes()


@cache
def _safetensors(max_shard_size: str = "1GB") -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in write_checkpoint(folder, _tensors(), max_shard_size)}


def write_safetensors(rng: Random, folder: Path) -> None:
    (data,) = _safetensors().values()
    if rng.random() < 0.7:
        size = int.from_bytes(data[:8], "little")
        header = damage_json(rng, json.loads(data[8 : 8 + size]))
        data = len(header).to_bytes(8, "little") + header + data[8 + size :]
    else:
        data = damage_bytes(rng, data)
    (folder / "model.safetensors").write_bytes(data)


def write_index(rng: Random, folder: Path) -> None:
    for name, data in _safetensors("100B").items():
        is_index = name.endswith(".json")
        (folder / name).write_bytes(damage_json(rng, json.loads(data)) if is_index else data)


class _Storage:
    """Stands for a storage while a state dict is pickled as PyTorch does it."""

    def __init__(self, key: str, count: int) -> None:
        self.identity = ("storage", _Named("torch", "FloatStorage"), key, "cpu", count)


class _Named:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Tensor:
    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.arguments = (storage, 0, shape, tuple(int(np.prod(shape[at + 1 :])) for at in range(len(shape))))


def _pickle(value: Any, legacy: bool = False) -> bytes:
    """Instructions that build a state dict; written out by hand, as there need be no PyTorch."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        return b"K" + bytes([value])

    def sequence(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    out = b"\x80\x02ccollections\nOrderedDict\nq\x00)R("
    for name, tensor in value.items():
        storage, offset, shape, strides = tensor.arguments
        _, kind, key, place, count = storage.identity
        more = b"N" if legacy else b""
        identity = b"(" + text("storage") + b"c" + f"{kind.module}\n{kind.name}\n".encode() + text(key) + text(place)
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + number(count) + more + b"tQ"
        out += number(offset) + sequence(shape) + sequence(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    return out + b"u}X\x09\x00\x00\x00_metadataNsb."


def _state_dict() -> dict[str, _Tensor]:
    shapes = {"a.weight": (4, 6), "a.bias": (6,), "b.weight": (2, 3, 4)}
    return {name: _Tensor(_Storage(str(n), int(np.prod(s))), s) for n, (name, s) in enumerate(shapes.items())}


def damage_pickle(rng: Random, data: bytes) -> bytes:
    """Leave out, repeat, swap or add instructions, or change bytes."""
    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    parts = [data[start:stop] for start, stop in itertools.pairwise(starts)]
    extra = (
        b"0",
        b"2",
        b"(",
        b"1",
        b"t",
        b"l",
        b"d",
        b"]",
        b"}",
        b")",
        b"R",
        b"b",
        b"Q",
        b"a",
        b"s",
        b"u",
        b"e",
        b"N",
    )
    extra += (
        b"cos\nsystem\n",
        b"q\x05",
        b"h\x05",
        b"h\x00",
        b"\x8a\x02\xff\xff",
        b"Vx\n",
        b"\x85",
        b"\x86",
        b"\x87",
        b".",
    )
    extra += (b"ctorch\nSize\n", b"I1\n", b"F1e999\n", b"\x93", b"\x81", b"r\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f")
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(parts))
        change = rng.randrange(5)
        if change == 0:
            parts[at] = b""
        elif change == 1:
            parts[at:at] = parts[at : at + rng.choice((1, 3, 10))] * rng.choice((1, 1, 5, 500))
        elif change == 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts.insert(at, rng.choice(extra) * rng.choice((1, 1, 2, 3, 2000)))
    return b"".join(parts)


def write_zip(rng: Random, folder: Path) -> None:
    data = _pickle(_state_dict())
    inner = rng.random() < 0.7
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", damage_pickle(rng, data) if inner else data)
        archive.writestr("archive/byteorder", b"little")
        for tensor in _state_dict().values():
            _, _, key, _, count = tensor.arguments[0].identity
            archive.writestr(f"archive/data/{key}", bytes(4 * count))
    data = buffer.getvalue()
    (folder / "pytorch_model.bin").write_bytes(data if inner else damage_bytes(rng, data))


def write_legacy(rng: Random, folder: Path) -> None:
    state = _state_dict()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    keys = [tensor.arguments[0].identity[2] for tensor in state.values()]
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps(system, 2)]
    parts += [_pickle(state, legacy=True), pickle.dumps(keys, 2)]
    if rng.random() < 0.7:
        at = rng.randrange(len(parts))
        parts[at] = damage_pickle(rng, parts[at])
    for tensor in state.values():
        count = tensor.arguments[0].identity[4]
        parts.append(struct.pack("<Q", count) + bytes(4 * count))
    data = b"".join(parts)
    (folder / "pytorch_model.bin").write_bytes(data if rng.random() < 0.7 else damage_bytes(rng, data))


@cache
def _hdf5() -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for layer in range(3):
            group = file.create_group(f"layer{layer}")
            names = [f"m/layer{layer}/{part}:0".encode() for part in ("kernel", "bias")]
            group.attrs["weight_names"] = names
            for name, shape in zip(names, ((4, 6), (6,)), strict=True):
                group.create_dataset(name.decode(), data=np.ones(shape, "float32"))
        file.attrs["layer_names"] = [b"layer0", b"layer1", b"layer2"]
        file.attrs["backend"] = "tensorflow"
    return buffer.getvalue()


def write_hdf5(rng: Random, folder: Path) -> None:
    (folder / "tf_model.h5").write_bytes(damage_bytes(rng, _hdf5()))


def _msgpack(value: Any) -> bytes:
    if isinstance(value, dict):
        return bytes([0x80 + len(value)]) + b"".join(_msgpack(key) + _msgpack(item) for key, item in value.items())
    if isinstance(value, str):
        return b"\xd9" + bytes([len(value)]) + value.encode()
    if isinstance(value, int):
        return b"\xcd" + struct.pack(">H", value)
    content = b"\x93" + bytes([0x90 + value.ndim]) + b"".join(map(_msgpack, value.shape))
    content += _msgpack(value.dtype.name) + b"\xc5" + struct.pack(">H", value.nbytes) + value.tobytes()
    return b"\xc8" + struct.pack(">H", len(content)) + b"\x01" + content


def write_flax(rng: Random, folder: Path) -> None:
    ones = np.ones((4, 6), "float32")
    pieces = {"__msgpack_chunked_array__": 1, "shape": {"0": 4, "1": 6}, "chunks": {"0": ones.reshape(-1)}}
    tree: dict[str, Any] = {"model": {"layers": {"0": {"kernel": ones, "bias": ones[0]}, "1": {"kernel": pieces}}}}
    data = _msgpack(tree)
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.2:  # an empty map, or maps within maps, where a value is
            data = data.replace(b"\xc8", rng.choice((b"\x80\xc8", b"\x81\xd9\x01a" * 100 + b"\xc8")), 1)
        data = damage_bytes(rng, data)
    (folder / "flax_model.msgpack").write_bytes(data)


def _gguf_value(value: Any) -> bytes:
    """Type and content of a metadata value."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        kind, form = (4, "I") if 0 <= value < 2**32 else (11, "q")
        return struct.pack("<I" + form, kind, (value + 2**63) % 2**64 - 2**63 if kind == 11 else value)
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _gguf_text(value)
    if isinstance(value, list):
        inner = [_gguf_value(item if not isinstance(item, (list, dict)) else "x") for item in value]
        kind = inner[0][:4] if inner else struct.pack("<I", 8)
        same = [item[4:] for item in inner if item[:4] == kind]
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(same)) + b"".join(same)
    return struct.pack("<I", 8) + _gguf_text(json.dumps(value))


def _gguf_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def write_gguf(rng: Random, folder: Path) -> None:
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a"]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.block_count": 1,
        "llama.context_length": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.scaling.type": "none",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.scores": [-float(n) for n in range(len(vocabulary))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(vocabulary) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tensors: dict[str, Any] = {
        "token_embd.weight": [8, len(vocabulary)],
        "blk.0.attn_q.weight": [8, 8],
        "blk.0.attn_k.weight": [8, 4],
        "output_norm.weight": [8],
        "rope_freqs.weight": [2],
    }
    inner = rng.random() < 0.6
    if inner:
        both = damage_tree(rng, {"metadata": metadata, "tensors": tensors})
        metadata, tensors = (
            both.get(key) if isinstance(both.get(key), dict) else {} for key in ("metadata", "tensors")
        )
    described, size = b"", 0
    for name, shape in tensors.items():
        shape = [item % 2**64 for item in shape if type(item) is int] if isinstance(shape, list) else []
        described += _gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, size)
        count = int(np.prod([min(item, 1000) for item in shape], dtype="int64")) if len(shape) < 3 else 1
        size += -(-4 * min(count, 100_000) // 32) * 32
    pairs = b"".join(_gguf_text(key) + _gguf_value(value) for key, value in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + described
    data = head + bytes(-len(head) % 32) + np.ones(size // 4, "float32").tobytes()
    (folder / "model.gguf").write_bytes(data if inner else damage_bytes(rng, data))


def read_gguf(folder: Path) -> None:
    from tfmodels.tokenization import LlamaTokenizer

    with open_checkpoint(folder, gguf_file="model.gguf") as checkpoint:
        for name in checkpoint.names():
            checkpoint.read(name)
    _use(LlamaTokenizer.from_pretrained(folder, gguf_file="model.gguf"))


# Tokenizers ------------------------------------------------------------------------------------------------------


def _tokenizer_json() -> dict[str, Any]:
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *letters, "Ġ", "ab", "Ġa"])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    token = {"id": 1, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False}
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, "normalized": False, "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [["a", "b"], ["Ġ", "a"]],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    token = {"content": "<extra>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
        "unk_token": "<unk>",
        "pad_token": None,
        "additional_special_tokens": ["<extra>"],
        "added_tokens_decoder": {"32": {**token, "special": True}},
        "model_max_length": 1000,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "add_prefix_space": False,
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
    }


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def write_sentencepiece(rng: Random, folder: Path) -> None:
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256))]
    pieces += [(text, 1) for text in ("▁", "a", "b", "ab", "▁a", "▁ab", "l", "e")]
    pieces += [("a" * length, 1) for length in range(3, rng.choice((4, 4, 4, 60)))]
    parts = [
        _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", -float(n)) + b"\x18" + bytes([kind]))
        for n, (text, kind) in enumerate(pieces)
    ]
    parts += [_field(2, b"\x18" + bytes([rng.choice((1, 2, 2))])), _field(3, _field(1, b"identity") + b"\x18\x01")]
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(len(parts))
            parts[at] = rng.choice((b"", parts[at] * 2, damage_bytes(rng, parts[at]), b"\x80" * 1000, parts[0]))
        data = b"".join(parts)
    else:
        data = damage_bytes(rng, b"".join(parts))
    (folder / "tokenizer.model").write_bytes(data)
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_tiktoken(rng: Random, folder: Path) -> None:
    import base64

    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    lines += [base64.b64encode(text) + b" %d" % (256 + n) for n, text in enumerate((b"ab", b"abc", b" a"))]
    (folder / "tokenizer.model").write_bytes(damage_bytes(rng, b"\n".join(lines) + b"\n"))
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_tokenizer_json(rng: Random, folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(damage_json(rng, _tokenizer_json()))


def write_tokenizer_config(rng: Random, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json()))
    others = {"special_tokens_map.json": {"bos_token": "<s>", "pad_token": {"content": "<unk>"}}}
    others["added_tokens.json"] = {"<extra>": 32}
    files = {"tokenizer_config.json": _tokenizer_config(), **(others if rng.random() < 0.5 else {})}
    damaged = rng.choice(list(files))
    for name, value in files.items():
        if name == damaged and rng.random() < 0.3:
            value = {**value, "added_tokens_decoder": None}
        (folder / name).write_bytes(damage_json(rng, value) if name == damaged else json.dumps(value).encode())


def write_vocabulary(rng: Random, folder: Path) -> None:
    model = _tokenizer_json()["model"]
    vocabulary, merges = json.dumps(model["vocab"]).encode(), b"#version: 0.2\na b\n\xc4\xa0 a\n"
    if rng.random() < 0.6:
        vocabulary = damage_json(rng, model["vocab"])
    else:
        merges = damage_bytes(rng, merges)
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").write_bytes(merges)


def write_word_pieces(rng: Random, folder: Path) -> None:
    words = b"<s>\n<pad>\n</s>\n[UNK]\n<unk>\n<mask>\na\n##b\nhello\n"
    (folder / "vocab.txt").write_bytes(damage_bytes(rng, words))
    (folder / "config.json").write_text('{"model_type": "mpnet"}')


def read_tokenizer(folder: Path) -> None:
    from tfmodels.tokenization import AutoTokenizer

    _use(AutoTokenizer.from_pretrained(folder))


def _use(tokenizer: Any) -> None:
    ids = tokenizer("ab <s> hello\n")["input_ids"]
    tokenizer.decode(ids)
    len(tokenizer)


# Configurations --------------------------------------------------------------------------------------------------

CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 9,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "torch_dtype": "float16",
        "rope_theta": 1e4,
        "id2label": {"0": "a", "1": "b"},
        "label2id": {"a": 0, "b": 1},
        "eos_token_id": [1, 2],
        "use_cache": True,
    },
    {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2, "rotary_pct": 0.25, "vocab_size": 9},
    {"model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 1]], "hidden_size": 8},
    {"model_type": "mpt", "d_model": 8, "n_heads": 2, "attn_config": {"alibi": True, "attn_pdrop": 0.0}},
    {"model_type": "mpnet", "hidden_size": 8, "num_attention_heads": 2, "relative_attention_num_buckets": 32},
)
GENERATION = {
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 5,
    "top_p": 0.9,
    "eos_token_id": [1, 2],
    "max_length": 20,
    "bad_words_ids": [[1, 2]],
    "suppress_tokens": [3],
    "sequence_bias": [[[1], 2.0]],
    "num_beams": 1,
    "transformers_version": "4.57.0",
    "early_stopping": "never",
    "forced_eos_token_id": 2,
    "_from_model_config": True,
}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": None,
    "r": 4,
    "lora_alpha": 8.0,
    "lora_dropout": 0.1,
    "bias": "none",
    "target_modules": ["q_proj"],
    "modules_to_save": None,
    "use_rslora": True,
    "rank_pattern": {},
}
MODULES = [
    {"idx": n, "name": f"{n}", "path": path, "type": f"sentence_transformers.models.{kind}"}
    for n, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")))
]
SENTENCE: dict[str, Any] = {
    "modules.json": MODULES,
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": None},
    "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": True},
    "2_Dense/config.json": {
        "in_features": 8,
        "out_features": 4,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    },
}


def write_config(rng: Random, folder: Path) -> None:
    (folder / "config.json").write_bytes(damage_json(rng, rng.choice(CONFIGS)))


def read_config(folder: Path) -> None:
    from tfmodels import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    repr(config)
    type(config).from_dict(config.to_dict())


def prepare_config() -> None:
    from tfmodels.auto import FAMILIES

    for family in FAMILIES.values():
        family.load(f"{family.stem}Config")


def write_generation(rng: Random, folder: Path) -> None:
    (folder / "generation_config.json").write_bytes(damage_json(rng, GENERATION))


def read_generation(folder: Path) -> None:
    from tfmodels.generation.config import GenerationConfig

    repr(GenerationConfig.from_pretrained(folder))


def write_adapter(rng: Random, folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(damage_json(rng, ADAPTER))


def read_adapter(folder: Path) -> None:
    from tfmodels.training.adapter_files import read_settings

    read_settings(folder)


def write_sentence(rng: Random, folder: Path) -> None:
    damaged = rng.choice(list(SENTENCE))
    for name, value in SENTENCE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(damage_json(rng, value) if name == damaged else json.dumps(value).encode())


def read_sentence(folder: Path) -> None:
    from tfmodels.sentence.files import read_folder

    read_folder(folder)


def _prepare_tokenizers() -> None:
    import tfmodels.tokenization  # noqa: F401


def _prepare_gguf() -> None:
    import gguf.quants

    import tfmodels.tokenization  # noqa: F401

    assert gguf


KINDS: dict[str, Kind] = {
    "safetensors": Kind(write_safetensors, read_weights),
    "safetensors-index": Kind(write_index, read_weights),
    "pytorch-zip": Kind(write_zip, read_weights),
    "pytorch-legacy": Kind(write_legacy, read_weights),
    "hdf5": Kind(write_hdf5, read_weights, lambda: (_hdf5(), None)[1]),
    "flax": Kind(write_flax, read_weights),
    "gguf": Kind(write_gguf, read_gguf, _prepare_gguf),
    "tokenizer.json": Kind(write_tokenizer_json, read_tokenizer, _prepare_tokenizers),
    "tokenizer_config": Kind(write_tokenizer_config, read_tokenizer, _prepare_tokenizers),
    "sentencepiece": Kind(write_sentencepiece, read_tokenizer, _prepare_tokenizers),
    "tiktoken": Kind(write_tiktoken, read_tokenizer, _prepare_tokenizers),
    "vocab.json": Kind(write_vocabulary, read_tokenizer, _prepare_tokenizers),
    "vocab.txt": Kind(write_word_pieces, read_tokenizer, _prepare_tokenizers),
    "generation_config": Kind(write_generation, read_generation),
    "adapter_config": Kind(write_adapter, read_adapter),
    "sentence": Kind(write_sentence, read_sentence),
    "config": Kind(write_config, read_config, prepare_config),
}
