"""The tokenizer: its constructor, its options, loading and saving."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer

from tfmodels.tokenization import pipeline, tokenizer_files
from tfmodels.tokenization.chat import ChatTemplates, checked_templates
from tfmodels.tokenization.conversions.model_file import model_file_backend
from tfmodels.tokenization.decoding import IdsToText
from tfmodels.tokenization.rows import NO_MAX_LENGTH, SIDES
from tfmodels.tokenization.vocabulary import SPECIAL_TOKEN_NAMES, added_tokens, one_of

# What of a tokenizer_config.json says nothing once the tokenizer is loaded, or would point to code or paths elsewhere.
_NOT_SAVED = ("added_tokens_decoder", "auto_map", "name_or_path", "special_tokens_map_file", "tokenizer_file")

# Arguments of every tokenizer's constructor, beside the pipeline options of its class.
_OPTIONS = (
    *SPECIAL_TOKEN_NAMES,
    "additional_special_tokens",
    "extra_special_tokens",
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "split_special_tokens",
    "add_bos_token",
    "add_eos_token",
    "chat_template",
)


class PreTrainedTokenizerFast(ChatTemplates, IdsToText):
    """Turns text into token ids, with the masks that models want, and ids back into text.

    Args:
        vocab_file: a `tokenizer.model` (SentencePiece or tiktoken); subclasses name other files.
        merges_file: the merges of a byte-level BPE `vocab.json`.
        tokenizer_file: a `tokenizer.json` of the `tokenizers` library.
        tokenizer_object: a `tokenizers.Tokenizer`; it is copied.
        options: special tokens (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token,
            additional_special_tokens), model_max_length (tokens), padding_side and truncation_side ("left" or
            "right"), model_input_names, add_bos_token and add_eos_token (put around every text), split_special_tokens
            (cut special tokens found in the text like other text), clean_up_tokenization_spaces (when decoding),
            chat_template, and those of `pipeline_options`, explained at `tokenization.pipeline.configure`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be used, or an option has a wrong value.
        TypeError: an unknown option.

    Padding and truncation stored in a tokenizer.json are not used: calls do what they are asked to.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> words = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "two": 2}, unk_token="<unk>"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
        >>> tokenizer(["one two", "two"], padding=True)
        {'input_ids': [[1, 2], [2, 3]], 'attention_mask': [[1, 1], [1, 0]]}
        >>> tokenizer.decode([1, 2])
        'one two'
    """

    # Constructor argument -> file name in a checkpoint folder, for folders without a tokenizer.json.
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "tokenizer.model"}
    # Options that change how text is cut. Where there is a tokenizer.json it has the last word over
    # tokenizer_config.json, as the two often disagree; only an argument of the caller's changes it.
    pipeline_options: ClassVar[tuple[str, ...]] = ("add_prefix_space",)
    # Used where nothing else names them, as far as they are in the vocabulary.
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {}
    default_add_bos_token: ClassVar[bool] = False

    is_fast = True

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        merges_file: str | os.PathLike | None = None,
        *,
        tokenizer_file: str | os.PathLike | None = None,
        tokenizer_object: Tokenizer | None = None,
        **options: Any,
    ):
        if tokenizer_object is not None:
            self._setup(Tokenizer.from_str(tokenizer_object.to_str()), {}, True, options, {})
        else:
            files = {"tokenizer_file": tokenizer_file, "vocab_file": vocab_file, "merges_file": merges_file}
            files = {name: Path(path) for name, path in files.items() if path is not None}
            self._setup(*self._backend(files, {}), options, {})

    # -----------------------------------------------------------------------------------------------------------------
    # Loading and saving

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **options: Any) -> PreTrainedTokenizerFast:
        """Load a tokenizer from a checkpoint folder or the hub.

        Args:
            name_or_path: folder, bundled model name, or hub id such as "openlm-research/open_llama_3b".
            options: where to find it (revision, token, cache_dir, local_files_only, force_download, subfolder;
                gguf_file for the one in a GGUF file), and what the constructor takes, which goes before what the
                files say.

        Returns:
            A tokenizer of this class.

        Raises:
            FileNotFoundError: the folder has no file that this class can read.
            ValueError: a file cannot be used.
            TypeError: an unknown option.
        """
        return load(name_or_path, lambda folder: cls, options)

    @classmethod
    def from_folder(cls, folder: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizerFast:
        """Load from a local folder; `from_pretrained` comes here when it has found one."""
        config = tokenizer_files.read_config(folder)
        files = {key: folder / file for key, file in cls.vocab_files_names.items()}
        if (folder / tokenizer_files.TOKENIZER_FILE).is_file():
            files = {"tokenizer_file": folder / tokenizer_files.TOKENIZER_FILE}
        elif missing := [path.name for path in files.values() if not path.is_file()]:
            wanted = f"{tokenizer_files.TOKENIZER_FILE}, or {' and '.join(missing)}"
            raise FileNotFoundError(f"No tokenizer for {cls.__name__} in {folder}: it needs {wanted}.")
        tokenizer = cls.__new__(cls)
        tokenizer._setup(*cls._backend(files, config), options, config)
        tokenizer.name_or_path = name
        return tokenizer

    @classmethod
    def from_gguf(cls, path: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizerFast:
        """Load from a GGUF file; `from_pretrained` comes here for `gguf_file=`."""
        from tfmodels.tokenization.conversions.gguf import read_gguf

        backend, config = read_gguf(path)
        tokenizer = cls.__new__(cls)
        tokenizer._setup(backend, {}, False, options, config)
        tokenizer.name_or_path = name
        return tokenizer

    @classmethod
    def _backend(
        cls, files: dict[str, Path], config: dict[str, Any]
    ) -> tuple[Tokenizer, dict[str, str | AddedToken], bool]:
        """The backend, the special tokens that the files imply, and whether the files say how text is cut."""
        path = files.get("tokenizer_file")
        if path is None:
            if set(files) != set(cls.vocab_files_names):
                wanted = " and ".join(cls.vocab_files_names)
                raise ValueError(f"{cls.__name__} needs tokenizer_file, tokenizer_object, or {wanted}.")
            return (*cls._convert(files, config), False)
        if not path.is_file():
            raise FileNotFoundError(f"No tokenizer file at {path}.")
        try:
            return Tokenizer.from_file(str(path)), {}, True
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path} is not a tokenizer that the tokenizers library can read: {error}.") from error

    @classmethod
    def _convert(cls, files: dict[str, Path], config: dict[str, Any]) -> tuple[Tokenizer, dict[str, str | AddedToken]]:
        """Build the backend, and the special tokens implied, from all of `vocab_files_names`."""
        return model_file_backend(files["vocab_file"], added_tokens(config))

    def _setup(
        self,
        backend: Tokenizer,
        implied: dict[str, str | AddedToken],
        complete: bool,
        options: dict[str, Any],
        config: dict[str, Any],
    ) -> None:
        """Take the backend and set everything else: options first, then what the files say, then the class's defaults.

        Args:
            backend: ours to change.
            implied: special tokens that the vocabulary files imply.
            complete: whether `backend` comes from a tokenizer.json, which says itself how text is cut.
            options: the caller's, checked for unknown names.
            config: tokenizer_config.json with the tokens of the other files; unknown keys are kept.
        """
        self._check_options(options)
        self._tokenizer = backend
        self._lock = threading.Lock()
        self._warned = False
        self.name_or_path = ""
        self.init_kwargs = {**config, **options}
        baked_padding = backend.padding
        backend.no_padding()
        backend.no_truncation()

        wanted = {} if complete else {name: config.get(name) for name in self.pipeline_options}
        wanted.update({name: options[name] for name in self.pipeline_options if name in options})
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if wanted:
            pipeline.configure(backend, **wanted)

        given = self.init_kwargs
        self._add_stored_tokens(added_tokens(config))
        defaults = {**self.default_special_tokens, **implied}
        if baked_padding:
            defaults.setdefault("pad_token", baked_padding["pad_token"])
        self._set_special_tokens(given, defaults)

        self.model_max_length = given.get("model_max_length") or NO_MAX_LENGTH
        self.model_input_names = list(given.get("model_input_names") or type(self).model_input_names)
        self.padding_side = one_of("padding_side", given.get("padding_side") or type(self).padding_side, SIDES)
        self.truncation_side = one_of(
            "truncation_side", given.get("truncation_side") or type(self).truncation_side, SIDES
        )
        self.clean_up_tokenization_spaces = bool(given.get("clean_up_tokenization_spaces") or False)
        self.split_special_tokens = bool(given.get("split_special_tokens") or False)
        self.chat_template = checked_templates(given.get("chat_template"))

        if not complete or backend.post_processor is None:
            self._set_post_processor(config)
        wishes = {name: options[name] for name in ("add_bos_token", "add_eos_token") if options.get(name) is not None}
        for name, wish in wishes.items():
            setattr(self, name, wish)

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        """Add special tokens to texts as this kind of model wants them; called where no file says it."""
        bos = config.get("add_bos_token", self.default_add_bos_token)
        eos = config.get("add_eos_token", False)
        pipeline.set_template(self._tokenizer, self.bos_token if bos else None, self.eos_token if eos else None)

    def _check_options(self, options: dict[str, Any]) -> None:
        known = {*_OPTIONS, *self.pipeline_options}
        unknown = sorted(set(options) - known)
        if unknown:
            raise TypeError(
                f"{type(self).__name__} got unknown arguments {', '.join(unknown)}; "
                f"it knows {', '.join(sorted(known))}."
            )

    def save_pretrained(self, save_directory: str | os.PathLike) -> tuple[str, ...]:
        """Write the tokenizer to a folder, which is made if need be.

        Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and chat templates as .jinja files. The
        folder loads here and in transformers (4 and 5) with equal encodings: tokenizer.json says everything about
        cutting text, and the tokenizer_class written is the one that transformers does not rebuild in its own way.

        Args:
            save_directory: the folder.

        Returns:
            The paths written.

        Raises:
            ValueError: `save_directory` is a file.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"save_directory={str(folder)!r} is a file; name a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        special: dict[str, Any] = dict(self.special_tokens_map)
        if self._additional:
            special["additional_special_tokens"] = self.additional_special_tokens
        config = {key: value for key, value in self.init_kwargs.items() if key not in _NOT_SAVED}
        for key in (*SPECIAL_TOKEN_NAMES, "additional_special_tokens", "extra_special_tokens", "chat_template"):
            config.pop(key, None)
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
        for file, text in texts.items():
            tokenizer_files.write_text(folder / file, text)
        return tuple(str(folder / file) for file in texts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )


def load(
    name_or_path: str | os.PathLike, choose: Callable[[Path], type[PreTrainedTokenizerFast]], options: dict[str, Any]
) -> PreTrainedTokenizerFast:
    """Find a checkpoint's folder, on the hub if need be, and load the tokenizer in it.

    Args:
        name_or_path: folder, bundled model name, or hub id.
        choose: the class for a folder.
        options: those of `checkpoints.hub.resolve`, and those of the class's constructor.

    Returns:
        The tokenizer.
    """
    from tfmodels.checkpoints import hub  # here, so that tokenizers of single files do without it

    where, options = hub.split_options(options)
    patterns = (*hub.TOKENIZER_FILES, f"{tokenizer_files.CHAT_TEMPLATE_FOLDER}/*.jinja", "config.json")
    folder = hub.resolve(name_or_path, patterns=patterns, **where)
    if gguf_file := where.get("gguf_file"):
        return choose(folder).from_gguf(folder / gguf_file, str(name_or_path), options)
    return choose(folder).from_folder(folder, str(name_or_path), options)
