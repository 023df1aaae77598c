"""From a model's name to a local folder: a folder as it is, a Hub repository by way of `huggingface_hub`'s cache."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmodels.checkpoints import bundled
from tfmodels.checkpoints.files import CheckpointNotFoundError
from tfmodels.checkpoints.formats import gguf
from tfmodels.checkpoints.reader import file_names, kinds_of
from tfmodels.utils.arguments import HUB, LOADING, settle
from tfmodels.utils.text import did_you_mean, near_names, quote, shorten, some

_GO_ONLINE = (
    "Load it once with the Hub within reach: a working network, local_files_only=False, HF_HUB_OFFLINE not set."
)
_WORKERS = 8
_LONGEST_PATH = 4096
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
# Beside the weights of old repositories of GPTQ and AWQ: what stands in config.json today.
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json")
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


class Source:
    """The place a model is loaded from: a local folder, or one revision of a Hub repository, asked for its files once.

    Args:
        name_or_path: a local folder, or a Hub id.
        revision, token, cache_dir, local_files_only, force_download, subfolder, gguf_file: as in `resolve`.

    Raises:
        CheckpointNotFoundError: a local folder that is not there; also a FileNotFoundError.
        ValueError: a name that can be neither a folder nor a Hub id; a folder or file name that leads elsewhere.

    Example:
        >>> import os
        >>> source = Source("stories260K")
        >>> source.fetch(CONFIG_FILES).name, os.fspath(source)
        ('stories260K', 'stories260K')
    """

    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        gguf_file: str | None = None,
    ) -> None:
        if gguf_file is not None and (
            not isinstance(gguf_file, str) or not _FILE_NAME.fullmatch(gguf_file) or gguf_file in (".", "..")
        ):
            raise ValueError(f"gguf_file={quote(gguf_file)}; the name of a file in the model's folder was expected.")
        self.gguf_file = gguf_file
        self.subfolder = subfolder or ""
        if not isinstance(name_or_path, (str, os.PathLike)):
            raise TypeError(
                f"pretrained_model_name_or_path={quote(name_or_path)}; a folder, or the name of a model on the Hub, "
                f"was expected."
            )
        self._name = os.fspath(name_or_path)
        self._local_files_only, self._force_download = local_files_only, force_download
        self._repository = None
        name_or_path = bundled.resolve(name_or_path)
        name = os.fspath(name_or_path)
        self._folder = Path(os.path.expanduser(name))
        if not isinstance(self.subfolder, (str, os.PathLike)) or _leads_out(self.subfolder):
            raise ValueError(
                f"subfolder={quote(subfolder)} leads out of {shorten(name)}; the name of a folder inside it was "
                "expected."
            )
        if name and os.path.exists(self._folder):  # also False for a name that no file system takes
            return
        if isinstance(name_or_path, os.PathLike) or _looks_local(name):
            whole = "" if self._folder.is_absolute() else f" (in full: {shorten(self._folder.absolute())})"
            near = near_places(name) or "."
            raise CheckpointNotFoundError(f"There is no folder {shorten(self._folder)}{whole}{near}")
        if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
            raise ValueError(
                f"{quote(name)} is no model: there is no such folder (looked for "
                f"{shorten(self._folder.absolute())}), and a Hub id is a name or an owner and a name, as in "
                f"'org/name', of letters, digits, '-', '_' and '.'{near_places(name) or '.'}"
            )
        self._repository = _Repository(name, revision, token, cache_dir)

    def __fspath__(self) -> str:
        return self._name

    def fetch(self, patterns: Sequence[str | OneOf]) -> Path:
        """Bring the files that match into the cache, if this is a Hub repository; `patterns` as in `resolve`.

        Returns:
            The local folder.

        Raises:
            CheckpointNotFoundError: the subfolder is not there.
            HubError: the repository, its revision, or its weights cannot be had.
        """
        if self._repository is None:
            return _local(self._folder, self.subfolder)
        if self.gguf_file is not None:
            # One of several files that belong together brings the others.
            patterns = tuple(part.name for part in gguf.parts(Path(self.gguf_file)))
        inner = os.fspath(self.subfolder).strip("/")
        snapshot = self._repository.fetch(_inside(inner, patterns), self._local_files_only, self._force_download)
        if not (snapshot / inner).is_dir():
            raise HubError(f"{self._repository} has no folder {quote(self.subfolder)} with any of the files needed.")
        return snapshot / inner


def _leads_out(subfolder: str | os.PathLike[str]) -> bool:
    path = Path(subfolder)
    return path.is_absolute() or bool(path.drive) or ".." in path.parts or ".." in os.fspath(subfolder).split("\\")


def resolve(name_or_path: str | os.PathLike[str] | Source, *, patterns: Sequence[str | OneOf], **options: Any) -> Path:
    """Find the folder of a model, downloading what is needed of a Hub repository.

    A name that is an existing folder is that folder, and nothing else is asked; the name of a bundled checkpoint is
    that checkpoint's folder. Otherwise it is a Hub id such as "org/name": files that match `patterns` are fetched into
    the cache of `huggingface_hub`, with its progress bars, and not fetched again while they are unchanged. With
    `local_files_only`, with HF_HUB_OFFLINE=1 or without a network the cached files are used.

    Args:
        name_or_path: a local folder, a Hub id, or an open `Source`, which then has all options.
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

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> resolve(folder, patterns=CONFIG_FILES) == Path(folder)
        True
    """
    source = name_or_path if isinstance(name_or_path, Source) else Source(name_or_path, **options)
    return source.fetch(patterns)


def _local(folder: Path, subfolder: str) -> Path:
    inner = folder / subfolder
    if not os.path.isdir(inner):  # unlike Path.is_dir, False for a name that no file system takes
        is_file = os.path.isfile(inner)
        problem = "is a file; name the folder that holds it" if is_file else "does not exist"
        if is_file and inner.suffix == ".gguf":
            problem += f", with gguf_file={quote(inner.name)}"
        raise CheckpointNotFoundError(f"The model folder {shorten(inner)} {problem}.")
    return inner


def gguf_in_folder(
    name_or_path: str | os.PathLike, options: dict[str, Any]
) -> tuple[str | os.PathLike, dict[str, Any]]:
    """A GGUF file as its folder and `gguf_file` among the options; any other name as it is.

    Example:
        >>> gguf_in_folder("stories260K", {"revision": "main"})
        ('stories260K', {'revision': 'main'})
    """
    path = Path(os.path.expanduser(name_or_path))
    if path.suffix == ".gguf" and "gguf_file" not in options and path.is_file():
        return path.parent, {**options, "gguf_file": path.name}
    return name_or_path, options


def near_places(name: str) -> str:
    """A question that names bundled checkpoints, or folders and GGUF files beside a missing one, with near names.

    Example:
        >>> near_places("storis260K")
        "; did you mean the bundled checkpoint 'stories260K'?"
        >>> near_places("no/such/folder")
        ''
    """
    bundle = did_you_mean(name, bundled.NAMES, "; did you mean the bundled checkpoint {!r}?")
    if bundle or len(name) > _LONGEST_PATH:
        return bundle
    path = Path(os.path.expanduser(name))
    try:
        # Of "modles/mine" the first part may be the mistake.
        missing = next((one for one in (*reversed(path.parents), path) if not one.exists()), None)
        if missing is None:
            return ""
        inner = path.relative_to(missing)
        here = [one for one in missing.parent.iterdir() if one.is_dir() or one.suffix == ".gguf"]
        known = {one.name: one / inner for one in here if (one / inner).exists()}
    except OSError:
        return ""
    close = " or ".join(str(known[one]) for one in near_names(missing.name, known))
    return f"; did you mean {close}?" if close else ""


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
        self._files: list[str] | None = None
        self._commit: str | None = None
        self._unreachable: Exception | None = None
        self._is_named = False

    def __str__(self) -> str:
        return quote(self.name) + (f" (revision {quote(self.revision)})" if self.revision else "")

    def fetch(self, patterns: list[str | OneOf], local_files_only: bool, force_download: bool) -> Path:
        """Bring the files into the cache and return the folder of this revision there."""
        if self._files is None and self._unreachable is None and not local_files_only:
            self._list_files()
        wanted = [item for item in patterns if isinstance(item, str)]
        for choice in patterns:
            if isinstance(choice, OneOf):
                wanted += self._choose(choice, self._files, self._unreachable)
        try:
            if self._files is None or not (names := self._matching(wanted)):
                return self._cached(wanted, local_files_only)
            return self._download(names, force_download)
        # Errors of the transport come from whichever HTTP library this version of huggingface_hub is built on.
        except Exception as error:
            cause = self._unreachable or error
            raise HubError(self._explain(cause)) from cause

    def _list_files(self) -> None:
        """Ask the Hub, once, which files there are and which commit the revision stands for."""
        from huggingface_hub import HfApi

        try:
            # Unlike `list_repo_files`, this does not try for half a minute when there is no network.
            described = HfApi(token=self.token).model_info(self.name, revision=self.revision)
        except Exception as error:  # whatever it was, the cache may hold all that is needed
            self._unreachable = error
        else:
            self._files = [sibling.rfilename for sibling in described.siblings or ()]
            self._commit = described.sha

    def _matching(self, patterns: list[str]) -> list[str]:
        return [name for name in self._files or () if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    def _cached(self, patterns: list[str], local_files_only: bool) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            self.name,
            revision=self.revision,
            token=self.token,
            cache_dir=self.cache_dir,
            local_files_only=local_files_only or self._unreachable is not None,
            allow_patterns=patterns,
        )
        return Path(folder)

    def _download(self, names: list[str], force: bool) -> Path:
        """Fetch files of the commit that was listed, several at once, into the cache."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import tqdm
        from tqdm.contrib.concurrent import thread_map

        def get(name: str, revision: str | None) -> Path:
            path = hf_hub_download(
                self.name,
                name,
                revision=revision,
                token=self.token,
                cache_dir=self.cache_dir,
                force_download=force,
            )
            return Path(str(path).removesuffix(name))

        # Asked by the revision's name, the cache notes which commit that is, for the times without a network.
        by_name = None if self._is_named else names[0]
        folders = thread_map(
            lambda name: get(name, self.revision if name == by_name else self._commit),
            names,
            desc=f"Fetching {len(names)} files",
            max_workers=_WORKERS,
            tqdm_class=tqdm,
        )
        self._is_named = True
        # The revision may have moved on since the files were listed.
        return folders[0] if folders[0].name == self._commit else get(names[0], self._commit)

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
        return f"nor is there a local folder {shorten(Path(self.name).absolute())}{near_places(self.name)}"

    def _explain(self, error: Exception) -> str:
        from huggingface_hub import errors

        cause, tried = f"({type(error).__name__}: {shorten(_first_line(error))})", self._tried()
        if isinstance(error, errors.GatedRepoError):
            return (
                f"{self} is gated on the Hub: ask for access on its page, then log in with `hf auth login` or pass "
                f"token=. {cause}"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return (
                f"{self} is not on the Hub, or is private, {tried}. Check the spelling; for a private model "
                f"log in with `hf auth login` or pass token=. {cause}"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            revision = quote(self.revision)
            return f"{quote(self.name)} has no revision {revision} on the Hub; name a branch, tag or commit. {cause}"
        if tried.endswith("?"):  # a mistyped name is likelier than a network that fails
            return f"{self} is not, or not whole, in the cache, {tried} The Hub could not be asked. {cause}"
        if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
            return f"{self} is not, or not whole, in the cache ({tried}). {_GO_ONLINE} {cause}"
        return f"{self} could not be fetched from the Hub ({tried}). Check the network and try again. {cause}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no details")
