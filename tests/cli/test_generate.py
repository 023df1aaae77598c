"""`tfmodels generate`: the text that is written, prompts from pipes, GGUF files, and mistakes before TensorFlow."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tfmodels.cli import main as cli
from tfmodels.cli.generate import describe_speed

ROOT = Path(__file__).parents[2]
EXPECTED = json.loads((ROOT / "saved_models" / "stories260K" / "expected_greedy.json").read_text())


def test_generate_writes_the_text_as_expected(capsys):
    case = EXPECTED["cases"][0]
    arguments = ["generate", "stories260K", case["prompt"], "--max-new-tokens", str(case["max_new_tokens"])]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == case["text"] + "\n"
    assert "tokens/s" in captured.err


@pytest.mark.slow
def test_generate_from_standard_input_samples_again_with_the_same_seed(capsys, monkeypatch):
    texts = []
    for seed in ("7", "7", "8"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Once upon a time\n"), "utf-8"))
        arguments = ["--max-new-tokens", "40", "--temperature", "1.2", "--seed", seed, "--no-jit"]
        assert cli.main(["generate", "stories260K", "-", *arguments]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("Once upon a time") for text in texts)


def test_generate_at_temperature_0_takes_the_likeliest_tokens(capsys):
    case = EXPECTED["cases"][0]
    arguments = ["generate", "stories260K", case["prompt"], "--max-new-tokens", "4", "--no-jit"]
    assert cli.main([*arguments, "--temperature", "0"]) == 0
    text = capsys.readouterr().out.removesuffix("\n")
    assert case["text"].startswith(text) and len(text) > len(case["prompt"])
    assert cli.main([*arguments, "--temperature", "0", "--do-sample"]) == 2
    assert "--temperature 0 with --do-sample" in capsys.readouterr().err


def test_describe_speed_of_few_tokens():
    assert describe_speed(0.0, []) == "0 tokens"
    assert "tokens/s" not in describe_speed(0.0, [(1.0, 1)])
    assert "tokens/s" not in describe_speed(0.0, [(1.0, 1), (2.0, 4)])
    # Most tokens came in the chunk that waited for the loop's trace, which says nothing about the speed.
    assert "tokens/s" not in describe_speed(0.0, [(0.28, 1), (0.34, 1), (0.97, 4), (0.98, 2)])


def test_describe_speed_leaves_out_what_waits_for_programs():
    steady = [(1.0 + 0.01 * index, 1) for index in range(101)]
    assert describe_speed(0.0, steady).endswith("then 100 tokens/s")
    # Two seconds in the middle, as for the program of a longer cache, and one at the first step.
    later = [(when + 1.0 * (index > 0) + 2.0 * (index > 60), count) for index, (when, count) in enumerate(steady)]
    assert describe_speed(0.0, later) == (
        "101 tokens in 5.00 s; first after 1.00 s (tracing included), then 100 tokens/s; later traces took 3.00 s"
    )


def test_prompt_of_another_encoding(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("café".encode("latin-1")), "utf-8"))
    assert cli.main(["generate", "stories260K", "-"]) == 2
    assert "standard input is not UTF-8 text" in capsys.readouterr().err
    assert cli.main(["generate", "stories260K", "caf\udce9"]) == 2
    assert "is not text in this terminal's encoding" in capsys.readouterr().err


def test_a_model_that_does_not_generate(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    assert cli.main(["generate", str(tmp_path), "x"]) == 2
    assert "MPNet models do not generate text; `tfmodels embed`" in capsys.readouterr().err


def test_a_gguf_file_by_itself(tmp_path, capsys):
    """The file is found in its folder: its header is read, and what it lacks is told."""
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in {"embedding_length": 8, "block_count": 1, "feed_forward_length": 8}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_uint32("llama.attention.head_count", 2)
    writer.add_uint32("llama.context_length", 16)
    writer.add_uint32("llama.vocab_size", 4)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert cli.main(["inspect", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["format"] == "gguf" and report["parameters"]["total"] == 32
    assert cli.main(["generate", str(file), "x"]) == 2
    assert "tokenizer" in capsys.readouterr().err
    assert cli.main(["generate", str(tmp_path / "tinny.gguf"), "x"]) == 2
    assert f"did you mean {file}?" in capsys.readouterr().err


def test_a_pipe_needs_no_name_and_stop_strings_end_the_text(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Once upon a time\r\n"), "utf-8"))
    assert cli.main(["generate", "stories260K", "--stop", "xyz", "--stop", " there", "--no-jit"]) == 0
    assert capsys.readouterr().out == "Once upon a time, there\n"


def test_an_empty_stop_string_is_told_before_anything_loads(capsys):
    assert cli.main(["generate", "nowhere", "x", "--stop", ""]) == 2
    assert capsys.readouterr().err == "tfmodels generate: error: --stop '': a text that is not empty was expected.\n"


@pytest.mark.slow
def test_beams_and_json(tmp_path, capsys):
    pytest.importorskip("llguidance")
    schema = {"enum": ["yes", "no"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for given in (json.dumps(schema), str(tmp_path / "schema.json")):
        arguments = [
            "generate",
            "stories260K",
            "Is it? ",
            "--json-schema",
            given,
            "--no-jit",
            "--max-new-tokens",
            "12",
        ]
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out) in schema["enum"]
    schema = {"type": "object", "properties": {"age": {"enum": [7]}}, "required": ["age"]}
    arguments[4] = json.dumps({**schema, "additionalProperties": False})
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == '{"age":7}\n'
    for wrong, told in (
        ("[1]", "is neither a file nor a JSON object"),
        ("{1", "the argument is not valid JSON"),
        ('{"type": "x"}', "Invalid type"),
    ):
        assert cli.main(["generate", "stories260K", "x", "--json-schema", wrong]) == 2
        assert "error: --json-schema: " in (err := capsys.readouterr().err) and told in err

    from tfmodels import AutoTokenizer, TFLlamaForCausalLM

    tokenizer, model = (kind.from_pretrained("stories260K") for kind in (AutoTokenizer, TFLlamaForCausalLM))
    prompt = "Once upon a time"
    ids = model.generate(**tokenizer([prompt], return_tensors="np"), num_beams=3, max_new_tokens=6, jit_compile=False)
    flags = ["--num-beams", "3", "--max-new-tokens", "6", "--no-jit"]
    assert cli.main(["generate", "stories260K", prompt, *flags]) == 0
    assert capsys.readouterr().out == tokenizer.decode(ids[0], skip_special_tokens=True) + "\n"
