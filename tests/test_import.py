"""`import tfmodels` is light, and its public names are all there."""

import ast
import configparser
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfmodels
from tfmodels.moved import MOVED

ROOT = Path(__file__).parents[1]

LIGHT = """
import sys
import tfmodels
from tfmodels import AutoConfig, AutoTokenizer, GenerationConfig
import tfmodels.cli.main, tfmodels.checkpoints.reader, tfmodels.checkpoints.hub, tfmodels.checkpoints.writer
import tfmodels.configs.base, tfmodels.configs.rotary
assert "llama" in tfmodels.auto.gguf_maps()
heavy = [name for name in ("tensorflow", "keras", "torch", "transformers", "jax") if name in sys.modules]
assert not heavy, heavy
"""


def test_neither_tensorflow_nor_keras_is_imported():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_all_public_names_exist():
    for name in dir(tfmodels):
        assert getattr(tfmodels, name) is not None


def test_type_checkers_know_every_public_name():
    source = ast.parse((ROOT / "tfmodels" / "__init__.py").read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    shown = {alias.name for node in block.body for alias in node.names}
    assert shown == {*tfmodels.__all__, *tfmodels._PACKAGES}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name
    assert (ROOT / "tfmodels" / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'tfmodels' has no attribute 'TFT5Model'"):
        tfmodels.TFT5Model  # noqa: B018


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LlamaForCausalLM", "; did you mean TFLlamaForCausalLM?"),
        ("TFLlamaForCasualLM", "; did you mean TFLlamaForCausalLM?"),
        ("TFLLamaModel", "; did you mean TFLlamaModel?"),
        ("GPTNeoXModel", "; did you mean TFGPTNeoXModel?"),
        ("TFMPTForCausalLM", "; did you mean TFMptForCausalLM?"),
        ("AutoModelForCausalLM", "; did you mean TFAutoModelForCausalLM?"),
        ("AutoModel", "; did you mean TFAutoModel?"),
        ("LlamaTokeniser", "; did you mean LlamaTokenizer"),
        ("FlaxGPTNeoForCausalLM", "; use TFGPTNeoForCausalLM, which runs on JAX where KERAS_BACKEND=jax is set"),
        ("FlaxAutoModelForCausalLM", "; use TFAutoModelForCausalLM, which runs on JAX"),
        ("TFLlamaLMHeadModel", "; did you mean TFLlamaForCausalLM?"),
        ("TFGPT2ForCausalLM", "; did you mean TFGPT2LMHeadModel?"),
        ("Gemma3TextForCausalLM", "; did you mean TFGemma3ForCausalLM?"),
        ("TFLlamaForMaskedLM", "; Llama has TFLlamaForCausalLM, TFLlamaForQuestionAnswering"),
        ("TFT5Model", "; the architectures here are Llama, Mistral, Qwen2, "),
        ("AutoModelForPreTraining", "; did you mean TFAutoModelForPreTraining?"),
        ("AutoModelWithLMHead", "; did you mean TFAutoModelWithLMHead?"),
        ("TFBertLMHeadModel", "; use TFBertForMaskedLM, or a decoder such as TFGPT2LMHeadModel"),
        ("TFRobertaForCausalLM", "; use TFRobertaForMaskedLM, or a decoder such as TFGPT2LMHeadModel"),
        ("TFBertTokenizer", "; use BertTokenizer before the model, which takes ids"),
        ("TFBertMainLayer", "; use TFBertModel(config).backbone, which is a Keras layer."),
        ("TFBertEmbeddings", "; layers inside of models have no public names here: TFBertModel(config).backbone is a"),
        ("TFBertSelfOutput", "; layers inside of models have no public names here: TFBertModel(config).backbone"),
        ("LlamaDecoderLayer", "; layers inside of models have no public names here: TFLlamaModel(config).backbone"),
        ("GPTNeoXAttention", "; layers inside of models have no public names here: TFGPTNeoXModel(config).backbone"),
        ("TFRobertaClassificationHead", "; layers inside of models have no public names here: TFRobertaModel(config)"),
        ("BertForPreTrainingOutput", "; use tfmodels.models.outputs"),
        ("GenerationMixin", "; use TFPreTrainedModel, whose causal models have generate"),
        ("TFTokenClassificationLoss", "; use model(..., labels=labels).loss, or tfmodels.models.losses"),
        ("TFTopKLogitsWarper", "; use the setting of generate, or a function"),
        ("TFSequenceClassifierOutput", "; use tfmodels.models.outputs.SequenceClassifierOutput"),
        ("TFCausalLMOutputWithPast", "; use tfmodels.models.outputs.CausalLMOutput"),
        ("TFBaseModelOutputWithPooling", "; use tfmodels.models.outputs.BaseModelOutputWithPooling"),
        ("TFBeamSearchDecoderOnlyOutput", "; use the output of generate"),
        ("TFSharedEmbeddings", "; use keras.layers.Embedding"),
        ("shape_list", "; use keras.ops.shape"),
        ("TFGPT2MainLayer", "; use TFGPT2Model(config).backbone, which is a Keras layer."),
        ("GPT2DoubleHeadsModel", "; did you mean TFGPT2DoubleHeadsModel"),
        ("TFGPT2ForCasualLM", "; did you mean TFGPT2LMHeadModel"),
        ("TFGemma3ForTokenClassification", "; Gemma3Text has TFGemma3ForCausalLM, TFGemma3TextForSeq"),
        ("TFAutoModelForSeq2SeqLM", "; Auto has TFAutoModel, TFAutoModelForCausalLM"),
        ("PretrainedConfig", "; use ModelConfig."),
        ("TFTrainer", "; use model.compile"),
        ("DataCollatorForSeq2Seq", "; DataCollator has DataCollatorForLanguageModeling, "),
        ("StoppingCriteriaList", "; use a list: generate(..., stopping_criteria=[...])."),
    ],
)
def test_names_of_transformers_get_a_hint(name, hint):
    with pytest.raises(AttributeError) as caught:
        getattr(tfmodels, name)
    assert str(caught.value).startswith(f"module 'tfmodels' has no attribute '{name}'{hint}")
    with pytest.raises(ImportError) as caught:
        exec(f"from tfmodels import {name}")
    assert str(caught.value).startswith(f"cannot import name '{name}' from 'tfmodels'{hint}")


def test_names_that_nothing_is_close_to_are_told_as_python_does():
    with pytest.raises(ImportError, match="cannot import name 'qqq' from 'tfmodels'"):
        exec("from tfmodels import qqq")
    with pytest.raises(ModuleNotFoundError, match="No module named 'tfmodels.qqq'"):
        importlib.import_module("tfmodels.qqq")
    assert not hasattr(tfmodels, "LlamaForCausalLM")


def test_parts_are_imported_when_they_are_named():
    code = "import tfmodels, sys; assert 'tfmodels.training' not in sys.modules; tfmodels.configs.base.ModelConfig"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("training", "export", "models", "sentence", "tokenization", "generation"):
        assert getattr(tfmodels, name).__name__ == f"tfmodels.{name}" and name in dir(tfmodels)


@pytest.mark.parametrize("old", MOVED)
def test_old_module_names_stand_for_the_new_ones(old):
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])


class TestContracts:
    """`lint-imports` holds setup.cfg's rules against the package, and notices an import that breaks one."""

    @pytest.mark.parametrize(
        ("module", "line", "broken"),
        [
            (None, "", ()),
            ("kernels/masks.py", "import tfmodels.models.calling", ("Arrows point one way", "No circle")),
            ("families/mpt.py", "import tfmodels.families.llama", ("Families do not know each other",)),
            ("checkpoints/reader.py", "import tensorflow", ("need no backend",)),
            ("layers/norms.py", "import torch", ("PyTorch and transformers are never imported",)),
        ],
    )
    def test_an_import_that_breaks_a_rule_is_found(self, tmp_path, module, line, broken):
        pytest.importorskip("importlinter")
        shutil.copy(ROOT / "setup.cfg", tmp_path)
        shutil.copytree(ROOT / "tfmodels", tmp_path / "tfmodels", ignore=shutil.ignore_patterns("__pycache__"))
        if module is not None:
            file = tmp_path / "tfmodels" / module
            file.write_text(file.read_text() + f"\n{line}\n")
        result = subprocess.run(
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == bool(broken), result.stdout + result.stderr
        verdicts = [row for row in result.stdout.splitlines() if " BROKEN" in row]
        assert len(verdicts) == len(broken)
        for name in broken:
            assert any(name in row for row in verdicts)


def test_every_package_of_the_tree_is_listed_for_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {".".join(file.relative_to(ROOT).parent.parts) for file in ROOT.glob("tfmodels/**/__init__.py")}
    assert there <= listed
    assert {name for name in listed if "._bundled" not in name} <= there


def test_no_name_of_a_package_hides_a_module_of_it():
    """A new import of such a module, as doctests of files make, puts it in the place of the name."""
    root, hidden = Path(tfmodels.__file__).parent, []
    for file in root.rglob("__init__.py"):
        modules = {path.stem for path in file.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                names = {alias.asname or alias.name for alias in node.names} - {"annotations"}
                own = node.module == ".".join(file.parent.relative_to(root.parent).parts)
                hidden += [] if own else [f"{file.parent.name}.{name}" for name in names & modules]
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                hidden += [f"{file.parent.name}.{node.name}"] * (node.name in modules)
    assert not hidden
