"""`tfmodels chat`: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from tfmodels.cli import conversation as talk
from tfmodels.cli import terminal
from tfmodels.cli.common import (
    DTYPES,
    CommandError,
    add_model,
    describe_error,
    load_backend,
    place_of,
    read_config,
    read_text,
)
from tfmodels.cli.generate import check_model, load_model
from tfmodels.cli.speakers import SETTINGS, LocalSpeaker, ServerSpeaker, Speaker
from tfmodels.cli.speed import Arrivals, seconds_per_token
from tfmodels.utils.text import quote

HELP = "talk to a model, or to a server by its URL"
# Room for a conversation where the model has more: caches grow with it, and attention reads all of it.
_CONTEXT = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels chat`."""
    add_model(parser, more="; or the URL of a server, such as http://localhost:8000/v1")
    parser.add_argument("--system", metavar="TEXT", help="system message: who the model is to be")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens of an answer at most (1024)")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="0 takes the likeliest token always; default: the model's, or 0.7",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw among the likeliest that sum to P")
    parser.add_argument("--min-p", type=float, metavar="P", help="leave out tokens less likely than P times the best")
    parser.add_argument("--repetition-penalty", type=float, metavar="R", help="above 1 avoids what was said")
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampling repeat itself")
    parser.add_argument(
        "--chat-template", metavar="FILE", help="jinja2 template of a model that has none or a wrong one"
    )
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save wrote")
    parser.add_argument(
        "--context", type=int, metavar="N", help=f"room for a conversation in tokens (up to {_CONTEXT})"
    )
    parser.add_argument("--api-key", metavar="KEY", help="for a server; default: OPENAI_API_KEY")
    parser.add_argument("--server-model", metavar="NAME", help="which of a server's models; default: the first")
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")
    parser.add_argument("--no-jit", action="store_true", help="run as a plain graph instead of compiling with XLA")
    parser.add_argument("--plain", action="store_true", help="write answers as they are, without Markdown")


def run(options: argparse.Namespace) -> None:
    """Talk until the user has enough."""
    settings = {}
    for name in SETTINGS:
        if (value := getattr(options, name)) is not None:
            settings[name] = talk.checked_setting(name, str(value))
    speaker = speaker_of(options)
    conversation = talk.Conversation(speaker, options.system, settings=settings)
    if options.load:
        talk.load(conversation, options.load)
        conversation.settings |= settings
        conversation.system = conversation.system if options.system is None else options.system
    typed, console = sys.stdin.isatty(), None
    if sys.stdout.isatty() and not options.plain:
        from rich.console import Console

        console = Console(highlight=False)
    tell(f"{speaker.name}: /help lists the commands, Ctrl-D ends." if typed else "")
    loop(conversation, terminal.Writer(console), typed)


def speaker_of(options: argparse.Namespace) -> Speaker:
    """The source of answers: a server for a URL, else a model on this machine."""
    if options.model.startswith(("http://", "https://")):
        for name in ("chat_template", "context", "gguf_file", "revision"):
            if getattr(options, name):
                flag = f"--{name.replace('_', '-')}"
                raise CommandError(f"{flag} is for models of this machine; the server has its own.")
        key = options.api_key or os.environ.get("OPENAI_API_KEY")
        return ServerSpeaker(options.model, api_key=key, model=options.server_model)
    for name in ("api_key", "server_model"):
        if getattr(options, name):
            raise CommandError(f"--{name.replace('_', '-')} is for servers, which are given as http://...")
    if options.context is not None and options.context < 1:
        raise CommandError(f"--context {options.context}: a positive number of tokens was expected.")
    place = place_of(options)
    tokenizer = check_model(place)
    if options.chat_template:
        tokenizer.chat_template = read_text(options.chat_template)
    try:
        tokenizer.get_chat_template()
    except ValueError as error:
        raise CommandError(
            f"{quote(options.model)} has no chat template, so it is no model to talk to as it is: give one by "
            "--chat-template FILE, or continue texts by `tfmodels generate`."
        ) from error
    context = _room(read_config(place), options.context)
    tell("loading TensorFlow and the model ...")
    load_backend()
    model = load_model(place, options.dtype)
    return LocalSpeaker(options.model, model, tokenizer, context=context, jit_compile=not options.no_jit)


def _room(config: dict[str, Any], asked: int | None) -> int:
    """Tokens of a conversation at most, from config.json and --context."""
    names = ("max_position_embeddings", "max_seq_len", "n_positions")
    limit = next((config[name] for name in names if isinstance(config.get(name), int)), None)
    if asked is not None and limit is not None and asked > limit:
        raise CommandError(f"--context {asked}: the model was trained for {limit} tokens.")
    return asked or min(limit or _CONTEXT, _CONTEXT)


def loop(conversation: talk.Conversation, writer: terminal.Writer, typed: bool) -> None:
    """Read messages and commands, answer and obey, until there are no more.

    Args:
        conversation: changed in place.
        writer: writes the answers.
        typed: whether a person types; else an answer that fails ends the loop.

    Raises:
        CommandError: nobody types, and commands could not be run: what follows them was answered nevertheless.
    """
    wrong = 0
    while True:
        try:
            text = terminal.read_message(">>> ", "... ")
            if text.startswith("/") and not text.startswith("//"):
                try:
                    told, text = conversation.run(text)
                except (CommandError, ValueError, OSError) as error:
                    tell(f"error: {describe_error(error)}")
                    wrong += 1
                    continue
                if told:
                    print(told)
                if text is None:
                    continue
            if text.strip():
                answer(conversation, text[1:] if text.startswith("//") else text, writer)
        except EOFError:
            if typed:
                print()
            elif wrong:
                raise CommandError(f"{wrong} of the commands could not be run; the errors above name them.") from None
            return
        except KeyboardInterrupt:
            if not typed:
                raise
            tell("\n(Ctrl-D or /exit ends)")
        except (CommandError, ValueError, OSError) as error:
            if not typed:
                raise
            tell(f"error: {describe_error(error)}")


def answer(conversation: talk.Conversation, text: str, writer: terminal.Writer) -> None:
    """Send a message and write the answer; Ctrl-C ends it, and what came of it counts."""
    conversation.messages.append({"role": "user", "content": text})
    start, arrivals, pieces, stopped = time.perf_counter(), [], [], False
    speaker, seen = conversation.speaker, 0
    try:
        for piece in writer.write(speaker.answer(conversation.whole(), conversation.settings)):
            arrivals.append((time.perf_counter(), speaker.tokens - seen))
            seen = speaker.tokens
            pieces.append(piece)
    except KeyboardInterrupt:
        stopped = True
    except BaseException:
        conversation.messages.pop()  # as if the question had not been put
        raise
    conversation.messages.append({"role": "assistant", "content": "".join(pieces)})
    if writer.console is None:
        print()
    if sys.stderr.isatty():
        tell(speed(speaker.tokens, start, arrivals) + (", stopped" if stopped else ""))


def speed(tokens: int, start: float, arrivals: Arrivals) -> str:
    """A line on how fast an answer came, without what it waited for programs.

    Args:
        tokens: in all; a server may tell of more than it sent pieces.
        start: when it was asked for, in seconds.
        arrivals: of its pieces.

    Example:
        >>> speed(25, 0.0, [(1.0, 1), (3.0, 4), (3.1, 10), (3.2, 10)])
        '25 tokens, the first after 1.00 s, then 100 tokens/s'
    """
    if not arrivals or tokens == 0:
        return f"{tokens} tokens"
    line, typical = f"{tokens} tokens, the first after {arrivals[0][0] - start:.2f} s", seconds_per_token(arrivals)
    if typical is None:
        return line
    share = tokens / max(1, sum(count for _, count in arrivals))
    return f"{line}, then {share / typical:,.0f} tokens/s"


def tell(text: str) -> None:
    """Tell the user something beside the conversation."""
    if text:
        print(text, file=sys.stderr, flush=True)
