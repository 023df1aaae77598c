"""Push saved files to the Hub, through `huggingface_hub`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmodels.checkpoints.hub import HubError
from tfmodels.utils.arguments import PUSHING, settle
from tfmodels.utils.text import did_you_mean, quote


class PushToHub:
    """Adds `push_to_hub` to a class that has `save_pretrained`."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> str:
        """Save to a temporary folder and commit its files to a repository of the Hub, which is made if need be.

        Args:
            repo_id: "owner/name", or a name in the account of the token.
            commit_message, commit_description: of the commit.
            private: whether a new repository is private; None is the account's default.
            token: access token; None or True use the one stored by `hf auth login`.
            revision: branch to commit to, made if need be; None is the default branch.
            create_pr: open a pull request against the default branch instead of committing.
            **kwargs: arguments of `save_pretrained`, such as `max_shard_size`.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            HubError: the Hub refused or could not be reached; the message says what to do.
            ValueError: a pull request is to be opened against another branch than the default one.
        """
        rest = settle({"use_temp_dir": None, **kwargs}, PUSHING, "push_to_hub")
        token = rest.pop("token", token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **rest)  # type: ignore[attr-defined]
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    commit_message: str = "Upload files",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Commit the files of a folder to a model repository; arguments and errors as in `PushToHub.push_to_hub`."""
    from huggingface_hub import HfApi

    if not isinstance(repo_id, str) or not repo_id:
        raise ValueError(f"repo_id={quote(repo_id)}: the name of a repository was expected, such as 'owner/name'.")
    if create_pr and revision not in (None, "main"):
        raise ValueError(
            f"revision={quote(revision)} goes with a commit to a branch; a pull request (create_pr=True) is always "
            f"opened against the default branch: leave one of them out."
        )
    api = HfApi(token=token)
    try:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    # Errors of the transport come from whichever HTTP library this version of huggingface_hub is built on.
    except Exception as error:
        cause = next((line.strip() for line in str(error).splitlines() if line.strip()), "no details")
        raise HubError(
            f"{quote(repo_id)} could not be pushed to the Hub. Check its name and that the token may write "
            "(log in with "
            f"`hf auth login` or pass token=). ({type(error).__name__}: {cause})"
        ) from error
    return getattr(commit, "pr_url", None) or commit.commit_url


def wanted(options: dict[str, Any], save_directory: str | os.PathLike[str]) -> Callable[[], Any]:
    """Return what `save_pretrained` calls once it has written: it pushes where `push_to_hub=True` was given.

    Args:
        options: keyword arguments of `save_pretrained` that are not its own, settled by the table `SAVING`.
        save_directory: the folder; its name is the repository's unless `repo_id` is given.

    Raises:
        TypeError: an argument is unknown, or `save_directory` is no path.
        ValueError: `save_directory` is empty.

    Example:
        >>> wanted({}, "folder")()
        >>> wanted({"repo": "org/name"}, "folder")
        Traceback (most recent call last):
        ...
        TypeError: save_pretrained got an unknown argument 'repo'; did you mean repo_id?
    """
    options = dict(options)
    if not isinstance(save_directory, (str, os.PathLike)):
        raise TypeError(f"save_directory={quote(save_directory)}; the path of a folder was expected.")
    if not os.fspath(save_directory):  # Python takes it for the folder that it works in
        raise ValueError("save_directory is empty; the path of a folder was expected.")
    asked = options.pop("push_to_hub", False)
    options.pop("max_shard_size", None)
    names = {name for name, fate in PUSHING.items() if fate.kind == "done"}
    for name in options:
        if name not in names:
            raise TypeError(f"save_pretrained got an unknown argument {quote(name)}{did_you_mean(name, names) or '.'}")
    if os.path.isfile(save_directory):
        raise NotADirectoryError(
            f"save_directory={quote(os.fspath(save_directory))} is a file; a folder was expected."
        )
    if not asked:
        return lambda: None
    repo_id = options.pop("repo_id", None) or Path(save_directory).absolute().name
    return lambda: push_folder(save_directory, repo_id, **{k: v for k, v in options.items() if v is not None})
