"""The files of a tokenizer: finding, reading and writing them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tfmodels.tokenization.conversions.reading import read_json, read_text
from tfmodels.tokenization.vocabulary import SPECIAL_TOKEN_NAMES, as_added_token
from tfmodels.utils import files
from tfmodels.utils.json_files import check_kinds, to_text
from tfmodels.utils.text import quote

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
CHAT_TEMPLATE_FOLDER = "additional_chat_templates"

# Own key of tokenizer_config.json: which of our classes wrote it. See `save_pretrained`.
CLASS_KEY = "tfmodels_class"

_EXTRA_TOKENS = ("additional_special_tokens", "extra_special_tokens")
_TOKEN_FLAGS = {"single_word", "lstrip", "rstrip", "normalized", "special"}
# What the values of a tokenizer_config.json are, where another kind would lead to an error without a name.
_KINDS = {
    **dict.fromkeys(("tokenizer_class", "padding_side", "truncation_side", CLASS_KEY), str),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "do_lower_case"), bool),
    **dict.fromkeys(("strip_accents", "tokenize_chinese_chars", "trim_offsets", "split_special_tokens"), bool),
    "clean_up_tokenization_spaces": bool,
    "model_max_length": float,
    "model_input_names": list,
    "added_tokens_decoder": dict,
    "chat_template": (str, list, dict),
}


def read_config(folder: Path) -> dict[str, Any]:
    """Read all that a folder says about its tokenizer beside the vocabulary.

    Args:
        folder: a checkpoint folder.

    Returns:
        tokenizer_config.json with the special tokens, added tokens and chat templates of the other files; empty
        without them.

    Raises:
        ValueError: a file is broken.
    """
    config, special, added = (
        read_json(folder / file) if (folder / file).is_file() else {}
        for file in (CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE)
    )
    _check_config(config, str(folder / CONFIG_FILE))
    _check_tokens(special, str(folder / SPECIAL_TOKENS_FILE))
    for token, index in added.items():
        if type(index) is not int:
            raise ValueError(f"{folder / ADDED_TOKENS_FILE}: {quote(token)} has the id {quote(index)}, no integer.")
    if "added_tokens_decoder" not in config:  # files that have it are newer, and name all their tokens themselves
        if isinstance(listed := special.get("additional_special_tokens"), list):
            both = [*(config.get("additional_special_tokens") or ()), *listed]
            # In the order of their first mention, with the flags of the last one.
            by_text = {str(as_added_token(token)): token for token in both}
            special = {**special, "additional_special_tokens": list(by_text.values())}
        config = {**config, **special}
        named, listed = ({str(as_added_token(token)): token for token in tokens} for tokens in _special_tokens(config))
        flags = {text: token for text, token in listed.items() if isinstance(token, dict)}
        config["added_tokens_decoder"] = {
            index: {"content": token, **flags.get(token, {}), "special": token in {*named, *listed}}
            for token, index in added.items()
        }
    templates = {path.stem: read_text(path) for path in (folder / CHAT_TEMPLATE_FOLDER).glob("*.jinja")}
    if (folder / CHAT_TEMPLATE_FILE).is_file():
        templates["default"] = read_text(folder / CHAT_TEMPLATE_FILE)
    if templates:
        config["chat_template"] = templates["default"] if set(templates) == {"default"} else templates
    return config


def _special_tokens(config: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The tokens with a role, and the additional ones."""
    additional = config.get("additional_special_tokens")
    named = [config[name] for name in SPECIAL_TOKEN_NAMES if config.get(name) is not None]
    return named, additional if isinstance(additional, list) else []


def _check_config(config: dict[str, Any], what: str) -> None:
    check_kinds(config, _KINDS, what)
    _check_tokens(config, what)
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        if not (index.isascii() and index.isdigit() and len(index) < 10):
            raise ValueError(f"{what}: added_tokens_decoder has the key {quote(index)}; a token's id was expected.")
        _check_token(token, f"{what}: token {index} of added_tokens_decoder")
    names = config.get("model_input_names") or []
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what}: model_input_names holds {quote(names)}; names were expected.")


def _check_tokens(config: dict[str, Any], what: str) -> None:
    for name in SPECIAL_TOKEN_NAMES:
        if config.get(name) is not None:
            _check_token(config[name], f"{what}: {name}")
    check_kinds(config, dict.fromkeys(_EXTRA_TOKENS, (list, dict)), what)
    for name in _EXTRA_TOKENS:
        tokens = config.get(name) or []
        for token in tokens.values() if isinstance(tokens, dict) else tokens:
            _check_token(token, f"{what}: {name}")


def _check_token(token: Any, what: str) -> None:
    if isinstance(token, dict) and isinstance(token.get("content"), str):
        flags = {key: value for key, value in token.items() if key not in ("content", "__type")}
        if set(flags) <= _TOKEN_FLAGS and all(isinstance(value, bool) for value in flags.values()):
            return
    elif isinstance(token, str):
        return
    raise ValueError(f"{what} is {quote(token)}; text, or an object with content and true or false, was expected.")


def chat_template_file(name: str) -> str:
    """The file, inside a checkpoint folder, of the chat template of this name.

    Example:
        >>> chat_template_file("default"), chat_template_file("tool_use")
        ('chat_template.jinja', 'additional_chat_templates/tool_use.jinja')

    Raises:
        ValueError: the name is no plain file name.
    """
    if not re.fullmatch(r"[^/\\:*?\[\]\0.][^/\\:*?\[\]\0]*", name) or not files.is_file_name(f"{name}.jinja"):
        raise ValueError(f"The chat template is named {quote(name)}, which is not a file name; it cannot be saved.")
    return CHAT_TEMPLATE_FILE if name == "default" else f"{CHAT_TEMPLATE_FOLDER}/{name}.jinja"


def to_json(content: dict[str, Any]) -> str:
    def default(value: Any) -> Any:
        return {"__type": "AddedToken", **value.__getstate__()} if isinstance(value, AddedToken) else dict(value)

    return to_text(content, CONFIG_FILE, sort_keys=True, default=default)


def write_text(path: Path, text: str) -> None:
    files.make_folder(path.parent)
    files.write_text(path, text)
