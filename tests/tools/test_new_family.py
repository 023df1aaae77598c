"""tools/new_family: what it writes is a family that works, in a copy of the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.new_family import main, renamed, stem_of

ROOT = Path(__file__).parent.parent.parent
TRY = """
import numpy as np, pathlib, sys, tempfile
sys.path.insert(0, "tests")
import small_models, tfmodels
for name, head, stem in (("tiny_llama", "ForCausalLM", "TinyLlama"), ("small_bert", "ForMaskedLM", "SmallBert")):
    model = small_models.make(name, head)
    ids = np.array([[3, 4, 5]])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        auto = getattr(tfmodels, "TFAutoModel" + head)
        again = auto.from_pretrained(folder)
    assert type(again).__name__ == "TF" + stem + head and again.config.model_type == name
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)
print("both work")
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "tfmodels", tmp_path / "tfmodels", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(ROOT / "tools" / "make_reference", tmp_path / "tools" / "make_reference")
    (tmp_path / "tests" / "families").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "small_models.py", tmp_path / "tests")
    return tmp_path


def test_families_of_both_kinds(checkout):
    main(["tiny_llama", "--like", "llama", "--root", str(checkout)])
    main(["small_bert", "--like", "bert", "--root", str(checkout)])
    for name, stem in (("tiny_llama", "TinyLlama"), ("small_bert", "SmallBert")):
        text = (checkout / "tfmodels" / "families" / f"{name}.py").read_text()
        assert f"class TF{stem}Model" in text and f'model_type: ClassVar[str] = "{name}"' in text
        assert (checkout / "tests" / "families" / f"test_{name}.py").is_file()
    recipes = (checkout / "tools" / "make_reference" / "families.py").read_text()
    assert '    "tiny_llama": Family("TinyLlama", FEW, tuple(few_decoder_cases({}))),' in recipes
    registry = (checkout / "tfmodels" / "auto.py").read_text()
    assert '    "tiny_llama": Family("tiny_llama", "TinyLlama", DECODER_HEADS, "LlamaTokenizer"),\n' in registry
    command = [sys.executable, "-c", TRY]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env={"PYTHONPATH": str(checkout)})
    assert result.stdout == "both work\n", result.stderr[-2000:]


def test_names():
    assert stem_of("tiny_llama") == "TinyLlama"
    assert renamed("class TFLlamaModel(LlamaBase):  # llama's", ("llama", "Llama"), ("kiwi", "Kiwi")) == (
        "class TFKiwiModel(KiwiBase):  # kiwi's"
    )
    for arguments, message in ((["llama", "--like", "llama"], "is taken"), (["x", "--like", "y"], "--like y: there")):
        with pytest.raises(SystemExit, match=message):
            main(arguments)
