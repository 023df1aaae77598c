"""Small checkpoints with tokenizers: the weights of tests/reference under vocabularies made here.

The recipe of the expected results (data/pipelines/make_expected.py) and the tests load the same folders.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

REFERENCE = Path(__file__).parent / "reference"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "paris", "city", "is", "my", "name", "in", "of", "what", "where", "good", "bad", "day", "live"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC"]
CHAT = (
    "{% for m in messages %}<{{ m['role'][0] }}> {{ m['content'] }} \n{% endfor %}"
    "{% if add_generation_prompt %}<a> {% endif %}"
)

# Name: the folder of tests/reference, the kind of tokenizer, changes to config.json.
CHECKPOINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mpnet_masked_lm": ("mpnet/masked_lm", "wordpiece", {}),
    "mpnet_tokens": ("mpnet/token_cls", "wordpiece", {"id2label": dict(enumerate(TAGS))}),
    "mpnet_answers": ("mpnet/qa", "wordpiece", {}),
    "mpnet_classes": (
        "mpnet/seqcls_single",
        "wordpiece",
        {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}},
    ),
    "mpnet_multi": ("mpnet/seqcls_multi", "wordpiece", {"problem_type": "multi_label_classification"}),
    "mpnet_regression": ("mpnet/seqcls_regression", "wordpiece", {"problem_type": "regression"}),
    "mpnet_bare": ("mpnet/model", "wordpiece", {}),
    "llama_text": ("llama/causal_lm", "bpe", {}),
    "llama_answers": ("llama/qa", "bpe", {}),
    "llama_tokens": ("llama/token_cls", "bpe", {"id2label": dict(enumerate(TAGS))}),
    "llama_classes": ("llama/seqcls_single", "bpe", {"id2label": {0: "ENTAILMENT", 1: "neutral", 2: "no"}}),
    "llama_nopad": ("llama/seqcls_nopad", "bpe", {}),
    "gpt_neo_text": ("gpt_neo/causal_lm", "bpe", {}),
    "gpt_neox_classes": ("gpt_neox/seqcls_single", "bpe", {}),
    "mpt_classes": ("mpt/seqcls_single", "bpe", {}),
}


def make_checkpoint(name: str, folder: Path) -> Path:
    """Write one of CHECKPOINTS into a folder, which is made, and return the folder."""
    source, tokenizer, changes = CHECKPOINTS[name]
    folder.mkdir(parents=True)
    config = json.loads((REFERENCE / source / "config.json").read_text())
    if "id2label" in changes:
        changes = {**changes, "label2id": {label: number for number, label in changes["id2label"].items()}}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    shutil.copy(REFERENCE / source / "model.safetensors", folder)
    longest = config.get("max_position_embeddings") or config.get("max_seq_len")
    {"wordpiece": _wordpiece, "bpe": _bpe}[tokenizer](folder, longest)
    return folder


def _wordpiece(folder: Path, positions: int) -> None:
    """MPNet's tokenizer in small: whole words, and letters, which continue a word as ##letter."""
    special = ["<s>", "<pad>", "</s>", "[UNK]"]
    tokens = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, *".,?!'-é0123456789"]
    tokens = [*tokens, *(f"[unused{index}]" for index in range(99 - len(tokens))), "##ing", "<mask>"]
    backend = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False
    )
    backend.add_special_tokens([AddedToken(token) for token in special])
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    backend.save(str(folder / "tokenizer.json"))
    names = {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "[UNK]",
        "sep": "</s>",
        "pad": "<pad>",
        "cls": "<s>",
        "mask": "<mask>",
    }
    _write(folder, "MPNetTokenizer", names, model_max_length=positions - 2)


def _bpe(folder: Path, positions: int) -> None:
    """Llama's tokenizer in small: pieces that begin with the space before a word."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    merges = [
        "▁ t",
        "▁t h",
        "▁th e",
        "i n",
        "▁ a",
        "i s",
        "▁ is",
        "e r",
        "▁ p",
        "a r",
        "▁p ar",
        "▁par is",
        "o u",
        "in g",
    ]
    letters = [*"▁\n<>", *LETTERS, *LETTERS.upper()[:8], *".,?!'-é0123456789"]
    tokens = [*special, *letters, *("".join(merge.split()) for merge in merges)]
    tokens += [f"<unused{index}>" for index in range(101 - len(tokens))]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split()) for merge in merges]
    backend = Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    backend.add_special_tokens([AddedToken(token) for token in special])
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    _write(
        folder,
        "PreTrainedTokenizerFast",
        names,
        model_max_length=positions,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        chat_template=CHAT,
    )


def _write(folder: Path, name: str, special: dict[str, str], **options: Any) -> None:
    tokens = {f"{kind}_token": token for kind, token in special.items()}
    config = {"tokenizer_class": name, "clean_up_tokenization_spaces": False, **tokens, **options}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
