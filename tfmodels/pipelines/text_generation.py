"""Prompts and chats to the texts that continue them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.generation.api import GenerationMixin
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.settings import FIELDS
from tfmodels.pipelines.base import LIST, ONE, STREAM, Pipeline, Row
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import INNER, Settings, checked_tokenizer_arguments
from tfmodels.utils.text import quote

TENSORS, NEW_TEXT, FULL_TEXT = "tensors", "new_text", "full_text"
# In the order of transformers' enumeration, whose members scripts may give.
_RETURN_TYPES = (TENSORS, NEW_TEXT, FULL_TEXT)
# What is used where neither the caller nor the model's generation_config.json says otherwise.
DEFAULTS = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
_SAMPLING = ("temperature",)
# Values of an output of `generate` that a result gets a part of.
_PARTS = ("scores", "logits", "sequences_scores", "beam_indices")


@dataclasses.dataclass(frozen=True)
class GenerationSettings(Settings):
    """Parameters of text generation."""

    return_full_text: bool | None = None
    return_text: bool | None = None
    return_tensors: bool | None = None
    return_type: Any = None
    clean_up_tokenization_spaces: bool | None = None
    skip_special_tokens: bool = True
    prefix: str | None = None
    handle_long_generation: str | None = None
    stop_sequence: str | Sequence[str] | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    truncation: bool | str | None = None
    padding: bool | str | None = None
    tokenizer_encode_kwargs: dict[str, Any] | None = None
    tools: Any = None
    documents: Any = None
    generate: dict[str, Any] = dataclasses.field(default_factory=dict, metadata=INNER)

    def take(self, name: str, value: Any, changes: dict[str, Any]) -> bool:
        if name not in generate_arguments() and name not in FIELDS:
            GenerationConfig().update(**{name: value})  # raises, naming near settings, or knows that it has no effect
        changes["generate"] = {**self.generate, **changes.get("generate", {}), name: value}
        return True

    def __post_init__(self) -> None:
        if self.handle_long_generation not in (None, "hole"):
            raise ValueError(
                f"handle_long_generation={quote(self.handle_long_generation)}; None or 'hole' were expected."
            )
        if self.return_type is None:
            if self.return_full_text is not None and self.return_text is not None:
                raise ValueError("`return_text` is mutually exclusive with `return_full_text`")
            if self.return_full_text is not None and self.return_tensors:
                raise ValueError("`return_full_text` is mutually exclusive with `return_tensors`")
            if self.return_text and self.return_tensors:
                raise ValueError("`return_text` is mutually exclusive with `return_tensors`")
        elif self.kind is None:
            raise ValueError(f"return_type={quote(self.return_type)}; one of {', '.join(_RETURN_TYPES)} was expected.")
        checked_tokenizer_arguments(self.tokenizer_encode_kwargs or {}, "tokenizer_encode_kwargs")

    @property
    def kind(self) -> str | None:
        """The content of a result: TENSORS, NEW_TEXT or FULL_TEXT; None where `return_type` is none of them."""
        if self.return_type is None:
            if self.return_tensors:
                return TENSORS
            return NEW_TEXT if self.return_full_text is False else FULL_TEXT
        asked = getattr(self.return_type, "name", self.return_type)
        if isinstance(asked, int) and not isinstance(asked, bool) and 0 <= asked < len(_RETURN_TYPES):
            return _RETURN_TYPES[asked]
        return str(asked).lower() if str(asked).lower() in _RETURN_TYPES else None


def generate_arguments() -> frozenset[str]:
    """The arguments of `generate` that are no settings of it."""
    names = frozenset(inspect.signature(GenerationMixin.generate).parameters)
    return names - {"self", "inputs", "attention_mask", "inputs_embeds", "past_key_values", "kwargs"}


class Chat(list):
    """Messages that are one input, not a list of inputs."""


class TextGenerationPipeline(Pipeline):
    """Continues texts and chats, by a `...ForCausalLM` model.

    An input is a text, or a chat: a list of {"role": ..., "content": ...}, which the tokenizer's chat template
    writes for the model. The result of an input is a list with a dict for each of `num_return_sequences`:
    {"generated_text": ...} with the text and its continuation, or with the chat and the answer as its last message.

    Unless the call or the model's generation_config.json says otherwise, at most 256 tokens are drawn at temperature
    0.7, as in transformers. A model that has no positions for so many gets as many as it has.

    New tokens are decoded by themselves and put behind the prompt, as in transformers 5. Tokenizers that leave out the
    space before a text also leave it out between the prompt and a word that follows.

    Parameters of the constructor and of calls:
        return_full_text: False returns the new text alone.
        return_tensors: return {"generated_token_ids": ids of prompt and continuation} instead of text.
        return_text, return_type: the older ways to say the same.
        prefix: a text in front of every prompt, not part of the result.
        stop_sequence: a text or texts that end the continuation; they are part of it.
        continue_final_message: go on with a chat's last message; default: if it is the assistant's.
        handle_long_generation: "hole" cuts the beginning of a prompt that leaves no room in
            `tokenizer.model_max_length`.
        clean_up_tokenization_spaces, skip_special_tokens: as for decoding.
        add_special_tokens, truncation, padding, tokenizer_encode_kwargs: for the tokenizer.
        tools, documents: for the chat template.
        max_new_tokens, do_sample, temperature, seed, num_beams, streamer, ...: for `generate`.

    Example:
        >>> from tfmodels import pipeline
        >>> write = pipeline("text-generation", "stories260K")
        >>> write("Once upon a time", max_new_tokens=5, do_sample=False, jit_compile=False)
        [{'generated_text': 'Once upon a time, there was a little'}]
    """

    task = "text-generation"
    head = "ForCausalLM"
    settings_class = GenerationSettings
    default_batch_size = 1

    def first_settings(self) -> GenerationSettings:
        return GenerationSettings(prefix=getattr(self.model.config, "prefix", None))

    # Inputs ----------------------------------------------------------------------------------------------------------

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        if _is_message(inputs):
            raise ValueError(f"{quote(inputs)} is one message; a chat is a list of messages.")
        kind, items = super().read_inputs(inputs, settings)
        if kind == LIST:
            return (ONE, _as_chat(items)) if items and _is_message(items[0]) else (LIST, [*map(_as_chat, items)])
        if kind == STREAM:
            items = iter(items)
            first = next(items, None)
            if first is None:
                return STREAM, iter(())
            if _is_message(first):
                return ONE, _as_chat([first, *items])
            return STREAM, (_as_chat(item) for part in ([first], items) for item in part)
        return kind, items

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        arguments = {
            "add_special_tokens": settings.add_special_tokens,
            "truncation": settings.truncation,
            "padding": settings.padding,
            "max_length": settings.generate.get("max_length") if settings.truncation else None,
        }
        arguments = {name: value for name, value in arguments.items() if value is not None}
        arguments |= settings.tokenizer_encode_kwargs or {}
        if isinstance(item, Chat):
            arguments.pop("add_special_tokens", None)
            goes_on = self.continues(item, settings)
            encoding = self.tokenizer.apply_chat_template(
                item,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                tools=settings.tools,
                documents=settings.documents,
                **arguments,
            )
        else:
            encoding = self.tokenizer((settings.prefix or "") + text_of(item), **arguments)
        ids, mask = list(encoding["input_ids"]), list(encoding.get("attention_mask", ()))
        row = Row({"input_ids": ids, "attention_mask": mask or [1] * len(ids)}, note=len(ids))
        if settings.handle_long_generation == "hole":
            self._make_room(row, settings)
        if not ids:
            if self.model.generation_config.bos_token_id is None:
                raise ValueError("an empty prompt needs a bos_token_id to begin with; the model has none.")
            row.inputs = {"input_ids": [self.model.generation_config.bos_token_id], "attention_mask": [1]}
        return [row]

    def _make_room(self, row: Row, settings: Any) -> None:
        """Cut the beginning of a prompt that leaves no room for new tokens."""
        known = self._known(settings.generate)
        own = {**DEFAULTS, **known}
        if "max_length" in known and "max_new_tokens" not in known:
            new = known["max_length"] - len(row)
            if new < 0:
                raise ValueError(f"max_length={known['max_length']} is less than the prompt's {len(row)} tokens.")
        else:
            new = own["max_new_tokens"]
        longest = self.tokenizer.model_max_length
        if len(row) + new > longest:
            if new >= longest:
                raise ValueError(
                    f"handle_long_generation='hole': {new} new tokens leave no room for a prompt within the "
                    f"tokenizer's model_max_length={longest}."
                )
            row.inputs = {name: values[new - longest :] for name, values in row.inputs.items()}
            row.note = len(row)

    def continues(self, chat: Chat, settings: Any) -> bool:
        """Whether the model goes on with a chat's last message."""
        if settings.continue_final_message is None:
            return chat[-1]["role"] == "assistant"
        return bool(settings.continue_final_message)

    # The model -------------------------------------------------------------------------------------------------------

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that do not take their defaults: of the call, its generation_config, the model's."""
        known = dict(vars(self.model.generation_config))
        config = given.get("generation_config")
        if isinstance(config, GenerationConfig):  # `generate` refuses anything else
            known |= vars(config)
        return {**known, **{name: value for name, value in given.items() if value is not None}}

    def generate_settings(self, settings: Any, longest_prompt: int) -> dict[str, Any]:
        """The keyword arguments of `generate`.

        Args:
            settings: the parameters.
            longest_prompt: tokens of the batch's longest prompt.
        """
        given = dict(settings.generate)
        known = self._known(given)
        added = {name: value for name, value in DEFAULTS.items() if name not in known}
        if "max_length" in known:
            added.pop("max_new_tokens", None)
        if "max_new_tokens" in added:
            limit = self.model.backbone.position_limit
            added["max_new_tokens"] = max(1, min(DEFAULTS["max_new_tokens"], (limit or 1 << 30) - longest_prompt))
        if self.tokenizer.pad_token_id is not None and "pad_token_id" not in known:
            added["pad_token_id"] = self.tokenizer.pad_token_id
        if not {**known, **added}.get("do_sample"):
            added = {name: value for name, value in added.items() if name not in _SAMPLING}
        if settings.prefix:
            ids = self.tokenizer(settings.prefix, add_special_tokens=bool(settings.add_special_tokens))["input_ids"]
            for length, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
                if length in known and new not in known:
                    added[length] = known[length] + len(ids)
        if settings.stop_sequence is not None:
            stop = settings.stop_sequence
            given["stop_strings"] = [stop] if isinstance(stop, str) else list(stop)
        if {"stop_strings", "response_format"} & given.keys() or "stop_strings" in known:
            given.setdefault("tokenizer", self.tokenizer)
        return {**given, **added}

    def forward(self, rows: Sequence[Row], settings: Any) -> list[Any]:
        longest = max(map(len, rows))
        given = self.generate_settings(settings, longest)
        fill = self.model.generation_config.fill_token_id
        ids = np.full((len(rows), longest), fill, "int32")
        mask = np.zeros((len(rows), longest), "int32")
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = row.inputs["input_ids"]
            mask[index, longest - len(row) :] = row.inputs["attention_mask"]
        output = self.model.generate(ids, attention_mask=mask, **given)
        sequences = ops.convert_to_numpy(getattr(output, "sequences", output))
        each = len(sequences) // len(rows)
        parts = _parts(output) if hasattr(output, "sequences") else {}
        found = []
        for index, row in enumerate(rows):
            own = slice(index * each, (index + 1) * each)
            kept = sequences[own, longest - len(row) :]
            if len(rows) > 1:  # other prompts may have been continued for longer
                kept = _without_end(kept, len(row), given.get("pad_token_id", fill), self._ends(given))
            found.append((kept.tolist(), {name: values[own].tolist() for name, values in parts.items()}))
        return found

    def _ends(self, given: Mapping[str, Any]) -> tuple[int, ...]:
        ends = self._known(given).get("eos_token_id")
        return tuple(ends) if isinstance(ends, (list, tuple)) else () if ends is None else (ends,)

    # Results ---------------------------------------------------------------------------------------------------------

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        sequences, parts = outputs[0]
        prompt, results = rows[0].note, []
        for index, sequence in enumerate(sequences):
            if settings.kind == TENSORS:
                result: dict[str, Any] = {"generated_token_ids": sequence}
            else:
                text = self.tokenizer.decode(
                    sequence[prompt:],
                    skip_special_tokens=settings.skip_special_tokens,
                    clean_up_tokenization_spaces=settings.clean_up_tokenization_spaces,
                )
                result = {"generated_text": self._full(item, text, settings) if settings.kind == FULL_TEXT else text}
            results.append({**result, **{name: values[index] for name, values in parts.items()}})
        return results

    def _full(self, item: Any, text: str, settings: Any) -> Any:
        """A prompt, or a chat, with its continuation."""
        if not isinstance(item, Chat):
            return item + text
        if self.continues(item, settings):
            return [*item[:-1], {"role": item[-1]["role"], "content": item[-1]["content"] + text}]
        return [*item, {"role": "assistant", "content": text}]


def _without_end(rows: np.ndarray, prompt: int, pad: int, ends: Sequence[int]) -> np.ndarray:
    """Rows of one prompt, cut where the longest of them ends.

    Example:
        >>> _without_end(np.array([[5, 6, 2, 0, 0], [5, 7, 8, 2, 0]]), 1, 0, (2,)).tolist()
        [[5, 6, 2, 0], [5, 7, 8, 2]]
    """
    longest = prompt
    for row in rows[:, prompt:]:
        at_end = np.flatnonzero(np.isin(row, ends))
        words = np.flatnonzero(row != pad)
        length = at_end[0] + 1 if len(at_end) else words[-1] + 1 if len(words) else 0
        longest = max(longest, prompt + int(length))
    return rows[:, :longest]


def _parts(output: Any) -> dict[str, np.ndarray]:
    """The other results of `generate` for each sequence, (sequences, ...)."""
    parts = {}
    for name in _PARTS:
        value = output.get(name)
        if isinstance(value, (tuple, list)):
            parts[name] = np.stack([ops.convert_to_numpy(step) for step in value], axis=1)
        elif value is not None:
            parts[name] = ops.convert_to_numpy(value)
    return parts


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _as_chat(item: Any) -> Any:
    """A list of messages as a chat; everything else as it is."""
    if isinstance(item, (list, tuple)) and item and _is_message(item[0]):
        for message in item:
            if not _is_message(message):
                raise ValueError(f"{quote(message)} is no message; each has a 'role' and a 'content'.")
        return Chat(item)
    return item
