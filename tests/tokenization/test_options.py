"""Options by argument, by tokenizer_config.json and by attribute, for tokenizer.json and for vocabulary files.

The ids are those of transformers 4.57 and 5.24, which agree on them unless a comment says otherwise.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers

from tfmodels.tokenization import (
    AutoTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
)

CLASSES = {"llama": LlamaTokenizer, "gpt2": GPT2Tokenizer, "neox": GPTNeoXTokenizer, "mpnet": MPNetTokenizer}
TEXT = "Hello wörld 你好"


@pytest.fixture(scope="module")
def folders(vocabularies: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """NAME_slow with the vocabulary files, and NAME_json with a tokenizer.json alone."""
    target = tmp_path_factory.mktemp("folders")
    slow = {"llama": ["tokenizer.model"], "gpt2": ["vocab.json", "merges.txt"], "mpnet": ["vocab.txt"]}
    for name, cls in CLASSES.items():
        (target / f"{name}_json").mkdir()
        if name in slow:
            (target / f"{name}_slow").mkdir()
            for file in slow[name]:
                shutil.copy(vocabularies / name / file, target / f"{name}_slow" / file)
            made = cls.from_pretrained(target / f"{name}_slow")
            made.backend_tokenizer.save(str(target / f"{name}_json" / "tokenizer.json"))
        else:
            shutil.copy(vocabularies / name / "tokenizer.json", target / f"{name}_json")
    return target


def with_config(folder: Path, target: Path, **config: object) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    name = CLASSES[folder.name.partition("_")[0]].__name__
    (target / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **config}))
    return target


CASES = [
    ("gpt2", "add_prefix_space", True, [18435, 266, 30570, 335, 220, 19526, 254, 25001, 121]),
    ("gpt2", "add_prefix_space", False, [15496, 266, 30570, 335, 220, 19526, 254, 25001, 121]),
    ("neox", "add_prefix_space", True, [24387, 259, 2985, 392, 209, 24553, 34439]),
    ("neox", "add_prefix_space", False, [12092, 259, 2985, 392, 209, 24553, 34439]),
    ("llama", "add_prefix_space", True, [1, 15043, 281, 30128, 29879, 430]),
    ("llama", "add_prefix_space", False, [1, 10994, 281, 30128, 29879, 430]),
    ("mpnet", "do_lower_case", True, None),
    ("mpnet", "do_lower_case", False, None),
    ("mpnet", "strip_accents", True, None),
    ("mpnet", "strip_accents", False, None),
    ("mpnet", "tokenize_chinese_chars", True, None),
    ("mpnet", "tokenize_chinese_chars", False, None),
]
