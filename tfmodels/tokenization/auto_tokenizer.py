"""`AutoTokenizer`, which picks a tokenizer class by what a checkpoint says."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmodels.auto import FAMILIES
from tfmodels.checkpoints.formats.gguf import read_header
from tfmodels.configs.base import ModelConfig
from tfmodels.tokenization.conversions.reading import read_json
from tfmodels.tokenization.families import (
    BertTokenizer,
    DistilBertTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    Qwen2Tokenizer,
    RobertaTokenizer,
)
from tfmodels.tokenization.fast import PreTrainedTokenizerFast, load
from tfmodels.tokenization.tokenizer_files import CLASS_KEY, TOKENIZER_FILE, read_config
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# By the names that checkpoints use, without "Fast".
TOKENIZERS = {
    "PreTrainedTokenizer": PreTrainedTokenizerFast,
    "TokenizersBackend": PreTrainedTokenizerFast,
    "LlamaTokenizer": LlamaTokenizer,
    "GPT2Tokenizer": GPT2Tokenizer,
    "GPTNeoXTokenizer": GPTNeoXTokenizer,
    "MPNetTokenizer": MPNetTokenizer,
    "Qwen2Tokenizer": Qwen2Tokenizer,
    "BertTokenizer": BertTokenizer,
    "DistilBertTokenizer": DistilBertTokenizer,
    "RobertaTokenizer": RobertaTokenizer,
}


class AutoTokenizer:
    """Picks the tokenizer class that a checkpoint names: `AutoTokenizer.from_pretrained(folder_or_hub_id)`."""

    def __init__(self) -> None:
        raise TypeError(
            "AutoTokenizer makes no objects of its own; use AutoTokenizer.from_pretrained(folder_or_hub_id)."
        )

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike,
        *,
        config: ModelConfig | Mapping[str, Any] | None = None,
        use_fast: bool = True,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> PreTrainedTokenizerFast:
        """Load the tokenizer of a checkpoint.

        The class is the one that tokenizer_config.json names, else the one that belongs to config.json's model_type,
        else the one that can read the vocabulary files. An unknown class with a tokenizer.json is a
        `PreTrainedTokenizerFast`.

        Args:
            name_or_path: folder, bundled model name, or hub id.
            config: the model's configuration, in place of the folder's config.json.
            use_fast: all tokenizers here are of the fast kind; False warns.
            trust_remote_code: code in a checkpoint is never run; True warns.
            options: as for `PreTrainedTokenizerFast.from_pretrained`.

        Returns:
            The tokenizer.

        Raises:
            FileNotFoundError: there are no vocabulary files that can be read.
            ValueError: the tokenizer class is unknown and there is no tokenizer.json, or a file cannot be used.
            TypeError: an unknown option.
        """
        if not use_fast:
            warn("use_fast=False has no effect: all tokenizers here are of the fast kind.")
        if trust_remote_code:
            warn("trust_remote_code=True has no effect: code in a checkpoint is never run.")
        if options.get("gguf_file") is not None:
            return load(name_or_path, functools.partial(_of_gguf, file=options["gguf_file"]), options)
        if config is not None and not isinstance(config, (ModelConfig, Mapping)):
            raise TypeError(f"config={quote(config)}; a configuration or a dict was expected.")
        values = config.to_dict() if isinstance(config, ModelConfig) else config
        return load(name_or_path, functools.partial(_pick, model_config=values), options)


def _of_gguf(folder: Path, file: str) -> type[PreTrainedTokenizerFast]:
    return TOKENIZERS[FAMILIES[read_header(folder / file).config["model_type"]].tokenizer]


def _pick(folder: Path, model_config: Mapping[str, Any] | None) -> type[PreTrainedTokenizerFast]:
    config = read_config(folder)
    if model_config is None:
        model_config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    name = config.get(CLASS_KEY) or config.get("tokenizer_class") or model_config.get("tokenizer_class")
    named = TOKENIZERS.get(str(name).removesuffix("Fast"))
    # Checkpoints that do not name their tokenizer have the one of their architecture.
    family = FAMILIES.get(str(model_config.get("model_type")))
    by_type = TOKENIZERS[family.tokenizer] if family else None
    has_json = (folder / TOKENIZER_FILE).is_file()
    if named is not None:
        return named
    if has_json:
        return by_type if by_type is not None and name is None else PreTrainedTokenizerFast
    if name is not None:
        raise ValueError(
            f"{folder} names the tokenizer class {quote(name)}, which does not exist here, and has no "
            f"{TOKENIZER_FILE}. "
            f"Classes: {', '.join(TOKENIZERS)}."
        )
    for candidate in (by_type, LlamaTokenizer, GPT2Tokenizer):
        if candidate and all((folder / file).is_file() for file in candidate.vocab_files_names.values()):
            return candidate
    raise FileNotFoundError(
        f"No tokenizer in {folder}: it needs {TOKENIZER_FILE}, tokenizer.model, vocab.json with merges.txt, or, for "
        "MPNet, vocab.txt with a config.json or tokenizer_config.json beside it."
    )
