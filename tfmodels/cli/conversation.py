"""The conversation of `tfmodels chat`: its messages and settings, and the commands that change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfmodels.cli.common import CommandError
from tfmodels.cli.speakers import SETTINGS, Speaker
from tfmodels.utils.json_files import read_value, write_object
from tfmodels.utils.text import did_you_mean, quote

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass
class Conversation:
    """The messages of a conversation, and the settings of its answers.

    Fields:
        speaker: who answers.
        system: the system message, or None.
        messages: those of user and assistant in turn.
        settings: those of `SETTINGS` that are set.
    """

    speaker: Speaker
    system: str | None = None
    messages: list[dict[str, str]] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def whole(self) -> list[dict[str, str]]:
        """All messages, the system message first."""
        return [*([] if self.system is None else [{"role": "system", "content": self.system}]), *self.messages]

    def undo(self) -> str:
        """Take the last question back, with its answer. Returns the question, or "" where there is none."""
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return message["content"]
        return ""

    def run(self, line: str) -> tuple[str, str | None]:
        """Run a command.

        Args:
            line: the whole line, "/" first.

        Returns:
            What to tell the user, and a text to send as the user's next message, or None.

        Raises:
            CommandError: an unknown command, or wrong arguments.
            EOFError: the conversation is to end.
        """
        name, _, rest = line[1:].strip().partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            names = [f"/{known}" for known in COMMANDS]
            raise CommandError(f"/{name} is no command{did_you_mean(f'/{name}', names)}; /help lists them.")
        return command.run(self, rest.strip())


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what it takes, what it does, and the function."""

    arguments: str
    help: str
    run: Callable[[Conversation, str], tuple[str, str | None]]


def _help(conversation: Conversation, rest: str) -> tuple[str, None]:
    lines = [(f"/{name} {command.arguments}".strip(), command.help) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in lines)
    more = [
        'A line that ends in \\ goes on in the next one; a block between lines of """ is one message.',
        "Ctrl-C stops an answer; Ctrl-D or /exit ends the conversation. // at the start of a message stands for /.",
    ]
    return "\n".join([*(f"{usage:{width}}  {text}" for usage, text in lines), *more]), None


def _clear(conversation: Conversation, rest: str) -> tuple[str, None]:
    conversation.messages.clear()
    return "The conversation starts anew.", None


def _undo(conversation: Conversation, rest: str) -> tuple[str, None]:
    taken = conversation.undo()
    return (f"Took back {quote(taken, 60)}." if taken else "There is nothing to take back."), None


def _retry(conversation: Conversation, rest: str) -> tuple[str, str]:
    taken = conversation.undo()
    if not taken:
        raise CommandError("there is no question to answer again.")
    return "", taken


def _set(conversation: Conversation, rest: str) -> tuple[str, None]:
    for part in rest.split():
        name, equals, text = part.partition("=")
        name = name.replace("-", "_").strip("_")
        if name not in SETTINGS or not equals:
            hint = did_you_mean(name, SETTINGS) or f"; there are {', '.join(SETTINGS)}."
            raise CommandError(f"{quote(part)} sets nothing; write name=value, such as temperature=0.5{hint}")
        if text.lower() in ("", "none", "default"):
            conversation.settings.pop(name, None)
            continue
        conversation.settings[name] = checked_setting(name, text)
    given = ", ".join(f"{name}={value}" for name, value in conversation.settings.items())
    return f"Settings: {given or 'those of the model'}.", None


def checked_setting(name: str, text: str) -> Any:
    """The value of a setting.

    Raises:
        CommandError: the text is no number, or one out of range.

    Example:
        >>> checked_setting("temperature", "0.5"), checked_setting("top_k", "4")
        (0.5, 4)
    """
    from tfmodels.generation.config import GenerationConfig

    try:
        value = SETTINGS[name](text)
    except ValueError as error:
        kind = "an integer" if SETTINGS[name] is int else "a number"
        raise CommandError(f"{name}={quote(text)}; {kind} was expected.") from error
    if not (name == "temperature" and value == 0):
        try:
            GenerationConfig(**{name: value}, **({} if name in ("max_new_tokens", "seed") else {"do_sample": True}))
        except ValueError as error:
            raise CommandError(str(error)) from error
    return value


def _system(conversation: Conversation, rest: str) -> tuple[str, None]:
    if rest:
        conversation.system = None if rest.lower() == "none" else rest
    text = conversation.system
    return ("There is no system message." if text is None else f"System message: {text}"), None


def _save(conversation: Conversation, rest: str) -> tuple[str, None]:
    if not rest:
        raise CommandError("/save needs the name of a file.")
    messages = conversation.whole()
    write_object(Path(rest).expanduser(), {"messages": messages, "settings": conversation.settings})
    return f"Wrote {len(messages)} messages to {rest}.", None


def _load(conversation: Conversation, rest: str) -> tuple[str, None]:
    if not rest:
        raise CommandError("/load needs the name of a file.")
    load(conversation, rest)
    return f"Read {len(conversation.messages)} messages from {rest}.", None


def load(conversation: Conversation, file: str) -> None:
    """Take the messages of a file, which /save wrote, or which holds a list of messages.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON.
        CommandError: it holds something else. The conversation stays as it was.
    """
    content = read_value(Path(file).expanduser())
    found = content.get("messages") if isinstance(content, Mapping) else content
    wanted = (
        f"{file} holds no conversation: a list of messages with role ({', '.join(ROLES)}) and content is expected."
    )
    if not isinstance(found, list) or not all(
        isinstance(one, Mapping) and one.get("role") in ROLES and isinstance(one.get("content"), str) for one in found
    ):
        raise CommandError(wanted)
    messages = [{"role": one["role"], "content": one["content"]} for one in found]
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    settings = content.get("settings") or {} if isinstance(content, Mapping) else {}
    if not isinstance(settings, Mapping) or any(name not in SETTINGS for name in settings):
        raise CommandError(f"{file}: settings={quote(settings)}; known are {', '.join(SETTINGS)}.")
    values = {name: checked_setting(name, str(value)) for name, value in settings.items()}
    conversation.system, conversation.messages = system, messages
    conversation.settings |= values


def _tokens(conversation: Conversation, rest: str) -> tuple[str, None]:
    return conversation.speaker.count(conversation.whole()), None


def _exit(conversation: Conversation, rest: str) -> tuple[str, None]:
    raise EOFError


COMMANDS = {
    "help": Command("", "list the commands", _help),
    "clear": Command("", "forget the conversation, keep the system message and the settings", _clear),
    "undo": Command("", "take back the last question and its answer", _undo),
    "retry": Command("", "answer the last question again", _retry),
    "set": Command("[name=value ...]", f"show or change {', '.join(SETTINGS)}; name=none unsets", _set),
    "system": Command("[text]", "show or change the system message; none removes it", _system),
    "save": Command("file", "write the conversation to a JSON file", _save),
    "load": Command("file", "go on with a conversation of a file", _load),
    "tokens": Command("", "tell how long the conversation is", _tokens),
    "exit": Command("", "end the conversation (also Ctrl-D)", _exit),
}
