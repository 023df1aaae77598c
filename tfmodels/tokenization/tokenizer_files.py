"""The files of a tokenizer: finding, reading and writing them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tfmodels.tokenization.conversions.reading import read_json
from tfmodels.tokenization.vocabulary import as_added_token
from tfmodels.utils import files
from tfmodels.utils.text import quote

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
CHAT_TEMPLATE_FOLDER = "additional_chat_templates"

# Own key of tokenizer_config.json: which of our classes wrote it. See `save_pretrained`.
CLASS_KEY = "tfmodels_class"


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
    if "added_tokens_decoder" in config:  # such files are newer, and name all their tokens themselves
        config = {**special, **config}
    else:
        config = {**config, **special}
        names = {str(as_added_token(token)) for token in special.values() if not isinstance(token, list)}
        config["added_tokens_decoder"] = {
            index: {"content": token, "special": token in names} for token, index in added.items()
        }
    templates = {path.stem: path.read_text("utf-8") for path in (folder / CHAT_TEMPLATE_FOLDER).glob("*.jinja")}
    if (folder / CHAT_TEMPLATE_FILE).is_file():
        templates["default"] = (folder / CHAT_TEMPLATE_FILE).read_text("utf-8")
    if templates:
        config["chat_template"] = templates["default"] if set(templates) == {"default"} else templates
    return config


def chat_template_file(name: str) -> str:
    """The file, inside a checkpoint folder, of the chat template of this name.

    Example:
        >>> chat_template_file("default"), chat_template_file("tool_use")
        ('chat_template.jinja', 'additional_chat_templates/tool_use.jinja')

    Raises:
        ValueError: the name is no plain file name.
    """
    if not re.fullmatch(r"[^/\\:*?\[\]\0.][^/\\:*?\[\]\0]*", name):
        raise ValueError(f"The chat template is named {quote(name)}, which is not a file name; it cannot be saved.")
    return CHAT_TEMPLATE_FILE if name == "default" else f"{CHAT_TEMPLATE_FOLDER}/{name}.jinja"


def to_json(content: dict[str, Any]) -> str:
    def default(value: Any) -> Any:
        return {"__type": "AddedToken", **value.__getstate__()} if isinstance(value, AddedToken) else dict(value)

    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=default) + "\n"


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
