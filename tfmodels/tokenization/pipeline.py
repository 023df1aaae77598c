"""Changes how a `tokenizers` backend treats spaces, case, offsets and the special tokens around texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, processors

from tfmodels.utils.text import quote

SPACE = "▁"  # SentencePiece writes spaces as U+2581
SPACE_RUN, LEADING_SPACES, TRAILING_SPACES = " {2,}", r"\A +", rf"[ {SPACE}]+\z"


# Steps that cut text at spaces and leave them out.
_WITHOUT_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")

# Names of the options that `configure` takes.
OPTIONS = (
    *("add_prefix_space", "legacy", "trim_offsets"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars"),
)


def configure(backend: Tokenizer, **options: Any) -> None:
    """Change how a backend prepares text, in place.

    Args:
        backend: the tokenizer to change.
        options: add_prefix_space (a space before the text, so that its first word is cut like any other), legacy
            (SentencePiece-style vocabularies: that space also behind every special token, as the first Llama
            tokenizers did), trim_offsets (byte-level: offsets without the space before a word), do_lower_case,
            strip_accents, tokenize_chinese_chars (BERT-style).

    Raises:
        ValueError: the backend has no such thing to change.
    """
    state = _pipeline(backend)
    parts = _parts_of_options(state)
    spaces = {
        name: options.pop(name)
        for name in ("legacy", "add_prefix_space")
        if name in options and (name == "legacy" or not parts["add_prefix_space"][0])
    }
    for name, value in options.items():
        steps, key = parts[name]
        if not steps:
            raise ValueError(
                f"{name}={quote(value)} has nothing to act on: this tokenizer does not prepare text that way."
            )
        for step in steps:
            step[key] = value
    if options:
        _set_pipeline(backend, state)
    if spaces:
        set_sentencepiece_spaces(backend, **spaces)


def options_of(backend: Tokenizer) -> dict[str, bool | None]:
    """The options of `configure` that the backend has, with their values."""
    state = _pipeline(backend)
    found = {name: steps[0][key] for name, (steps, key) in _parts_of_options(state).items() if steps}
    cutters = list(_walk(state["pre_tokenizer"]))
    marks = [step for step in _walk(state["normalizer"]) if step["type"] == "Prepend" or step.get("content") == SPACE]
    if (cutters or marks) and all(cutter["type"] == "Metaspace" for cutter in cutters):
        found |= _spaces(state)
    return found


def is_idle(backend: Tokenizer, option: str) -> bool:
    """Whether an option of `configure` would leave every id as it is, since the backend has nothing for it to change.

    That is `trim_offsets` without a byte-level post-processor, and `add_prefix_space` where words are cut at spaces,
    which are left out.
    """
    state = _pipeline(backend)
    if option == "trim_offsets":
        return not _parts_of_options(state)[option][0]
    first = next(_walk(state["pre_tokenizer"]), {"type": None})
    marked = any(step["type"] == "Prepend" or step.get("content") == SPACE for step in _walk(state["normalizer"]))
    return option == "add_prefix_space" and first["type"] in _WITHOUT_SPACES and not marked


def prepends(backend: Tokenizer) -> bool:
    """Whether normalising puts a space in front, which then is part of an added token that is normalised, too."""
    return any(step["type"] == "Prepend" for step in _walk(_pipeline(backend)["normalizer"]))


def _parts_of_options(state: dict[str, Any]) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """The steps that an option changes, and the key in them."""
    byte_level = [part for name in state for part in _walk(state[name]) if part["type"] == "ByteLevel"]
    bert = [part for part in _walk(state["normalizer"]) if part["type"] == "BertNormalizer"]
    cutting = any(part["type"] == "ByteLevel" for part in _walk(state["pre_tokenizer"]))
    framing = [part for part in _walk(state["post_processor"]) if part["type"] == "RobertaProcessing"]
    byte_level += framing if cutting else []
    return {
        "do_lower_case": (bert, "lowercase"),
        "strip_accents": (bert, "strip_accents"),
        "tokenize_chinese_chars": (bert, "handle_chinese_chars"),
        "trim_offsets": ([part for part in _walk(state["post_processor"]) if part in byte_level], "trim_offsets"),
        # The post-processor must know too, or it takes the added space off the first word's offsets.
        "add_prefix_space": (byte_level if cutting else [], "add_prefix_space"),
    }


def _spaces(state: dict[str, Any]) -> dict[str, bool]:
    """The way a SentencePiece-style pipeline puts a space before the text."""
    prepending = any(step["type"] == "Prepend" for step in _walk(state["normalizer"]))
    schemes = {cutter["prepend_scheme"] for cutter in _walk(state["pre_tokenizer"])}
    return {
        "legacy": prepending or "always" in schemes,
        "add_prefix_space": prepending or bool(schemes & {"always", "first"}),
    }


def set_sentencepiece_spaces(
    backend: Tokenizer, legacy: bool | None = None, add_prefix_space: bool | None = None
) -> None:
    """Set where a SentencePiece-style backend puts the space before the text; None keeps what it does now."""
    state = _pipeline(backend)
    steps = list(_walk(state["normalizer"]))
    cutters = list(_walk(state["pre_tokenizer"]))
    if any(cutter["type"] != "Metaspace" for cutter in cutters):
        raise ValueError(
            "legacy and add_prefix_space are for tokenizers in the style of SentencePiece or byte-level BPE; "
            f"this one cuts text by {', '.join(cutter['type'] for cutter in cutters)}."
        )
    now = _spaces(state)
    legacy = now["legacy"] if legacy is None else legacy
    add_prefix_space = now["add_prefix_space"] if add_prefix_space is None else add_prefix_space
    kept = [
        step
        for step in steps
        if step["type"] != "Prepend"
        and step.get("content") != SPACE
        and step.get("pattern") != {"Regex": LEADING_SPACES}
    ]
    cleans = any(step.get("pattern") == {"Regex": SPACE_RUN} for step in kept)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if add_prefix_space and not legacy:
        # "first": only at the start of the whole text. Metaspace leaves texts alone that start with its own character,
        # but SentencePiece does not (unless it removes such spaces); so the space is added as a space and replaced
        # afterwards.
        state["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first", "split": False},
                {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False},
            ],
        }
        kept += [] if cleans else [replace]
    else:
        state["pre_tokenizer"] = None
        kept += [{"type": "Replace", "pattern": {"Regex": LEADING_SPACES}, "content": ""}] if cleans else []
        kept += [{"type": "Prepend", "prepend": SPACE}] if add_prefix_space else []
        kept += [replace]
    state["normalizer"] = {"type": "Sequence", "normalizers": kept}
    # Decoding takes off the added space; where the model knows no spaces at the start, all of them.
    leading = 1_000_000 if cleans else int(add_prefix_space)
    strip = [{"type": "Strip", "content": " ", "start": leading, "stop": 0}] if leading else []
    replace_back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    state["decoder"] = {
        "type": "Sequence",
        "decoders": [replace_back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
    }
    _set_pipeline(backend, state)


def keep_leading_spaces(backend: Tokenizer) -> None:
    """Give a text that begins with a space no other one in front, in place.

    transformers' fast tokenizers do so with `legacy=False`; SentencePiece puts one there in any case. Models that
    remove spaces at the beginning are left as they are.
    """
    state = _pipeline(backend)
    cutters = list(_walk(state["pre_tokenizer"]))
    cleans = any(step.get("pattern") == {"Regex": SPACE_RUN} for step in _walk(state["normalizer"]))
    if not cleans and [cutter.get("replacement") for cutter in cutters] == [" ", SPACE]:
        state["pre_tokenizer"] = {**cutters[0], "replacement": SPACE}
        _set_pipeline(backend, state)


def leaves_leading_spaces(backend: Tokenizer) -> bool:
    """Whether a text that begins with a space gets no other one in front, see `keep_leading_spaces`."""
    cutters = list(_walk(_pipeline(backend)["pre_tokenizer"]))
    return [(cutter.get("replacement"), cutter.get("prepend_scheme")) for cutter in cutters] == [(SPACE, "first")]


def set_template(backend: Tokenizer, bos: str | None, eos: str | None) -> None:
    """Make the backend put `bos` before and `eos` behind every text of a pair, in place; None leaves one out.

    Raises:
        ValueError: the post-processor is of another kind (such as BERT's), or a token is not in the vocabulary.
    """
    byte_level = None
    for part in _walk(_pipeline(backend)["post_processor"]):
        if part["type"] == "ByteLevel":
            byte_level = part
        elif part["type"] != "TemplateProcessing":
            raise ValueError(f"add_bos_token and add_eos_token cannot change this tokenizer's {part['type']}.")

    if bos is None and eos is None and byte_level is not None:
        backend.post_processor = _byte_level_processor(byte_level)
        return

    def around(name: str, type_id: int) -> list[str]:
        return [f"{token}:{type_id}" if token != name else token for token in (bos, name, eos) if token is not None]

    tokens = []
    for token in {bos, eos} - {None}:
        if backend.token_to_id(token) is None:
            raise ValueError(f"The token {quote(token)}, to be added to every text, is not in the vocabulary.")
        tokens.append((token, backend.token_to_id(token)))
    template = processors.TemplateProcessing(
        single=around("$A:0", 0), pair=around("$A:0", 0) + around("$B:1", 1), special_tokens=tokens
    )
    if byte_level is not None:
        template = processors.Sequence([_byte_level_processor(byte_level), template])
    backend.post_processor = template


def _byte_level_processor(state: dict[str, Any]) -> processors.ByteLevel:
    return processors.ByteLevel(**{key: value for key, value in state.items() if key != "type"})


def has_template(backend: Tokenizer) -> bool:
    """Whether special tokens come from a template that `set_template` can change."""
    return any(part["type"] == "TemplateProcessing" for part in _walk(_pipeline(backend)["post_processor"]))


def special_frame(backend: Tokenizer, pair: bool) -> tuple[list[int], list[int], list[int]]:
    """The ids that the backend puts before, between and after the texts of a pair, or before and after one text."""
    frame: tuple[list[int], list[int], list[int]] = ([], [], [])
    at = 0
    for step in special_layout(backend, pair):
        if step[0] == "text":
            at = 1 if pair and at == 0 else 2
        else:
            frame[at].append(step[1])
    return frame


def special_layout(backend: Tokenizer, pair: bool) -> list[tuple[str, int, int]]:
    """The backend's layout of one text or a pair: ("token", id, type) and ("text", 0 or 1, type) in order."""
    texts = [("text", 0, 0), ("text", 1, 1)] if pair else [("text", 0, 0)]
    layout = texts
    for part in _walk(_pipeline(backend)["post_processor"]):
        if part["type"] == "TemplateProcessing":
            layout = []
            for step in part["pair" if pair else "single"]:
                if "Sequence" in step:
                    layout.append(("text", "AB".index(step["Sequence"]["id"]), step["Sequence"]["type_id"]))
                else:
                    token = step["SpecialToken"]
                    ids = part["special_tokens"][token["id"]]["ids"]
                    layout += [("token", index, token["type_id"]) for index in ids]
        elif part["type"] in ("BertProcessing", "RobertaProcessing"):
            cls, sep = part["cls"][1], part["sep"][1]
            second = int(part["type"] == "BertProcessing")  # RoBERTa has one type alone
            layout = [("token", cls, 0), ("text", 0, 0), ("token", sep, 0)]
            if pair:
                layout += [("token", sep, 0)] * (1 - second) + [("text", 1, second), ("token", sep, second)]
    return layout


_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def _pipeline(backend: Tokenizer) -> dict[str, Any]:
    """The steps around the model as JSON objects, as in `tokenizer.json`."""
    parts = {name: getattr(backend, name) for name in _PARTS}
    return {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}


def _set_pipeline(backend: Tokenizer, state: dict[str, Any]) -> None:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    rebuilt = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **state, "model": empty}))
    for name in _PARTS:
        setattr(backend, name, getattr(rebuilt, name))


def _walk(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a part of the pipeline, sequences flattened."""
    if part is None:
        return
    inner = next((value for key, value in part.items() if part["type"] == "Sequence" and key != "type"), None)
    if inner is None:
        yield part
    else:
        for step in inner:
            yield from _walk(step)
