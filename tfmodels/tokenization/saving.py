"""Writes a tokenizer to a folder: everything, or its vocabulary alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from tfmodels.checkpoints import upload
from tfmodels.checkpoints.upload import PushToHub
from tfmodels.tokenization import pipeline, tokenizer_files
from tfmodels.tokenization.chat import ChatTemplates, checked_templates
from tfmodels.tokenization.decoding import IdsToText
from tfmodels.tokenization.vocabulary import SPECIAL_TOKEN_NAMES
from tfmodels.utils.arguments import SAVING, old_name, settle
from tfmodels.utils.files import is_file_name, staged
from tfmodels.utils.text import quote

# Keys of tokenizer_config.json that are not written again: the other files say them, or they point to code or paths.
NOT_SAVED = ("added_tokens_decoder", "auto_map", "name_or_path", "special_tokens_map_file", "tokenizer_file")


class SavedTokenizer(ChatTemplates, IdsToText, PushToHub):
    """Base of tokenizers: saving."""

    vocab_files_names: ClassVar[dict[str, str]]
    pipeline_options: ClassVar[tuple[str, ...]]
    init_kwargs: dict[str, Any]
    vocab_file: str | None
    use_default_system_prompt: bool
    spaces_between_special_tokens: bool

    @old_name("folder", "save_directory")
    def save_pretrained(
        self, save_directory: str | os.PathLike, *, filename_prefix: str | None = None, **kwargs: Any
    ) -> tuple[str, ...]:
        """Write the tokenizer to a folder, which is made if need be.

        Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and chat templates as .jinja files. The
        folder loads here and in transformers (4 and 5) with equal encodings: tokenizer.json says everything about
        cutting text, and the tokenizer_class written is the one that transformers does not rebuild in its own way.

        Args:
            save_directory: the folder.
            filename_prefix: put before the files' names, with a "-" between.
            kwargs: `push_to_hub=True` with the arguments of `push_to_hub`, and those of transformers that
                `tfmodels.utils.arguments.SAVING` lists.

        Returns:
            The paths written.

        Raises:
            ValueError: `save_directory` is a file; a chat template's name is no file name; an argument asks for what
                there is not.
            TypeError: an unknown argument.
        """
        if isinstance(save_directory, (str, os.PathLike)) and os.path.isfile(save_directory):
            raise ValueError(f"save_directory={quote(str(save_directory))} is a file; name a folder.")
        kwargs.pop("save_jinja_files", None)  # chat templates are always written as such
        push = upload.wanted(settle(kwargs, SAVING, "save_pretrained"), save_directory)
        folder = Path(save_directory)
        prefix = _file_prefix(filename_prefix)
        texts = self._files()
        with staged(folder) as stage:
            for file, text in texts.items():
                tokenizer_files.write_text(stage.folder / f"{prefix}{file}", text)
        push()
        return tuple(str(folder / f"{prefix}{file}") for file in texts)

    def _files(self) -> dict[str, str]:
        """The content of the files that say everything about the tokenizer, by name."""
        special = self.special_tokens_map
        config = {key: value for key, value in self.init_kwargs.items() if key not in NOT_SAVED}
        for key in (*SPECIAL_TOKEN_NAMES, "additional_special_tokens", "extra_special_tokens", "chat_template"):
            config.pop(key, None)
        cutting = {name: getattr(self, name) for name in self.pipeline_options}
        config |= {name: value for name, value in cutting.items() if name in self.init_kwargs or value}
        config |= special
        config |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            tokenizer_files.CLASS_KEY: type(self).__name__,
            "model_max_length": self.model_max_length,
            "model_input_names": self.model_input_names,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "split_special_tokens": self.split_special_tokens,
        }
        plain = {"errors": "replace", "use_default_system_prompt": False, "spaces_between_special_tokens": True}
        for name, default in plain.items():
            if name in self.init_kwargs or getattr(self, name) != default:
                config[name] = getattr(self, name)
        if pipeline.has_template(self._tokenizer):
            config |= {"add_bos_token": self.add_bos_token, "add_eos_token": self.add_eos_token}
        texts = {
            tokenizer_files.TOKENIZER_FILE: self._tokenizer.to_str(pretty=True),
            tokenizer_files.CONFIG_FILE: tokenizer_files.to_json(config),
            tokenizer_files.SPECIAL_TOKENS_FILE: tokenizer_files.to_json(special),
        }
        templates = checked_templates(self.chat_template)
        if isinstance(templates, str):
            templates = {"default": templates}
        for name, template in (templates or {}).items():
            texts[tokenizer_files.chat_template_file(name)] = template
        return texts

    def save_vocabulary(
        self, save_directory: str | os.PathLike, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the vocabulary alone, in the files of the tokenizer's kind, such as vocab.json and merges.txt.

        Args:
            save_directory: the folder, which is made if need be.
            filename_prefix: put before the files' names, with a "-" between.

        Returns:
            The paths written.

        Raises:
            ValueError: the kind has a tokenizer.model, and the tokenizer was not loaded from or beside one;
                `filename_prefix` is no part of a file name.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"save_directory={quote(str(folder))} is a file; name a folder.")
        prefix = _file_prefix(filename_prefix)
        name = self.vocab_files_names["vocab_file"]
        with staged(folder) as stage:
            if name.endswith(".model"):
                if self.vocab_file is None or not Path(self.vocab_file).is_file():
                    raise ValueError(
                        f"save_vocabulary writes a {name}, and this tokenizer has none to copy; save_pretrained "
                        "writes everything as tokenizer.json."
                    )
                name = f"{prefix}{name}"
                shutil.copyfile(self.vocab_file, stage.folder / name)
                names = [name]
            else:
                made = self._tokenizer.model.save(str(stage.folder), prefix.removesuffix("-") or None)
                names = [Path(file).name for file in made]
        return tuple(str(folder / name) for name in names)


def _file_prefix(filename_prefix: str | None) -> str:
    """The text that `filename_prefix` puts before the names of files."""
    if filename_prefix is None or filename_prefix == "":
        return ""
    # With room for the longest of the names.
    if not isinstance(filename_prefix, str) or not is_file_name(f"{filename_prefix}-{'x' * 40}"):
        raise ValueError(f"filename_prefix={quote(filename_prefix)} must be part of a file name.")
    return f"{filename_prefix}-"
