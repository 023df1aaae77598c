"""The `tfmodels` command: its parser, and how errors are told.

Arguments are read before anything heavy is imported, so `--help` and mistakes answer at once. A sub-command is an
entry of `COMMANDS`. Text goes to standard output, everything about it (statistics, errors) to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from tfmodels import __version__
from tfmodels.cli import chat, demo, embed, export, generate, inspect, serve
from tfmodels.cli.common import describe_error
from tfmodels.utils.text import did_you_mean

# Exit codes of a shell: an error, an interrupt, and a reader that went away (128 + the signal's number).
_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


class Command(NamedTuple):
    """A sub-command: a line about it, a function that adds its arguments to a parser, and one that runs it."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


COMMANDS: dict[str, Command] = {
    name: Command(module.HELP, module.add_arguments, module.run)
    for name, module in (
        ("chat", chat),
        ("demo", demo),
        ("embed", embed),
        ("export", export),
        ("generate", generate),
        ("inspect", inspect),
        ("serve", serve),
    )
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and suggest near names.

    Attributes:
        flags: its options as the shell spells them, by the names of their values.
        words: what it was last given to parse.
    """

    def __init__(self, **options: Any):
        self.flags: dict[str, str] = {}
        self.words: list[str] = []
        super().__init__(**options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        if action.option_strings:
            self.flags[action.dest] = action.option_strings[-1]
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if found:
            message += did_you_mean(found[1], re.findall(r"[\w-]+", found[2]))
        if message.startswith("the following arguments are required"):  # perhaps given, but misspelt
            options = [word.split("=")[0] for word in self.words if word.startswith("--")]
            known = tuple(self.flags.values())
            unknown = [option for option in options if not any(flag.startswith(option) for flag in known)]
            if unknown:
                message += f"; {unknown[0]} is no option{did_you_mean(unknown[0], known)}"
        # Python's own puts the usage before it, which takes ten lines where a command has many options.
        self.exit(_ERROR, f"{self.prog}: error: {message} ({self.prog} --help shows the usage)\n")


def make_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command, and those of its sub-commands by name."""
    parser = Parser(prog="tfmodels", description="Transformer models as native Keras 3 models.")
    parser.add_argument("--version", action="version", version=f"tfmodels {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for name, command in COMMANDS.items():
        description = command.help[0].upper() + command.help[1:] + "."
        parsers[name] = commands.add_parser(name, help=command.help, description=description)
        command.add_arguments(parsers[name])
        parsers[name].add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return parser, parsers


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 after one line on standard error."""
    parser, parsers = make_parser()
    options, unknown = parser.parse_known_args(arguments)
    own = parsers[options.command]
    if unknown:
        near = did_you_mean(unknown[0].split("=")[0], own.flags.values())
        own.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
    debug = options.debug or os.environ.get("TFMODELS_DEBUG", "") not in ("", "0")
    try:
        with contextlib.nullcontext() if debug else warnings_in_shell_words(own):
            COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed its end. Buffered text has nowhere to go, also at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if debug:
            raise
        text = in_shell_words(describe_error(error), own.flags)
        print(f"tfmodels {options.command}: error: {text}", file=sys.stderr)
        return _ERROR
    return 0


@contextlib.contextmanager
def warnings_in_shell_words(parser: Parser) -> Iterator[None]:
    """Show warnings as errors are shown: one line with the shell's options, and each text once."""
    shown = set()

    def show(message: Warning | str, *place: Any, **options: Any) -> None:
        text = in_shell_words(" ".join(str(message).split()), parser.flags)
        if text not in shown:
            shown.add(text)
            print(f"{parser.prog}: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def leave() -> NoReturn:
    """Run the command line and end the process with its exit code.

    A program that XLA compiles in the background is not waited for: nobody would use it.
    """
    code = main()
    background = sys.modules.get("tfmodels.runtime.background")
    if background is not None and background.at_work():
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


# Python's names of arguments that the shell spells in another way.
_SPELLED = {
    "format": "--to",
    "path": "--output",
    "version": "--model-version",
    "jit_compile": "--no-jit",
    "cors_origins": "--cors-origin",
}


def in_shell_words(text: str, flags: dict[str, str]) -> str:
    """A message of the Python interface with arguments written as the shell has them.

    Args:
        text: the message.
        flags: the shell's options by the names of their values.

    Example:
        >>> in_shell_words("top_p=1.5; a number up to 1 was expected.", {"top_p": "--top-p"})
        '--top-p 1.5; a number up to 1 was expected.'
        >>> in_shell_words("quantize='int8' is new; pass local_files_only=False",
        ...                {"quantize": "--quantize", "local_files_only": "--local-files-only"})
        '--quantize int8 is new; pass no --local-files-only'
    """

    flags = flags | {name: flag for name, flag in _SPELLED.items() if flag in flags.values()}

    def spelled(found: re.Match[str]) -> str:
        flag, value = flags[found[1]], found[2]
        if value in ("True", "False"):
            return flag if value == "True" else f"no {flag}"
        quoted = value[0] in "'\"" and value[-1] == value[0]
        return f"{flag} {value[1:-1] if quoted else value}"

    names = "|".join(sorted(map(re.escape, flags), key=len, reverse=True))
    if not names:
        return text
    value = r"""'[^']*'|"[^"]*"|[-+\w]+(?:\.\w+)*"""
    text = re.sub(rf"(?<![\w.-])({names})=({value})", spelled, text)
    return re.sub(rf"(?<![\w.-])({names})=(?=\W|$)", lambda found: flags[found[1]], text)


if __name__ == "__main__":
    sys.exit(main())
