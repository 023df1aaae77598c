"""mypy and pyright know the package's names, constructors and keyword arguments, and find mistakes in them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfmodels.generation.keywords import GenerationKeywords
from tfmodels.generation.settings import UNSUPPORTED, Settings

ROOT = Path(__file__).parents[1]

SCRIPT = """
from typing_extensions import assert_type

import tfmodels
from tfmodels import AutoTokenizer, GenerationConfig, LlamaConfig, TFAutoModelForCausalLM, TFLlamaForCausalLM

config = LlamaConfig(vocab_size=64, hidden_size=32, num_labels=3, my_note="kept")
size: int = config.hidden_size
labels: int = config.num_labels
positional = LlamaConfig(64, 32, 48)
config.save_pretrained("folder", push_to_hub=False)
model = TFLlamaForCausalLM(config, dtype="bfloat16")
loaded = TFAutoModelForCausalLM.from_pretrained("stories260K", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained("stories260K")
inputs = tokenizer("Once upon a time", return_tensors="tf")
outputs = model(**inputs)
print(outputs.logits, model.num_parameters(), model.can_generate(), model.name_or_path)
settings = GenerationConfig(max_new_tokens=8, do_sample=True)
temperature: float = settings.temperature
changed = settings.update(temperature=0.5)
model.generation_config = changed
print(model.generate(inputs["input_ids"], max_new_tokens=4), model.generate(**inputs, do_sample=True, top_k=5))
print(loaded.generate(input_ids=inputs["input_ids"], num_beams=2, streamer=tfmodels.TextStreamer(tokenizer)))
model.save_pretrained("folder", max_shard_size="1GB")
print(tfmodels.configs.base.ModelConfig, tfmodels.__version__)
assert_type(LlamaConfig.from_pretrained("stories260K"), LlamaConfig)
assert_type(config.replace(hidden_size=16), LlamaConfig)
assert_type(TFLlamaForCausalLM.from_pretrained("stories260K", dtype="bfloat16"), TFLlamaForCausalLM)
trained, information = TFLlamaForCausalLM.from_pretrained("stories260K", output_loading_info=True)
assert_type(trained, TFLlamaForCausalLM)
assert_type(tfmodels.LlamaTokenizer.from_pretrained("stories260K"), tfmodels.LlamaTokenizer)
write = tfmodels.pipeline("text-generation", trained, tokenizer=tokenizer, max_new_tokens=4)
assert_type(write, tfmodels.Pipeline)
print(write(["Once"], batch_size=2), tfmodels.AttentionMaskVisualizer("stories260K"))
engine = tfmodels.Engine(model, rows=2, tokenizer=tokenizer)
first: int = engine.add([1, 2], max_new_tokens=4)
text: str | None = engine.run()[first].text
print(text, tfmodels.MptConfig(attn_config={"alibi": True}), tfmodels.BertConfig(30522, hidden_act="relu"))
"""
# Every line is a mistake.
MISTAKES = """
LlamaConfig(hidden_size="large")
LlamaConfig(64, "wide")
model.generate(inputs, max_new_tokns=4)
model.generate(inputs, max_new_tokens="four")
GenerationConfig(temprature=0.5)
tfmodels.TFLlamaForMaskedLM
"""


@pytest.fixture
def check(tmp_path):
    """Run a type checker on a script; a function to the lines that it complains of, and to all that it says."""

    def run(name, text):
        (tmp_path / "script.py").write_text(text)
        command = {
            "mypy": ["--strict", "--follow-imports=silent", "--ignore-missing-imports", "--no-error-summary"],
            "basedpyright": ["--outputjson", "--pythonpath", sys.executable],
        }[name]
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"pip install {name}")
        settings = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)], "include": ["script.py"]}
        (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
        done = subprocess.run(
            [sys.executable, "-m", name, *command, *(["script.py"] if name == "mypy" else [])],
            cwd=tmp_path,
            env={**os.environ, "MYPYPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        told = done.stdout + done.stderr
        if name == "mypy":
            rows = [line.split(":") for line in told.splitlines() if ": error:" in line]
            return [int(row[1]) for row in rows if row[0] == "script.py"], told
        found = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
        return [one["range"]["start"]["line"] + 1 for one in found], told

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mypy", "basedpyright"])
def test_a_script_of_a_user(check, name):
    lines, told = check(name, SCRIPT + MISTAKES)
    begin, end = len(SCRIPT.splitlines()), len((SCRIPT + MISTAKES).splitlines())
    assert sorted(set(lines)) == list(range(begin + 2, end + 1)), told


def test_keywords_of_generate_are_its_settings():
    names = {*GenerationKeywords.__annotations__} - {"input_ids"}
    assert names == {*Settings.__annotations__, *UNSUPPORTED}
