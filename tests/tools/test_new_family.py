"""tools/new_family: what it writes is a family that works, in a copy of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.new_family import main, renamed, stem_of

ROOT = Path(__file__).parent.parent.parent
# Of every kind: the decoder and the encoder that others share, classes beside the models, names that do not begin
# with the stem.
LIKE = {"tiny_llama": "llama", "small_bert": "bert", "old_gpt": "gpt2", "text_gem": "gemma3_text", "long_mpt": "mpt"}
TRY = """
import numpy as np, pytest, small_models, tfmodels
from tfmodels.auto import FAMILIES, public_names

@pytest.mark.parametrize("name", NAMES)
def test_it(name, tmp_path):
    family = FAMILIES[name]
    for head in family.heads[:2]:
        model, inputs = small_models.make(name, head), small_models.inputs_of(name, head)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert type(model).__name__.startswith("TF" + family.stem)
        assert type(again.config).__name__ == family.stem + "Config" and again.config.model_type == name
        np.testing.assert_array_equal(again(**inputs)[0], model(**inputs)[0])

def test_public_names():
    names = [name for family in FAMILIES.values() for name in (*family.others, *map(family.class_name, family.heads))]
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(tfmodels, name).__name__ == name
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "tfmodels", tmp_path / "tfmodels", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(ROOT / "tools" / "make_reference", tmp_path / "tools" / "make_reference")
    (tmp_path / "tests" / "families").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "small_models.py", tmp_path / "tests")
    return tmp_path


@pytest.mark.slow
def test_what_it_writes_works_and_passes_its_own_test(checkout):
    for name, like in LIKE.items():
        main([name, "--like", like, "--root", str(checkout)])
        text = (checkout / "tfmodels" / "families" / f"{name}.py").read_text()
        assert text.startswith(f'"""{stem_of(name)}, begun as a copy of') and f"class TF{stem_of(name)}Model" in text
    recipes = (checkout / "tools" / "make_reference" / "families.py").read_text()
    assert '    "tiny_llama": Family(FEW, *few_decoder_cases({})),' in recipes
    registry = (checkout / "tfmodels" / "auto.py").read_text()
    assert '    "tiny_llama": Family("tiny_llama", "TinyLlama", DECODER_HEADS, "LlamaTokenizer"),\n' in registry
    assert 'named={"ForCausalLM": "TextGemForCausalLM"}' in registry
    (checkout / "tests" / "families" / "test_all.py").write_text(TRY.replace("NAMES", repr(list(LIKE))))
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "tests/families"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "tests")))}
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environment)
    assert f"{3 * len(LIKE) + 1} passed" in result.stdout, result.stdout[-3000:] + result.stderr[-1000:]


def test_names():
    assert stem_of("tiny_llama") == "TinyLlama"
    assert renamed("class TFLlamaModel(LlamaBase):  # llama's", ("llama", "Llama"), ("kiwi", "Kiwi")) == (
        "class TFKiwiModel(KiwiBase):  # kiwi's"
    )
    for arguments, message in ((["llama", "--like", "llama"], "is taken"), (["x", "--like", "y"], "--like y: there")):
        with pytest.raises(SystemExit, match=message):
            main(arguments)
