"""GGUF files, written by the `gguf` library, give the numbers and tokens of the model they were made from."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import serve
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmodels import AutoConfig, AutoTokenizer, LlamaConfig, LlamaTokenizer, TFAutoModelForCausalLM, TFLlamaForCausalLM
from tfmodels.checkpoints.bundled import folder as bundled_folder
from tfmodels.checkpoints.formats.gguf import GGUFFile, read_header
from tfmodels.checkpoints.reader import CheckpointError, open_checkpoint
from tfmodels.checkpoints.weight_map import slots_of
from tfmodels.families.llama_gguf import GGUF
from tfmodels.tokenization.conversions.sentencepiece import read_sentencepiece

gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the gguf package")
KINDS = gguf.GGMLQuantizationType
ROOT = Path(__file__).resolve().parents[3]
TINY = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = np.array([[1, 5, 60, 7, 33]])


def tiny(**changes):
    return TFLlamaForCausalLM(LlamaConfig(**{**TINY, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, **changes}))


def stored_names():
    """Our names -> those in GGUF files."""
    blocks = [f"blk.{index}.{part}" for index in range(2) for part in PARTS]
    return {
        GGUF.stored_name(name): name for name in (*blocks, "token_embd.weight", "output_norm.weight", "output.weight")
    }


PARTS = [
    *("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight"),
    *("ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"),
]


def permute(rows, heads):
    """As llama.cpp stores query and key projections."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path, model, kind=KINDS.F32, *, tokenizer=None, drop=(), extra=None, raw=None, **metadata):
    """A GGUF file of a model, its matrices quantised."""
    config = model.config
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    values = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        **{key.replace("__", "."): value for key, value in metadata.items()},
    }
    for key, value in values.items():
        if value is not None:
            add = writer.add_string if isinstance(value, str) else writer.add_uint32
            (writer.add_float32 if isinstance(value, float) else add)(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    if tokenizer:
        tokenizer(writer)
    names = stored_names()
    for name, slot in slots_of(model).items():
        if names[name] in drop:
            continue
        rows = np.asarray(slot.variable.value)
        rows = rows.T if slot.transposed else rows
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            rows = permute(rows, heads) if part in name else rows
        stored = KINDS.F32 if rows.ndim == 1 else kind
        writer.add_tensor(names[name], gguf.quants.quantize(np.ascontiguousarray(rows), stored), raw_dtype=stored)
    for name, rows in (extra or {}).items():
        writer.add_tensor(name, rows)
    for name, (blocks, stored) in (raw or {}).items():
        writer.add_tensor(name, blocks, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def entry_size(info, kind):
    """Bytes that a tensor takes in a file whose matrices are quantised."""
    elements, size = gguf.GGML_QUANT_SIZES[kind] if len(info.shape) > 1 else (1, 4)
    return math.prod(info.shape) // elements * size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory where Linux tells it")
def test_reading_all_blocks_keeps_one_matrix_in_memory(tmp_path):
    blocks = np.zeros((4096, 2048 // 32 * 34), np.uint8)  # 8.5 MiB, of which there are eight
    names = [f"blk.{number}.ffn_up.weight" for number in range(8)]
    write(tmp_path / "m.gguf", tiny(), raw=dict.fromkeys(names, (blocks, KINDS.Q8_0)), drop=names)
    program = f"""
from pathlib import Path
from tfmodels.checkpoints import open_checkpoint
def resident():
    return max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
with open_checkpoint(Path({str(tmp_path)!r}), "m.gguf") as checkpoint:
    before, peak, kept = resident(), 0, []
    for number in range(8):
        kept.append(checkpoint.blocks(f"model.layers.{{number}}.mlp.up_proj.weight").read())
        assert kept[-1].sum() == 0
        peak = max(peak, resident() - before)
print(peak / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 2.5 * 8.5


class TestModel:
    @pytest.mark.parametrize("tied", [False, True])
    def test_float32_is_exact(self, tmp_path, tied):
        model = tiny(tie_word_embeddings=tied)
        write(tmp_path / "m.gguf", model)
        for cls in (TFLlamaForCausalLM, TFAutoModelForCausalLM):
            loaded = cls.from_pretrained(tmp_path, gguf_file="m.gguf")
            assert loaded.config.tie_word_embeddings is tied
            np.testing.assert_array_equal(loaded(IDS).logits, model(IDS).logits)

    def test_a_configuration_that_says_otherwise(self, tmp_path):
        for tied in (False, True):
            write(tmp_path / "m.gguf", tiny(tie_word_embeddings=tied))
            with pytest.warns(UserWarning, match="lm_head.weight|output.weight") as told:
                loaded = TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", tie_word_embeddings=not tied)
            assert loaded.config.tie_word_embeddings is False
            said = "did not come from the checkpoint and start at random" if tied else "differs from the embeddings"
            assert [one for one in told if said in str(one.message)]

    @pytest.mark.parametrize(
        ("kind", "error"), [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 1e-2), ("Q4_0", 0.2), ("Q4_1", 0.2)]
    )
    def test_quantised(self, tmp_path, kind, error):
        model = tiny()
        write(tmp_path / "m.gguf", model, KINDS[kind])
        with open_checkpoint(tmp_path, "m.gguf") as checkpoint:
            read = {name: checkpoint.read(name).astype("float32") for name in checkpoint.names()}
            for name, slot in slots_of(model).items():
                rows = np.asarray(slot.variable.value)
                rows = rows.T if slot.transposed else rows
                # Quantising rows in another order gives the same rows in another order.
                stored = KINDS.F32 if rows.ndim == 1 else KINDS[kind]
                expected = gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(rows), stored), stored)
                np.testing.assert_array_equal(read[name], expected)
                assert np.abs(read[name] - rows).max() <= error * np.abs(rows).max()
        for name, slot in slots_of(model).items():
            rows = read[name]
            slot.variable.assign(rows.T if slot.transposed else rows)
        loaded = TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
        np.testing.assert_array_equal(loaded(IDS).logits, model(IDS).logits)

    @pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS"])
    def test_kinds_that_are_read_only(self, tmp_path, kind):
        """Blocks of any bytes mean what the gguf library says they mean."""
        elements, size = gguf.GGML_QUANT_SIZES[KINDS[kind]]
        blocks = np.random.default_rng(0).integers(0, 120, (64, 64 * 256 // 64 // elements * size), "uint8")
        model = tiny(vocab_size=64, hidden_size=256)
        write(
            tmp_path / "m.gguf", model, drop=("token_embd.weight",), raw={"token_embd.weight": (blocks, KINDS[kind])}
        )
        read = open_checkpoint(tmp_path, "m.gguf").read("model.embed_tokens.weight")
        expected = gguf.quants.dequantize(blocks, KINDS[kind])
        assert read.shape == (64, 256) and np.ptp(expected[np.isfinite(expected)]) > 0
        np.testing.assert_array_equal(read, expected)
        assert not read.flags.writeable

    def test_kinds_that_the_library_cannot_read(self, tmp_path):
        blocks = np.zeros((64, 292), "uint8")
        options = {"drop": ("token_embd.weight",), "raw": {"token_embd.weight": (blocks, KINDS.Q8_K)}}
        write(tmp_path / "m.gguf", tiny(hidden_size=256), **options)
        with pytest.raises(CheckpointError, match=r"quantised as Q8_K, which the gguf library cannot read"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")

    def test_configuration(self, tmp_path):
        model = tiny(rope_theta=5e5, head_dim=16, max_position_embeddings=77)
        write(tmp_path / "m.gguf", model, rope__freq_base=5e5)
        config = AutoConfig.from_pretrained(tmp_path, gguf_file="m.gguf")
        for name in (*TINY, "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings"):
            assert getattr(config, name) == getattr(model.config, name), name
        assert config.rope_parameters == {"rope_type": "default", "rope_theta": 5e5}
        assert LlamaConfig.from_pretrained(tmp_path, gguf_file="m.gguf", use_cache=False).use_cache is False

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
            ({"rope__scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
            ({"rope__scaling__factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
            ({"rope__scaling__factor": 0.0}, {"rope_type": "default"}),
            ({"rope__scaling__type": "none", "rope__scaling__factor": 2.0}, {"rope_type": "default"}),
        ],
    )
    def test_rope_scaling(self, tmp_path, metadata, expected):
        write(tmp_path / "m.gguf", tiny(), **metadata)
        found = AutoConfig.from_pretrained(tmp_path, gguf_file="m.gguf").rope_parameters
        assert {key: found[key] for key in expected} == expected

    @pytest.mark.parametrize("factor", [8.0, 32.0])
    def test_llama3_frequencies(self, tmp_path, factor):
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        changes = {"hidden_size": 256, "rope_theta": 5e5, "rope_scaling": scaling, "max_position_embeddings": 131072}
        model = tiny(**changes)
        wavelengths = 2 * np.pi * 5e5 ** (np.arange(32) / 32)
        blend = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
        divisors = (1 / ((1 - blend) / factor + blend)).astype("float32")
        write(tmp_path / "m.gguf", model, rope__freq_base=5e5, extra={"rope_freqs.weight": divisors})
        loaded = TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
        positions = np.array([[0, 900, 5000, 20000, 100000]])
        np.testing.assert_allclose(
            loaded(IDS, position_ids=positions).logits, model(IDS, position_ids=positions).logits, rtol=1e-4, atol=1e-5
        )
        write(tmp_path / "odd.gguf", model, extra={"rope_freqs.weight": divisors[::-1].copy()})
        with pytest.raises(CheckpointError, match=r"frequency factors other than Llama 3's"):
            AutoConfig.from_pretrained(tmp_path, gguf_file="odd.gguf")


class TestSplit:
    """Several files that gguf-split made of one: the metadata in the first, the tensors in all."""

    @pytest.fixture
    def model(self):
        return tiny()

    def split(self, folder, model, count=3, numbers=None, total=None, doubled=None):
        names = stored_names()
        tensors = [names[name] for name in slots_of(model)]
        parts = [tensors[index::count] for index in range(count)]
        if doubled:
            parts[-1].append(parts[0][0])
        paths = []
        for index, part in enumerate(parts):
            paths.append(folder / f"m-{index + 1:05d}-of-{count:05d}.gguf")

            def add(writer, number=(numbers or range(count))[index]):
                writer.add_uint16("split.no", number)
                writer.add_uint16("split.count", count)
                writer.add_int32("split.tensors.count", len(tensors) if total is None else total)

            dropped = [name for name in tensors if name not in part]
            write(paths[-1], model, drop=dropped, tokenizer=add)
        return paths

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("named", [0, 2])
    def test_all_files_are_read(self, tmp_path, named, tied):
        model = tiny(tie_word_embeddings=tied)
        paths = self.split(tmp_path, model)
        loaded = TFAutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=paths[named].name)
        assert loaded.config.tie_word_embeddings is tied
        np.testing.assert_array_equal(loaded(IDS).logits, model(IDS).logits)

    def test_what_does_not_belong_together(self, tmp_path, model):
        paths = self.split(tmp_path, model)
        paths[1].rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match=r"one of 3 files, of which 1 are not there: 'm-00002-of-00003"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file=paths[0].name)
        paths[2].rename(paths[1])
        (tmp_path / "elsewhere").rename(paths[2])
        with pytest.raises(CheckpointError, match=r"m-00002-of-00003.gguf should be file 2 of 3, but .* split.no = 2"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file=paths[0].name)
        paths[0].rename(tmp_path / "m.gguf")
        with pytest.raises(CheckpointError, match=r"m.gguf is one of 3 files .*model-00001-of-00003.gguf"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")

    def test_tensors_twice_or_too_few(self, tmp_path, model):
        paths = self.split(tmp_path, model, doubled=True)
        with pytest.raises(CheckpointError, match=r"is in two files, m-00001-of-00003.gguf and m-00003-of-00003.gguf"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file=paths[0].name)
        paths = self.split(tmp_path, model, total=99)
        with pytest.raises(
            CheckpointError, match=r"announces 99 tensors \(split.tensors.count\); its 3 files hold 21"
        ):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file=paths[0].name)

    def test_names_and_contents_that_differ(self, tmp_path, model):
        """Neither part of a model may stand for the whole: without its head's matrix it would load as a tied one."""
        write(tmp_path / "m-00001-of-00002.gguf", model)
        with pytest.raises(CheckpointError, match=r"one of 2 files by its name, but not by its content .*is None"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m-00001-of-00002.gguf")
        paths = self.split(tmp_path, model)
        (tmp_path / "other").mkdir()
        self.split(tmp_path / "other", model, total=22)[1].replace(paths[1])
        with pytest.raises(CheckpointError, match=r"m-00002-of-00003.gguf and .*: split.tensors.count is 22 in"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file=paths[2].name)

    def test_all_files_are_fetched(self, tmp_path, model):
        paths = self.split(tmp_path, model)
        with serve() as server:
            server.repositories = {"org/split": {**{path.name: path.read_bytes() for path in paths}, "m.gguf": b"x"}}
            done = server.run(
                "from tfmodels.checkpoints.hub import resolve\n"
                f"print(resolve('org/split', patterns=(), gguf_file={paths[0].name!r}))",
                tmp_path / "home",
            )
            assert sorted(server.files_fetched()) == [path.name for path in paths], done.stderr
        with open_checkpoint(done.stdout.strip(), paths[0].name) as checkpoint:
            assert len(checkpoint.names()) == 21


class TestTokenizer:
    TEXTS = ("Once upon a time", "  two  spaces é 漢\n", "<s>inside</s>", "")

    def test_sentencepiece(self, tmp_path):
        original = LlamaTokenizer(bundled_folder("stories260K") / "tokenizer.model")
        pieces = read_sentencepiece(bundled_folder("stories260K") / "tokenizer.model").pieces

        def add(writer):
            writer.add_tokenizer_model("llama")
            writer.add_token_list([text for text, _, _ in pieces])
            writer.add_token_scores([score for _, score, _ in pieces])
            writer.add_token_types([kind for _, _, kind in pieces])
            writer.add_bos_token_id(1)
            writer.add_eos_token_id(2)
            writer.add_unk_token_id(0)
            writer.add_remove_extra_whitespaces(True)  # as this vocabulary's own file says

        write(tmp_path / "m.gguf", tiny(vocab_size=len(pieces)), tokenizer=add, vocab_size=None)
        for tokenizer in (
            AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf"),
            LlamaTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf"),
        ):
            assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
            for text in self.TEXTS:
                assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
                assert tokenizer.decode(tokenizer(text)["input_ids"]) == original.decode(original(text)["input_ids"])
        assert AutoConfig.from_pretrained(tmp_path, gguf_file="m.gguf").vocab_size == len(pieces)

    @pytest.mark.parametrize(
        ("rules", "said", "adds"),
        [("llama-bpe", None, True), ("llama-bpe", False, False), ("gpt-2", None, False), ("gpt-2", True, True)],
    )
    def test_bos(self, tmp_path, rules, said, adds):
        """Llama 3's vocabularies put a bos token first unless the file says otherwise, GPT-2's do not."""

        def add(writer):
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(rules)
            writer.add_token_list(["<s>", "h", "i", "hi"])
            writer.add_token_types([3, 1, 1, 1])
            writer.add_token_merges(["h i"])
            writer.add_bos_token_id(0)
            if said is not None:
                writer.add_add_bos_token(said)

        write(tmp_path / "m.gguf", tiny(vocab_size=4), tokenizer=add)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
        assert tokenizer("hi")["input_ids"] == ([0, 3] if adds else [3])

    @pytest.mark.parametrize(("rules", "cut"), [("gpt-2", ["Ġ12", "3"]), ("smollm", ["Ġ", "1", "2", "3"])])
    def test_byte_level(self, tmp_path, rules, cut):
        letters = ["<|end|>", "Ġ", "1", "2", "3", "h", "i", "12", "Ġ12", "hi"]

        def add(writer):
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(rules)
            writer.add_token_list(letters)
            writer.add_token_types([3] + [1] * 9)
            writer.add_token_merges(["1 2", "Ġ 12", "h i"])
            writer.add_eos_token_id(0)

        write(tmp_path / "m.gguf", tiny(vocab_size=10), tokenizer=add)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
        assert tokenizer.tokenize("hi 123<|end|>") == ["hi", *cut, "<|end|>"]
        assert tokenizer.decode(tokenizer("hi 123<|end|>")["input_ids"], skip_special_tokens=True) == "hi 123"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": "bert"}, r"kind 'bert'"),
            ({"pre": "viking"}, r"rules 'viking', which are unknown here; known are"),
            ({"merges": ["h x"]}, r"do not fit together"),
            ({"eos": 99}, r"eos_token has id 99; there are 3 tokens"),
            ({"types": [1]}, r"3 tokens, but types for 1"),
        ],
    )
    def test_unusable(self, tmp_path, changes, message):
        def add(writer):
            writer.add_tokenizer_model(changes.get("model", "gpt2"))
            writer.add_tokenizer_pre(changes.get("pre", "default"))
            writer.add_token_list(["h", "i", "hi"])
            writer.add_token_types(changes.get("types", [1, 1, 1]))
            writer.add_token_merges(changes.get("merges", ["h i"]))
            writer.add_eos_token_id(changes.get("eos", 1))

        write(tmp_path / "m.gguf", tiny(vocab_size=3), tokenizer=add)
        with pytest.raises(CheckpointError, match=message):
            AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")

    def test_none(self, tmp_path):
        write(tmp_path / "m.gguf", tiny())
        with pytest.raises(CheckpointError, match=r"no tokenizer.ggml.tokens"):
            AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with a bit of everything, and where its elements begin."""

    def tokenizer(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["a", "b"])
        writer.add_token_scores([0.0, -1.0])

    path = write(tmp_path_factory.mktemp("gguf") / "m.gguf", tiny(), KINDS.Q8_0, tokenizer=tokenizer)
    file = GGUFFile(path)
    return path, path.stat().st_size - sum(entry_size(info, KINDS.Q8_0) for info in file.tensors.values())


class TestBadFiles:
    @pytest.fixture
    def good(self, tmp_path):
        return write(tmp_path / "m.gguf", tiny()).read_bytes()

    def check(self, tmp_path, data, message):
        (tmp_path / "bad.gguf").write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="bad.gguf")

    def test_magic(self, tmp_path, good):
        self.check(tmp_path, b"GGML" + good[4:], r"no GGUF file: it begins with b'GGML'")

    def test_version(self, tmp_path, good):
        self.check(tmp_path, good[:4] + struct.pack("<I", 9) + good[8:], r"GGUF version 9; 2 and 3 can be read")

    def test_counts(self, tmp_path, good):
        for at in (8, 16):
            lying = good[:at] + struct.pack("<Q", 1 << 60) + good[at + 8 :]
            self.check(tmp_path, lying, r"more than there can be")

    def test_text_length(self, tmp_path, good):
        self.check(tmp_path, good[:24] + struct.pack("<Q", 1 << 62) + good[32:], r"states \d+ characters, more")
        self.check(tmp_path, good[:24] + struct.pack("<Q", len(good)) + good[32:], r"states \d+ characters, more")

    def test_truncation(self, tmp_path, good):
        for size in range(0, len(good) - 1, 997):
            self.check(tmp_path, good[:size], r"cut short|empty|no GGUF file|more than there can be|end at byte")

    def test_quantisation(self, tmp_path, good):
        at = good.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
        assert struct.unpack_from("<I", good, at) == (0,)
        self.check(tmp_path, good[:at] + struct.pack("<I", 4000) + good[at + 4 :], r"stored as type 4000, .* unknown")

    def test_offset(self, tmp_path, good):
        at = good.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16 + 4
        self.check(tmp_path, good[:at] + struct.pack("<Q", 1 << 40) + good[at + 8 :], r"would end at byte \d+ of")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"architecture": "gemma"}, r"'gemma' model; only 'llama'"),
            ({"expert_count": 8}, r"what no Llama model here does: llama.expert_count = 8"),
            ({"rope__scaling__attn_factor": 2.0}, r"no Llama model here does: llama.rope.scaling.attn_factor = 2.0"),
            (
                {
                    "rope__scaling__type": "linear",
                    "rope__scaling__factor": 4.0,
                    "extra": {"rope_freqs.weight": np.ones(8, "float32")},
                },
                r"scales positions twice",
            ),
            ({"attention__head_count_kv": 3}, r"tensor 'blk.0.attn_k.weight' has 32 rows for 3 heads"),
            ({"block_count": 0}, r"llama.block_count is 0; a number above 0 was expected"),
            ({"rope__freq_base": float("nan")}, r"llama.rope.freq_base is nan; a float was expected"),
            ({"rope__dimension_count": 8}, r"only the head size, 16"),
            ({"block_count": None}, r"llama.block_count is None; an int was expected"),
            ({"rope__scaling__type": "longrope"}, r"'longrope' cannot be read"),
            ({"drop": ("blk.1.attn_v.weight",)}, r"missing from the file: model.layers.1.self_attn.v_proj.weight"),
            ({"extra": {"blk.0.ffn_gate_inp.weight": np.zeros((2, 64), "float32")}}, r"belongs to no Llama model"),
        ],
    )
    def test_contents(self, tmp_path, options, message):
        write(tmp_path / "m.gguf", tiny(), **options)
        with pytest.raises(CheckpointError, match=message):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")

    @pytest.mark.parametrize("key", ["attention.head_count", "attention.head_count_kv", "embedding_length"])
    def test_sizes_below_zero(self, tmp_path, good, key):
        at = good.index(f"llama.{key}".encode() + struct.pack("<I", 4)) + len(f"llama.{key}")
        lying = good[:at] + struct.pack("<Ii", 5, -1) + good[at + 8 :]  # as a signed number
        self.check(tmp_path, lying, rf"llama\.{key} is -1; a number above 0 was expected")

    def test_offsets_that_overlap(self, tmp_path, good):
        places = {}
        for name in (b"blk.0.attn_q.weight", b"blk.1.attn_q.weight"):
            places[name] = good.index(name) + len(name) + 4 + 16 + 4
        one, other = places.values()
        lying = good[:other] + good[one : one + 8] + good[other + 8 :]
        self.check(tmp_path, lying, r"tensors 'blk.0.attn_q.weight' and 'blk.1.attn_q.weight' share bytes")
        offset = struct.unpack_from("<Q", good, one)[0] + 4
        self.check(tmp_path, good[:one] + struct.pack("<Q", offset) + good[one + 8 :], r"no multiple of the alignment")

    def test_a_type_that_leaves_bytes_over(self, tmp_path, good):
        name = b"blk.0.attn_q.weight"
        at = good.index(name) + len(name) + 4 + 16
        assert good[at : at + 4] == struct.pack("<I", 0)  # float32, and now Q4_0
        lying = good[:at] + struct.pack("<I", 2) + good[at + 4 :]
        self.check(tmp_path, lying, r"bytes between the tensors 'blk.0.attn_q.weight' and .* belong to neither")

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_damaged_anywhere(self, whole, data):
        """Whatever bytes of the header change, the file is refused, or read within its bounds."""
        path, header = whole
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
        changed = path.with_name("changed.gguf")
        changed.write_bytes(content)
        try:
            file = GGUFFile(changed)
            for name, info in file.tensors.items():
                array = file.read(name)
                assert (info.shape, info.dtype, info.nbytes) == (array.shape, array.dtype.name, array.nbytes)
        except CheckpointError:
            pass

    def test_without_the_library(self, tmp_path, good, monkeypatch):
        monkeypatch.setitem(sys.modules, "gguf", None)
        (tmp_path / "fresh.gguf").write_bytes(good)
        for load in (TFLlamaForCausalLM.from_pretrained, AutoConfig.from_pretrained, AutoTokenizer.from_pretrained):
            with pytest.raises(ImportError, match=r"needs the gguf library: pip install 'tfmodels\[gguf\]'"):
                load(tmp_path, gguf_file="fresh.gguf")

    def test_names(self, tmp_path):
        path = write(tmp_path / "m.gguf", tiny())
        with pytest.raises(FileNotFoundError, match=r"name the folder that holds it, with gguf_file='m.gguf'"):
            TFLlamaForCausalLM.from_pretrained(path)
        with pytest.raises(FileNotFoundError, match=r"no GGUF file .*none.gguf"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="none.gguf")
        with pytest.raises(ValueError, match=r"gguf_file='../x.gguf'; the name of a file"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, gguf_file="../x.gguf")

    def test_a_changed_file_is_read_again(self, tmp_path):
        write(tmp_path / "m.gguf", tiny())
        before = read_header(tmp_path / "m.gguf").config
        write(tmp_path / "m.gguf", tiny(), context_length=99)
        assert json.dumps(before) != json.dumps(read_header(tmp_path / "m.gguf").config)


@pytest.mark.slow
def test_smollm2():
    """SmolLM2-135M-Instruct from its own GGUF file."""
    files = sorted(Path(os.environ.get("TFMODELS_CHECKPOINTS", "/nowhere")).rglob("SmolLM2-135M-Instruct*.gguf"))
    if not files:
        pytest.skip("no SmolLM2-135M-Instruct*.gguf below the folder that TFMODELS_CHECKPOINTS names")
    where = {"pretrained_model_name_or_path": files[0].parent, "gguf_file": files[0].name}
    model = TFAutoModelForCausalLM.from_pretrained(**where)
    tokenizer = AutoTokenizer.from_pretrained(files[0].parent, gguf_file=files[0].name)
    prompt = tokenizer(["The capital of France is"], return_tensors="tf")
    assert tokenizer.batch_decode(model.generate(**prompt, max_new_tokens=1)) == ["The capital of France is Paris"]
