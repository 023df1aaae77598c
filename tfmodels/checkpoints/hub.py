"""From a model's name to a local folder: a folder as it is, a Hub repository by way of `huggingface_hub`'s cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmodels.checkpoints import bundled
from tfmodels.checkpoints.files import CheckpointNotFoundError
from tfmodels.checkpoints.reader import file_names, kinds_of
from tfmodels.utils.arguments import HUB, LOADING, settle
from tfmodels.utils.text import quote, shorten, some

_GO_ONLINE = (
    "Load it once with the Hub within reach: a working network, local_files_only=False, HF_HUB_OFFLINE not set."
)
_FILE_NAME = re.compile(r"[^/\\:*?\[\]\0]+")
_HUB_ID = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)


class HubError(OSError):
    """A Hub repository could not be had; the message names it and says what to do."""


class OneOf(NamedTuple):
    """Groups of file patterns of which only the first that a repository has is fetched.

    A repository has a group if it has the group's first entry, the name of a file.
    """

    groups: tuple[tuple[str, ...], ...]


def weight_files(formats: Sequence[str] | None = None, variant: str | None = None) -> OneOf:
    """The files of one format, in the order in which `reader.open_checkpoint` looks for formats."""
    groups = []
    for kind in kinds_of(formats):
        single, index = file_names(kind, variant)
        stem, suffix = os.path.splitext(single)
        shards = [f"{stem}-*-of-*{suffix}"]
        if variant is not None:  # older files have the variant behind the numbers
            plain, suffix = os.path.splitext(kind.single)
            shards.append(f"{plain}-*-of-*.{variant}{suffix}")
        groups += [(single,), (index, *shards)]
    return OneOf(tuple(groups))


CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"),
)
WEIGHT_FILES = weight_files()


def split_options(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the keyword arguments of a `from_pretrained` into those of `resolve` and all others.

    Arguments of transformers without effect here are dropped, see `tfmodels.utils.arguments`.

    Raises:
        ValueError: an argument asks for what there is not; the message says what to do instead.

    >>> split_options({"revision": "main", "num_labels": 3})
    ({'revision': 'main'}, {'num_labels': 3})
    """
    arguments = settle(arguments, LOADING, "from_pretrained")
    options = {name: value for name, value in arguments.items() if name in HUB}
    return options, {name: value for name, value in arguments.items() if name not in HUB}


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    patterns: Sequence[str | OneOf],
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
    gguf_file: str | None = None,
) -> Path:
    """Find the folder of a model, downloading what is needed of a Hub repository.

    A name that is an existing folder is that folder, and nothing else is asked; the name of a bundled checkpoint is
    that checkpoint's folder. Otherwise it is a Hub id such as "org/name": files that match `patterns` are fetched into
    the cache of `huggingface_hub`, with its progress bars, and not fetched again while they are unchanged. With
    `local_files_only`, with HF_HUB_OFFLINE=1 or without a network the cached files are used.

    Args:
        name_or_path: a local folder, or a Hub id.
        patterns: names of files to fetch, with `*`; a `OneOf` fetches the first of its groups that there is, such as
            `WEIGHT_FILES`. Files that the repository does not have are left out. Nothing is filtered in a local
            folder.
        revision: branch, tag or commit of the Hub repository; None is its default branch.
        token: access token for private and gated repositories; None or True use the one stored by `hf auth login`,
            False none.
        cache_dir: the cache's folder instead of the default one.
        local_files_only: do not ask the Hub, use the cache as it is.
        force_download: fetch the files even if they are cached.
        subfolder: folder inside the repository, or inside the local folder, that holds the files.
        gguf_file: name of a GGUF file, which holds all that a model needs: of a repository it is fetched instead of
            what matches `patterns`.

    Returns:
        The local folder.

    Raises:
        CheckpointNotFoundError: a local folder that is not there; also a FileNotFoundError.
        ValueError: a name that can be neither a folder nor a Hub id.
        HubError: the repository, its revision, or its weights cannot be had; raised from the underlying error.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> resolve(folder, patterns=CONFIG_FILES) == Path(folder)
    True
    """
    if gguf_file is not None:
        if not isinstance(gguf_file, str) or not _FILE_NAME.fullmatch(gguf_file):
            raise ValueError(f"gguf_file={quote(gguf_file)}; the name of a file in the model's folder was expected.")
        patterns = (gguf_file,)
    name_or_path = bundled.resolve(name_or_path)
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if name and os.path.exists(folder):  # also False for a name that no file system takes
        return _local(folder, subfolder)
    if isinstance(name_or_path, os.PathLike) or _looks_local(name):
        raise CheckpointNotFoundError(f"There is no folder {shorten(folder)} (in full: {shorten(folder.absolute())}).")
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(
            f"{quote(name)} is no model: there is no such folder (looked for {shorten(folder.absolute())}), and a Hub "
            "id is a name or an owner and a name, as in 'org/name', of letters, digits, '-', '_' and '.'."
        )
    repository = _Repository(name, revision, token, cache_dir)
    inner = subfolder.strip("/")
    snapshot = repository.fetch(_inside(inner, patterns), local_files_only, force_download)
    if not (snapshot / inner).is_dir():
        raise HubError(f"{repository} has no folder {quote(subfolder)} with any of the files needed.")
    return snapshot / inner


def _local(folder: Path, subfolder: str) -> Path:
    inner = folder / subfolder
    if not inner.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"subfolder={quote(subfolder)} leads out of {folder}; a folder inside it was expected.")
    if not inner.is_dir():
        problem = "is a file; name the folder that holds it" if inner.is_file() else "does not exist"
        if inner.is_file() and inner.suffix == ".gguf":
            problem += f", with gguf_file={quote(inner.name)}"
        raise CheckpointNotFoundError(f"The model folder {inner} {problem}.")
    return inner


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name or bool(Path(name).drive)


def _inside(folder: str, patterns: Iterable[str | OneOf]) -> list[str | OneOf]:
    prefix = f"{folder}/" if folder else ""
    return [
        OneOf(tuple(tuple(prefix + pattern for pattern in group) for group in item.groups))
        if isinstance(item, OneOf)
        else prefix + item
        for item in patterns
    ]


class _Repository:
    """One revision of a model repository on the Hub, and its copy in the cache."""

    def __init__(
        self, name: str, revision: str | None, token: str | bool | None, cache_dir: str | os.PathLike[str] | None
    ) -> None:
        self.name, self.revision, self.token, self.cache_dir = name, revision, token, cache_dir

    def __str__(self) -> str:
        return quote(self.name) + (f" (revision {quote(self.revision)})" if self.revision else "")

    def fetch(self, patterns: list[str | OneOf], local_files_only: bool, force_download: bool) -> Path:
        """Bring the files into the cache and return the folder of this revision there."""
        from huggingface_hub import HfApi, snapshot_download

        choices = [item for item in patterns if isinstance(item, OneOf)]
        files: list[str] | None = None
        unreachable: Exception | None = None
        if choices and not local_files_only:
            try:
                # Unlike `list_repo_files`, this does not try for half a minute when there is no network.
                described = HfApi(token=self.token).model_info(self.name, revision=self.revision)
                files = [sibling.rfilename for sibling in described.siblings or ()]
            except Exception as error:  # whatever it was, the cache may hold all that is needed
                unreachable = error
        wanted = [item for item in patterns if isinstance(item, str)]
        for choice in choices:
            wanted += self._choose(choice, files, unreachable)
        try:
            folder = snapshot_download(
                self.name,
                revision=self.revision,
                token=self.token,
                cache_dir=self.cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=wanted,
            )
        # Errors of the transport come from whichever HTTP library this version of huggingface_hub is built on.
        except Exception as error:
            raise HubError(self._explain(error)) from error
        return Path(folder)

    def _choose(self, choice: OneOf, files: list[str] | None, unreachable: Exception | None) -> tuple[str, ...]:
        for group in choice.groups:
            if self._is_cached(group[0]) if files is None else group[0] in files:
                return group
        looked_for = ", ".join(group[0] for group in choice.groups)
        if files is not None:
            raise HubError(
                f"{self} has no weights that can be read: looked for {looked_for}; the Hub has {some(files, 10)}."
            )
        if unreachable is not None:
            raise HubError(self._explain(unreachable)) from unreachable
        raise HubError(f"{self} is not in the cache ({self._tried()}): looked for {looked_for}. {_GO_ONLINE}")

    def _is_cached(self, file: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        # A path, None for unknown, or a marker for a file that the repository is known not to have.
        found: object = try_to_load_from_cache(self.name, file, cache_dir=self.cache_dir, revision=self.revision)
        return isinstance(found, str)

    def _tried(self) -> str:
        return f"nor is there a local folder {Path(self.name).absolute()}"

    def _explain(self, error: Exception) -> str:
        from huggingface_hub import errors

        cause = f"({type(error).__name__}: {_first_line(error)})"
        if isinstance(error, errors.GatedRepoError):
            return (
                f"{self} is gated on the Hub: ask for access on its page, then log in with `hf auth login` or pass "
                f"token=. {cause}"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return (
                f"{self} is not on the Hub, or is private, {self._tried()}. Check the spelling; for a private model "
                f"log in with `hf auth login` or pass token=. {cause}"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            revision = quote(self.revision)
            return f"{quote(self.name)} has no revision {revision} on the Hub; name a branch, tag or commit. {cause}"
        if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
            return f"{self} is not, or not whole, in the cache ({self._tried()}). {_GO_ONLINE} {cause}"
        return f"{self} could not be fetched from the Hub ({self._tried()}). Check the network and try again. {cause}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no details")
