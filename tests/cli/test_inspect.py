"""`tfmodels inspect`: what it reads from config.json and the headers of the weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import quantized_files
import small_models
from safetensors.numpy import save_file

from tfmodels.cli import main as cli
from tfmodels.cli.inspect import part_of


def test_inspect_json(capsys):
    assert cli.main(["inspect", "stories260K", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == "LlamaForCausalLM"
    assert report["format"] == "safetensors"
    # embeddings, 5 layers of attention (q, k, v, o), feed-forward and two norms, the last norm; the head is tied
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 172 + 2 * 64
    assert report["parameters"]["parts"] == {
        "embeddings": 512 * 64,
        **{f"layer {index}": layer for index in range(5)},
        "final norm": 64,
    }
    assert report["parameters"]["total"] == 512 * 64 + 5 * layer + 64 == 260032
    assert report["parameters"]["head_is_tied"] is True
    whole, half = 4 * 260032, 2 * 260032
    assert report["memory"] == {"as stored": whole, "float32": whole, "bfloat16": half, "float16": half}
    assert report["files"] == [{"name": "model.safetensors", "bytes": 1044992, "tensors": 47, "dtypes": ["float32"]}]
    assert report["config"]["hidden_size"] == 64


def test_inspect_names_the_whole_path_of_a_folder(tmp_path, monkeypatch, capsys):
    save_file({"lm_head.weight": np.zeros((2, 2), "float32")}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    monkeypatch.chdir(tmp_path)
    assert cli.main(["inspect", ".", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path)


def test_inspect_sharded_and_mixed_dtypes(tmp_path, capsys):
    parts = {
        "model-00001-of-00002.safetensors": {"model.embed_tokens.weight": np.zeros((10, 4), "float32")},
        "model-00002-of-00002.safetensors": {
            "model.layers.0.mlp.up_proj.weight": np.zeros((8, 4), "float16"),
            "lm_head.weight": np.zeros((10, 4), "float16"),
        },
    }
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / name)
    weight_map = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "config.json").write_text(
        '{"architectures": ["XForY"], "model_type": "x", "tie_word_embeddings": true}'
    )
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == {
        "total": 112,
        "parts": {"embeddings": 40, "layer 0": 32, "head": 40},
        "head_is_tied": False,
    }
    assert report["dtypes"] == {
        "float32": {"tensors": 1, "parameters": 40, "bytes": 160},
        "float16": {"tensors": 2, "parameters": 72, "bytes": 144},
    }
    assert report["memory"]["as stored"] == 160 + 144
    assert [(file["name"], file["tensors"]) for file in report["files"]] == [
        (name, len(t)) for name, t in parts.items()
    ]


def test_inspect_table(capsys):
    assert cli.main(["inspect", "stories260K"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "LlamaForCausalLM",
        "layers 0-4, each",
        "45,440",
        "260,032",
        "1.04 MB",
        "520.06 kB",
        "rms_norm_eps",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt_neox.layers.11.attention.dense.weight", "layer 11"),
        ("transformer.h.2.ln_1.weight", "layer 2"),
        ("transformer.blocks.7.norm_1.weight", "layer 7"),
        ("encoder.layer.0.attention.attn.q.weight", "layer 0"),
        ("embed_out.weight", "head"),
        ("score.weight", "head"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("transformer.wte.weight", "embeddings"),
        ("embeddings.LayerNorm.weight", "embeddings"),
        ("transformer.ln_f.bias", "final norm"),
        ("bert.pooler.dense.weight", "pooler"),
    ],
)
def test_part_of(name, part):
    assert part_of(name) == part


def test_buffers_are_no_parameters(tmp_path, capsys):
    """Old checkpoints hold position ids, causal masks and rotary frequencies beside the weights."""
    tensors = {
        "transformer.h.0.attn.c_attn.bias": np.zeros(12, "float32"),
        "transformer.h.0.attn.bias": np.ones((1, 1, 8, 8), "float32"),
        "transformer.h.0.attn.masked_bias": np.array(-1e4, "float32"),
        "transformer.h.1.attn.bias": np.ones((1, 1, 8, 8), "bool"),
        "embeddings.position_ids": np.arange(8)[None],
        "model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, "float32"),
        "encoder.layers.1.attention.bias": np.ones(3, "float32"),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"]["parts"] == {"layer 0": 12, "layer 1": 3}
    assert report["dtypes"]["int64"] == {"tensors": 1, "parameters": 0, "bytes": 64}
    assert report["dtypes"]["float32"]["parameters"] == 15
    assert report["memory"]["as stored"] == sum(tensor.nbytes for tensor in tensors.values())
    assert report["memory"]["float32"] == 4 * 15


@pytest.mark.parametrize(
    ("settings", "writer"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 8}, quantized_files.gptq),
        ({"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True}, quantized_files.awq),
    ],
)
def test_packed_layers_have_the_parameters_of_whole_ones(tmp_path, capsys, settings, writer):
    def layer(tensors, name):
        return writer(tensors, name, np.random.default_rng(0))

    reports = []
    for folder in quantized_files.write(small_models.make("llama", "ForCausalLM"), tmp_path, settings, layer):
        assert cli.main(["inspect", str(folder), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    packed, whole = reports
    assert packed["parameters"] == whole["parameters"]
    assert packed["dtypes"]["int4"]["parameters"] + packed["dtypes"]["float32"]["parameters"] == sum(
        whole["parameters"]["parts"].values()
    )
    assert {"int4", "float32"} == set(packed["dtypes"]) and packed["files"][0]["dtypes"] != ["int4"]
