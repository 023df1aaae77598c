"""The real vocabularies of tests/data/tokenizers, unpacked once, and tokenizers over them."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from tfmodels.tokenization import GPT2Tokenizer, GPTNeoXTokenizer, LlamaTokenizer, MPNetTokenizer

DATA = Path(__file__).parents[1] / "data" / "tokenizers"


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one checkpoint folder per tokenizer: llama, gpt2, neox, mpnet."""
    target = tmp_path_factory.mktemp("vocabularies")
    for name in ("llama", "gpt2", "neox", "mpnet"):
        (target / name).mkdir()
        for source in (DATA / name).iterdir():
            content = source.read_bytes()
            packed = source.suffix == ".xz"
            file = target / name / (source.stem if packed else source.name)
            file.write_bytes(lzma.decompress(content) if packed else content)
    return target


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What sentencepiece and transformers return; see make_expected.py."""
    return json.loads((DATA / "expected.json").read_text())


# Tests that change a tokenizer make their own.


@pytest.fixture(scope="session")
def llama(vocabularies: Path) -> LlamaTokenizer:
    return LlamaTokenizer(vocabularies / "llama" / "tokenizer.model")


@pytest.fixture(scope="session")
def stories(stories260k: Path) -> LlamaTokenizer:
    return LlamaTokenizer(stories260k / "tokenizer.model")


@pytest.fixture(scope="session")
def gpt2(vocabularies: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer(vocabularies / "gpt2" / "vocab.json", vocabularies / "gpt2" / "merges.txt")


@pytest.fixture(scope="session")
def neox(vocabularies: Path) -> GPTNeoXTokenizer:
    return GPTNeoXTokenizer(tokenizer_file=vocabularies / "neox" / "tokenizer.json")


@pytest.fixture(scope="session")
def mpnet(vocabularies: Path) -> MPNetTokenizer:
    return MPNetTokenizer(tokenizer_file=vocabularies / "mpnet" / "tokenizer.json")
