"""The tokenizer: its constructor, its options, loading and saving."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokenizers import AddedToken, Tokenizer

from tfmodels.checkpoints import hub
from tfmodels.runtime.memory import trim_heap
from tfmodels.tokenization import pipeline, tokenizer_files
from tfmodels.tokenization.chat import checked_templates
from tfmodels.tokenization.conversions.model_file import model_file_backend
from tfmodels.tokenization.conversions.reading import check_ids, library_errors, read_text
from tfmodels.tokenization.conversions.values import spaced_bpe_backend
from tfmodels.tokenization.options import BPE_CLEAN_UP, PipelineOption, check_options, checked_errors, warn_idle
from tfmodels.tokenization.retrain import retrained
from tfmodels.tokenization.rows import NO_MAX_LENGTH, SIDES
from tfmodels.tokenization.saving import NOT_SAVED, SavedTokenizer
from tfmodels.tokenization.vocabulary import added_tokens, as_added_token, named_special_tokens, one_of
from tfmodels.utils.arguments import errors_name_class

if TYPE_CHECKING:
    from typing_extensions import Self

# Options in tokenizer_config.json that go before a tokenizer.json, as in transformers.
_CONFIG_COUNTS = ("add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars")


@errors_name_class
class PreTrainedTokenizerFast(SavedTokenizer):
    """Turns text into token ids, with the masks that models want, and ids back into text.

    Args:
        vocab_file: a `tokenizer.model` (SentencePiece or tiktoken); subclasses name other files.
        merges_file: the merges of a byte-level BPE `vocab.json`.
        tokenizer_file: a `tokenizer.json` of the `tokenizers` library.
        tokenizer_object: a `tokenizers.Tokenizer`; it is copied.
        vocab: the vocabulary itself, ids by token, or the file `vocab_file`.
        merges: the merges themselves, pairs of tokens or texts with a space in the middle, best first, or the file
            `merges_file`; without them, all that lead to tokens, in the order of their ids.
        options: special tokens (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token,
            additional_special_tokens), model_max_length (tokens), padding_side and truncation_side ("left" or
            "right"), model_input_names, add_bos_token and add_eos_token (put around every text), split_special_tokens
            (cut special tokens found in the text like other text), clean_up_tokenization_spaces (when decoding),
            chat_template, errors (what decoding byte-level tokens does with bytes that are no UTF-8: "replace",
            "ignore" or "strict"), use_default_system_prompt and spaces_between_special_tokens (kept for other
            programs), and those of `pipeline_options`, explained at `tokenization.pipeline.configure`.

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
    # Options that change how text is cut. An argument always counts. Beside a tokenizer.json, tokenizer_config.json
    # counts for those of `_CONFIG_COUNTS` alone: the two files often disagree.
    pipeline_options: ClassVar[tuple[str, ...]] = ("add_prefix_space",)
    add_prefix_space = PipelineOption()
    # Used where nothing else names them, as far as they are in the vocabulary.
    default_special_tokens: ClassVar[dict[str, str | AddedToken]] = {}
    default_add_bos_token: ClassVar[bool] = False
    # Options that tokenizer_config.json sets beside a tokenizer.json, too -> their values where it leaves them out.
    config_defaults: ClassVar[dict[str, Any]] = {}
    # Whether add_bos_token and add_eos_token of tokenizer_config.json count beside a tokenizer.json that adds neither.
    config_frames: ClassVar[bool] = False

    is_fast = True

    def __init__(
        self,
        vocab_file: str | os.PathLike | Mapping[str, int] | None = None,
        merges_file: str | os.PathLike | Sequence[Any] | None = None,
        *,
        tokenizer_file: str | os.PathLike | None = None,
        tokenizer_object: Tokenizer | None = None,
        vocab: str | os.PathLike | Mapping[str, int] | None = None,
        merges: str | os.PathLike | Sequence[Any] | None = None,
        **options: Any,
    ):
        vocab = vocab_file if vocab is None else vocab
        merges = merges_file if merges is None else merges
        if tokenizer_object is not None:
            self._setup(Tokenizer.from_str(tokenizer_object.to_str()), {}, True, options, {})
        elif isinstance(vocab, Mapping) or (vocab is not None and not isinstance(vocab, (str, os.PathLike))):
            self._setup(self._from_vocabulary(vocab, merges), {}, False, options, {})
        else:
            files = {"tokenizer_file": tokenizer_file, "vocab_file": vocab, "merges_file": merges}
            files = {name: Path(path) for name, path in files.items() if path is not None}
            self._setup(*self._backend(files, {}), options, {})
            self.vocab_file = None if vocab is None else os.fspath(vocab)

    # -----------------------------------------------------------------------------------------------------------------
    # Loading and saving

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **options: Any) -> Self:
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
            config = {**cls.config_defaults, **config}
        elif missing := [path.name for path in files.values() if not path.is_file()]:
            wanted = f"{tokenizer_files.TOKENIZER_FILE}, or {' and '.join(missing)}"
            raise FileNotFoundError(f"No tokenizer for {cls.__name__} in {folder}: it needs {wanted}.")
        tokenizer = cls.__new__(cls)
        options = check_options(cls.__name__, options, cls.pipeline_options)
        try:
            with library_errors(f"the tokenizer's files in {folder} cannot be used together"):
                tokenizer._setup(*cls._backend(files, config), options, config)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"{folder}: {error}") from error
        tokenizer.name_or_path = name
        source = folder / cls.vocab_files_names["vocab_file"]
        tokenizer.vocab_file = str(source) if source.is_file() else None
        return tokenizer

    @classmethod
    def from_gguf(cls, path: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizerFast:
        """Load from a GGUF file; `from_pretrained` comes here for `gguf_file=`."""
        from tfmodels.tokenization.conversions.gguf import read_gguf

        backend, config = read_gguf(path)
        tokenizer = cls.__new__(cls)
        tokenizer._setup(backend, {}, False, options, config)
        tokenizer.name_or_path = name
        trim_heap()  # the file's texts were Python's objects for a while
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
        content = read_text(path)
        with library_errors(f"{path} is not a tokenizer that the tokenizers library can read"):
            backend = Tokenizer.from_str(content)
            check_ids(path, backend.get_vocab(with_added_tokens=False))
        return backend, {}, True

    @classmethod
    def _from_vocabulary(cls, vocab: Any, merges: Any) -> Tokenizer:
        """Build the backend from a vocabulary that is no file: BPE over SentencePiece's spaces."""
        return spaced_bpe_backend(vocab, merges)

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
        options = check_options(type(self).__name__, options, self.pipeline_options)
        self._tokenizer = backend
        self._lock = threading.Lock()
        self._warned = False
        self.name_or_path = str(options.get("name_or_path", ""))
        self.vocab_file: str | None = None
        self.init_kwargs = {**config, **options}
        baked_padding = backend.padding
        backend.no_padding()
        backend.no_truncation()

        wanted = {name: config[name] for name in self.pipeline_options if config.get(name) is not None}
        now = pipeline.options_of(backend)
        if complete:
            counting = {*_CONFIG_COUNTS, *self.config_defaults} & now.keys()
            wanted = {name: value for name, value in wanted.items() if name in counting}
        elif "trim_offsets" not in self.config_defaults:
            wanted.pop("trim_offsets", None)  # as in transformers, where GPT-2's converter decides
        wanted |= {name: options[name] for name in self.pipeline_options if options.get(name) is not None}
        changes = {name: value for name, value in wanted.items() if name not in now or now[name] != value}
        idle = {name for name in changes if pipeline.is_idle(backend, name)}
        warn_idle(type(self).__name__, (name for name in idle if changes[name]))
        if changes := {name: value for name, value in changes.items() if name not in idle}:
            pipeline.configure(backend, **changes)
        if wanted.get("legacy") is False:
            pipeline.keep_leading_spaces(backend)

        given = self.init_kwargs
        defaults = {**self.default_special_tokens, **implied}
        if baked_padding:
            defaults.setdefault("pad_token", baked_padding["pad_token"])
        named, others = named_special_tokens(given)
        # A token with a role is special though its own entry says no, as in transformers.
        self._add_stored_tokens(added_tokens(given, backend, [*(defaults | named).values(), *others]))
        self._set_special_tokens(given, defaults)
        former = {**defaults, **named_special_tokens(config)[0]}
        self._replace_ends({name: former.get(name) for name in ("bos_token", "eos_token") if options.get(name)})

        self.model_max_length = given.get("model_max_length") or NO_MAX_LENGTH
        self.model_input_names = list(given.get("model_input_names") or type(self).model_input_names)
        self.padding_side = one_of("padding_side", given.get("padding_side") or type(self).padding_side, SIDES)
        self.truncation_side = one_of(
            "truncation_side", given.get("truncation_side") or type(self).truncation_side, SIDES
        )
        self.clean_up_tokenization_spaces = bool(given.get("clean_up_tokenization_spaces") or False)
        self._cleans_bpe = bool(given.get(BPE_CLEAN_UP, type(self)._cleans_bpe))
        self.split_special_tokens = bool(given.get("split_special_tokens") or False)
        self.spaces_between_special_tokens = bool(given.get("spaces_between_special_tokens", True))
        self.use_default_system_prompt = bool(given.get("use_default_system_prompt") or False)
        self.errors = checked_errors(given.get("errors") or "replace")
        self.chat_template = checked_templates(given.get("chat_template"))

        # A class with a default for add_bos_token makes the template itself, in place of the one in tokenizer.json.
        own = self.config_defaults.keys() & config.keys() & {"add_bos_token"} and pipeline.has_template(backend)
        if not complete or backend.post_processor is None or own:
            frames = not complete or self.config_frames
            ignored = () if frames else ("add_bos_token", "add_eos_token")
            self._set_post_processor({name: value for name, value in config.items() if name not in ignored})
        wishes = {name: options[name] for name in ("add_bos_token", "add_eos_token") if options.get(name) is not None}
        for name, wish in wishes.items():
            setattr(self, name, wish)

    def _set_post_processor(self, config: dict[str, Any]) -> None:
        """Add special tokens to texts as this kind of model wants them; called where no file says it."""
        bos = config.get("add_bos_token", self.default_add_bos_token)
        eos = config.get("add_eos_token", False)
        pipeline.set_template(self._tokenizer, self.bos_token if bos else None, self.eos_token if eos else None)

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[Any],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> PreTrainedTokenizerFast:
        """Train a tokenizer of the same kind, with the same special tokens, on other texts.

        Args:
            text_iterator: texts, or lists of texts.
            vocab_size: tokens of the new vocabulary at most.
            length: how many texts there are, for the progress bar.
            new_special_tokens: further special tokens.
            special_tokens_map: new names of special tokens by their old ones.
            kwargs: arguments of the trainer of the `tokenizers` library, such as min_frequency.

        Returns:
            A new tokenizer.

        Raises:
            ValueError: the kind of model cannot be trained, or the special tokens do not fit in.
        """
        renamed = dict(special_tokens_map or {})
        backend = retrained(
            self._tokenizer, text_iterator, vocab_size, length, new_special_tokens or (), renamed, kwargs
        )

        def new_name(token: Any) -> Any:
            if not isinstance(token, AddedToken):
                return renamed.get(token, token)
            return as_added_token({**token.__getstate__(), "content": renamed.get(str(token), str(token))})

        options = {name: value for name, value in self.init_kwargs.items() if name not in NOT_SAVED}
        options |= {name: new_name(token) for name, token in self._special.items()}
        additional = [*map(new_name, self._additional), *(new_special_tokens or ())]
        for name in ("additional_special_tokens", "extra_special_tokens"):
            options.pop(name, None)
        if additional:
            options["additional_special_tokens"] = additional
        tokenizer = type(self).__new__(type(self))
        tokenizer._setup(backend, {}, True, {}, options)
        return tokenizer

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
    where, options = hub.split_options(options)
    patterns = (*hub.TOKENIZER_FILES, f"{tokenizer_files.CHAT_TEMPLATE_FOLDER}/*.jinja", "config.json")
    folder = hub.resolve(name_or_path, patterns=patterns, **where)
    if gguf_file := where.get("gguf_file"):
        return choose(folder).from_gguf(folder / gguf_file, str(name_or_path), options)
    return choose(folder).from_folder(folder, str(name_or_path), options)
