"""The tokenizers of the model families, and `AutoTokenizer`, which picks one by what a checkpoint says."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, processors

from tfmodels.auto import FAMILIES
from tfmodels.tokenization import convert
from tfmodels.tokenization.fast import PreTrainedTokenizerFast
from tfmodels.tokenization.tokenizer_files import CLASS_KEY, TOKENIZER_FILE, load, read_config


class LlamaTokenizer(PreTrainedTokenizerFast):
    """Llama's tokenizer, from a tokenizer.json or a tokenizer.model (SentencePiece, or Llama 3's tiktoken file).

    Text is cut exactly as SentencePiece does (Touvron et al. 2023, https://arxiv.org/abs/2302.13971), with special
    tokens found in the text beside that. A bos token goes in front; rows are padded on the left, as generation wants
    it.

    Args:
        vocab_file: a tokenizer.model.
        tokenizer_file: a tokenizer.json.
        legacy: whether text behind a special token also gets a space in front, as the first Llama tokenizers did;
            default: no, for a tokenizer.json what it says.
        add_prefix_space: whether text gets a space in front; default: what the files say.
        options: as for `PreTrainedTokenizerFast`; add_bos_token (default True) and add_eos_token (default False).

    Example:
        >>> from tfmodels.checkpoints.bundled import folder
        >>> tokenizer = LlamaTokenizer(folder("stories260K") / "tokenizer.model")
        >>> tokenizer.tokenize("Once upon a time")
        ['▁Once', '▁upon', '▁a', '▁time']
        >>> tokenizer("Once upon a time")["input_ids"]
        [1, 403, 407, 261, 378]
    """

    pipeline_options = ("legacy", "add_prefix_space")
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    default_add_bos_token = True
    padding_side = "left"


class GPT2Tokenizer(PreTrainedTokenizerFast):
    """Byte-level BPE of GPT-2 and GPT-Neo, from a tokenizer.json or vocab.json and merges.txt (Radford et al. 2019).

    There is no padding token; set one before padding. With `is_split_into_words=True` words are joined without spaces
    unless `add_prefix_space=True`.

    Args:
        vocab_file: a vocab.json.
        merges_file: a merges.txt.
        tokenizer_file: a tokenizer.json.
        add_prefix_space: whether text gets a space in front; default False, for a tokenizer.json what it says.
        trim_offsets: whether offsets leave out the space before a word; default False, for a tokenizer.json what it
            says.
        options: as for `PreTrainedTokenizerFast`.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    pipeline_options = ("add_prefix_space", "trim_offsets")
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    _nfc = False

    @classmethod
    def _convert(cls, files: dict[str, Path], config: dict[str, Any]) -> tuple[Tokenizer, dict]:
        return convert.byte_level_backend(files["vocab_file"], files["merges_file"], nfc=cls._nfc), {}


class GPTNeoXTokenizer(GPT2Tokenizer):
    """Byte-level BPE of GPT-NeoX, Pythia and MPT (Black et al. 2022, https://arxiv.org/abs/2204.06745).

    As GPT-2's, but characters are composed (NFC) first, offsets leave out the space before a word (`trim_offsets`),
    and <|padding|> is the padding token where the vocabulary has it.
    """

    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        **GPT2Tokenizer.default_special_tokens,
        "pad_token": "<|padding|>",
    }
    _nfc = True


class MPNetTokenizer(PreTrainedTokenizerFast):
    """WordPiece of MPNet, from a tokenizer.json or a vocab.txt (Song et al. 2020, https://arxiv.org/abs/2004.09297).

    Texts become <s> text </s>, pairs <s> text </s></s> text_pair </s>. The unknown token is [UNK], although the
    vocabulary also has an <unk>.

    Args:
        vocab_file: a vocab.txt.
        tokenizer_file: a tokenizer.json.
        do_lower_case: default True.
        strip_accents: default: as `do_lower_case`.
        tokenize_chinese_chars: whether each Chinese character is a word; default True.
        options: as for `PreTrainedTokenizerFast`.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}
    pipeline_options = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "[UNK]",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    }

    @classmethod
    def _convert(cls, files: dict[str, Path], config: dict[str, Any]) -> tuple[Tokenizer, dict]:
        return convert.word_piece_backend(files["vocab_file"], str(cls.default_special_tokens["unk_token"])), {}

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        self._tokenizer.post_processor = processors.RobertaProcessing(
            (self.sep_token, self.sep_token_id), (self.cls_token, self.cls_token_id), add_prefix_space=False
        )


LlamaTokenizerFast = LlamaTokenizer
GPT2TokenizerFast = GPT2Tokenizer
GPTNeoXTokenizerFast = GPTNeoXTokenizer
MPNetTokenizerFast = MPNetTokenizer

# By the names that checkpoints use, without "Fast".
TOKENIZERS = {
    "PreTrainedTokenizer": PreTrainedTokenizerFast,
    "TokenizersBackend": PreTrainedTokenizerFast,
    "LlamaTokenizer": LlamaTokenizer,
    "GPT2Tokenizer": GPT2Tokenizer,
    "GPTNeoXTokenizer": GPTNeoXTokenizer,
    "MPNetTokenizer": MPNetTokenizer,
}


class AutoTokenizer:
    """Picks the tokenizer class that a checkpoint names: `AutoTokenizer.from_pretrained(folder_or_hub_id)`."""

    def __init__(self) -> None:
        raise TypeError(
            "AutoTokenizer makes no objects of its own; use AutoTokenizer.from_pretrained(folder_or_hub_id)."
        )

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike, *, use_fast: bool = True, trust_remote_code: bool = False, **options: Any
    ) -> PreTrainedTokenizerFast:
        """Load the tokenizer of a checkpoint.

        The class is the one that tokenizer_config.json names, else the one that belongs to config.json's model_type,
        else the one that can read the vocabulary files. An unknown class with a tokenizer.json is a
        `PreTrainedTokenizerFast`.

        Args:
            name_or_path: folder, bundled model name, or hub id.
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
            warnings.warn("use_fast=False has no effect: all tokenizers here are of the fast kind.", stacklevel=2)
        if trust_remote_code:
            warnings.warn("trust_remote_code=True has no effect: code in a checkpoint is never run.", stacklevel=2)
        return load(name_or_path, _pick if options.get("gguf_file") is None else _of_gguf, options)


def _of_gguf(folder: Path) -> type[PreTrainedTokenizerFast]:
    return LlamaTokenizer  # the one architecture that is read from such files


def _pick(folder: Path) -> type[PreTrainedTokenizerFast]:
    config = read_config(folder)
    model_config = convert.read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    name = config.get(CLASS_KEY) or config.get("tokenizer_class") or model_config.get("tokenizer_class")
    named = TOKENIZERS.get(str(name).removesuffix("Fast"))
    # Checkpoints that do not name their tokenizer have the one of their architecture.
    family = FAMILIES.get(model_config.get("model_type", ""))
    by_type = TOKENIZERS[family.tokenizer] if family else None
    has_json = (folder / TOKENIZER_FILE).is_file()
    if named is not None:
        return named
    if has_json:
        return by_type if by_type is not None and name is None else PreTrainedTokenizerFast
    if name is not None:
        raise ValueError(
            f"{folder} names the tokenizer class {name!r}, which does not exist here, and has no {TOKENIZER_FILE}. "
            f"Classes: {', '.join(TOKENIZERS)}."
        )
    for candidate in (by_type, LlamaTokenizer, GPT2Tokenizer):
        if candidate and all((folder / file).is_file() for file in candidate.vocab_files_names.values()):
            return candidate
    raise FileNotFoundError(
        f"No tokenizer in {folder}: it needs {TOKENIZER_FILE}, tokenizer.model, vocab.json with merges.txt, or, for "
        "MPNet, vocab.txt with a config.json or tokenizer_config.json beside it."
    )
