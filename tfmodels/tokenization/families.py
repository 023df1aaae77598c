"""The tokenizers of the model families."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, processors

from tfmodels.tokenization import pipeline
from tfmodels.tokenization.conversions.byte_level import QWEN2_PATTERN, byte_level_backend
from tfmodels.tokenization.conversions.values import byte_level_values, word_piece_values
from tfmodels.tokenization.conversions.word_piece import word_piece_backend
from tfmodels.tokenization.fast import PreTrainedTokenizerFast
from tfmodels.tokenization.options import PipelineOption


class LlamaTokenizer(PreTrainedTokenizerFast):
    """Llama's tokenizer, from a tokenizer.json or a tokenizer.model (SentencePiece, or Llama 3's tiktoken file).

    Text is cut exactly as SentencePiece does (Touvron et al. 2023, https://arxiv.org/abs/2302.13971), with special
    tokens found in the text beside that. A bos token goes in front; rows are padded on the left, as generation wants
    it.

    Args:
        vocab_file: a tokenizer.model.
        tokenizer_file: a tokenizer.json.
        legacy: whether text behind a special token also gets a space in front, as the first Llama tokenizers did;
            default: no, for a tokenizer.json what it says. False, given or in tokenizer_config.json beside a
            tokenizer.model, also leaves out the space before a text that begins with one, as transformers does.
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
    legacy = PipelineOption()
    _cleans_bpe = True
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    default_add_bos_token = True
    config_frames = True
    padding_side = "left"


class GPT2Tokenizer(PreTrainedTokenizerFast):
    """Byte-level BPE of GPT-2 and GPT-Neo, from a tokenizer.json or vocab.json and merges.txt (Radford et al. 2019).

    There is no padding token; set one before padding. `is_split_into_words=True` needs `add_prefix_space=True`:
    without spaces words would be read as one.

    Args:
        vocab_file: a vocab.json.
        merges_file: a merges.txt.
        tokenizer_file: a tokenizer.json.
        add_prefix_space: whether text gets a space in front; default False, also where a folder's tokenizer.json says
            otherwise; for `tokenizer_file` and `tokenizer_object` what they say.
        trim_offsets: whether offsets leave out the space before a word; default False, for a tokenizer.json what it
            says.
        options: as for `PreTrainedTokenizerFast`.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    pipeline_options = ("add_prefix_space", "trim_offsets")
    trim_offsets = PipelineOption()
    # How text is cut before merging; None is GPT-2's way.
    pattern: ClassVar[str | None] = None
    config_defaults: ClassVar[dict[str, Any]] = {"add_prefix_space": False}
    _cleans_bpe = True
    _words_need_spaces = True
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    _nfc = False

    @classmethod
    def _from_vocabulary(cls, vocab: Any, merges: Any) -> Tokenizer:
        return byte_level_values(vocab, merges, nfc=cls._nfc, pattern=cls.pattern)

    @classmethod
    def _convert(cls, files: dict[str, Path], config: dict[str, Any]) -> tuple[Tokenizer, dict]:
        options = {"nfc": cls._nfc, "pattern": cls.pattern}
        return byte_level_backend(files["vocab_file"], files["merges_file"], **options), {}


class GPTNeoXTokenizer(GPT2Tokenizer):
    """Byte-level BPE of GPT-NeoX, Pythia and MPT (Black et al. 2022, https://arxiv.org/abs/2204.06745).

    As GPT-2's, but characters are composed (NFC) first, words of `is_split_into_words=True` may come without spaces,
    and <|padding|> is the padding token where the vocabulary has it. Whether texts get bos and eos tokens is what
    tokenizer_config.json says, no if it is silent: a template of the tokenizer.json does not count. Offsets hold the
    space before a word, whatever `trim_offsets` says.
    """

    pipeline_options = ("add_prefix_space",)
    _words_need_spaces = False

    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        **GPT2Tokenizer.default_special_tokens,
        "pad_token": "<|padding|>",
    }
    config_defaults: ClassVar[dict[str, Any]] = {
        **GPT2Tokenizer.config_defaults,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    config_frames = True
    _nfc = True

    def _setup(self, backend: Tokenizer, *others: Any) -> None:
        if "trim_offsets" in pipeline.options_of(backend):
            pipeline.configure(backend, trim_offsets=False)
        super()._setup(backend, *others)


class Qwen2Tokenizer(GPT2Tokenizer):
    """Byte-level BPE of Qwen 2 and 3 (Yang et al. 2024, https://arxiv.org/abs/2407.10671).

    As GPT-2's, but characters are composed (NFC) first, text is cut by other rules, digits one by one, and
    <|endoftext|> also pads.
    """

    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    pattern = QWEN2_PATTERN
    _nfc = True
    _words_need_spaces = False


class RobertaTokenizer(GPT2Tokenizer):
    """Byte-level BPE of RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692).

    As GPT-2's, but texts become <s> text </s>, pairs <s> text </s></s> text_pair </s>, and offsets leave out the space
    before a word.
    """

    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    }

    config_defaults: ClassVar[dict[str, Any]] = {"add_prefix_space": False, "trim_offsets": True}

    def update_post_processor(self) -> None:
        """Put the present cls and sep tokens around texts."""
        self._frame(self.trim_offsets)

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        self._frame(self.init_kwargs.get("trim_offsets") in (None, True))

    def _frame(self, trim_offsets: bool) -> None:
        self._tokenizer.post_processor = processors.RobertaProcessing(
            (self.sep_token, self.sep_token_id),
            (self.cls_token, self.cls_token_id),
            trim_offsets=trim_offsets,
            add_prefix_space=self.add_prefix_space,
        )


class WordPieceTokenizer(PreTrainedTokenizerFast):
    """Base of the tokenizers with WordPiece (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}
    pipeline_options = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    do_lower_case = PipelineOption()
    strip_accents = PipelineOption(None)
    tokenize_chinese_chars = PipelineOption()

    @classmethod
    def _from_vocabulary(cls, vocab: Any, merges: Any) -> Tokenizer:
        return word_piece_values(vocab, str(cls.default_special_tokens["unk_token"]))

    @classmethod
    def _convert(cls, files: dict[str, Path], config: dict[str, Any]) -> tuple[Tokenizer, dict]:
        return word_piece_backend(files["vocab_file"], str(cls.default_special_tokens["unk_token"])), {}

    def update_post_processor(self) -> None:
        """Put the present cls and sep tokens around texts."""
        self._set_post_processor({})


class BertTokenizer(WordPieceTokenizer):
    """WordPiece of BERT, from a tokenizer.json or a vocab.txt (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).

    Texts become [CLS] text [SEP], pairs [CLS] text [SEP] text_pair [SEP], with the token type 1 from `text_pair` on.

    Args:
        vocab_file: a vocab.txt.
        tokenizer_file: a tokenizer.json.
        do_lower_case: default True.
        strip_accents: default: as `do_lower_case`.
        tokenize_chinese_chars: whether each Chinese character is a word; default True.
        options: as for `PreTrainedTokenizerFast`.

    Example:
        >>> tokenizer = BertTokenizer(vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing"])
        >>> tokenizer("Playing", "play")
        {'input_ids': [2, 5, 6, 3, 5, 3], 'token_type_ids': [0, 0, 0, 0, 1, 1], 'attention_mask': [1, 1, 1, 1, 1, 1]}
    """

    model_input_names = ("input_ids", "token_type_ids", "attention_mask")
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        first, last = "$CLS:0 $A:0 $SEP:0", "$B:1 $SEP:1"
        names = {"$CLS": self.cls_token, "$SEP": self.sep_token}
        for name, token in names.items():
            first, last = first.replace(name, token), last.replace(name, token)
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=first,
            pair=f"{first} {last}",
            special_tokens=[(self.cls_token, self.cls_token_id), (self.sep_token, self.sep_token_id)],
        )


class DistilBertTokenizer(BertTokenizer):
    """WordPiece of DistilBERT: BERT's, without token types (Sanh et al. 2019, https://arxiv.org/abs/1910.01108)."""

    model_input_names = ("input_ids", "attention_mask")


class MPNetTokenizer(WordPieceTokenizer):
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

    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "[UNK]",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    }

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        self._tokenizer.post_processor = processors.RobertaProcessing(
            (self.sep_token, self.sep_token_id), (self.cls_token, self.cls_token_id), add_prefix_space=False
        )


LlamaTokenizerFast = LlamaTokenizer
GPT2TokenizerFast = GPT2Tokenizer
GPTNeoXTokenizerFast = GPTNeoXTokenizer
MPNetTokenizerFast = MPNetTokenizer
Qwen2TokenizerFast = Qwen2Tokenizer
BertTokenizerFast = BertTokenizer
RobertaTokenizerFast = RobertaTokenizer
DistilBertTokenizerFast = DistilBertTokenizer
