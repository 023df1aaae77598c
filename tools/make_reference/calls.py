"""Calls of a model, and what the reference cases call: functions of a `Draw` that yield calls."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
NO_CACHE = {"use_cache": False}
ALL_STATES = {"output_hidden_states": True, "output_attentions": True, **NO_CACHE}


@dataclasses.dataclass
class Call:
    """One entry of meta.json's `calls`; `steps` holds the inputs and settings of each step of kind "steps"."""

    name: str
    inputs: Arrays = dataclasses.field(default_factory=dict)
    notes: str = ""
    kwargs: dict[str, Any] = dataclasses.field(default_factory=NO_CACHE.copy)
    kind: str = "forward"
    compare: str = "all"
    keep: tuple[str, ...] = ()
    dtype: str = "float32"
    save_scores: bool = False
    carry: str | None = None
    steps: list[Call] = dataclasses.field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """The entry without its outputs."""
        entry: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind == "steps":
            steps = [
                {"inputs": list(step.inputs), "kwargs": step.kwargs, "keep": list(step.keep)} for step in self.steps
            ]
            entry |= {"carry": self.carry, "compare": self.compare, "steps": steps}
        else:
            entry |= {"kwargs": self.kwargs, "inputs": list(self.inputs)}
            own = {"generate": {"save_scores": self.save_scores}, "forward": {"compare": self.compare}}
            entry |= own.get(self.kind, {})
            bools = [name for name, value in self.inputs.items() if value.dtype == bool]
            entry |= {name: value for name, value in (("keep", list(self.keep)), ("bool_inputs", bools)) if value}
        return entry | ({"notes": self.notes} if self.notes else {}) | {"dtype": self.dtype}


class Draw:
    """Random inputs of one case, the same for the same seed, and its model for calls that depend on what it writes."""

    def __init__(self, rng: np.random.Generator, model: Any):
        self.rng, self.model, self.config = rng, model, model.config

    def ids(self, rows: int = 2, length: int = 9) -> np.ndarray:
        # 0, 1 and 2 are the special tokens of every small configuration here.
        return self.rng.integers(3, self.config.vocab_size, (rows, length))

    def embeds(self) -> np.ndarray:
        return self.rng.standard_normal((2, 9, self.config.hidden_size)).astype("float32")

    def padded(self, side: str, pads: tuple[int, ...] = (1, 3), length: int = 9) -> Arrays:
        """Ids, with so many pads in each row, and their mask."""
        ids, mask = self.ids(len(pads), length), np.ones((len(pads), length), "int64")
        for row, count in enumerate(pads):
            columns = slice(0, count) if side == "left" else slice(length - count, length)
            ids[row, columns], mask[row, columns] = self.config.pad_token_id or 0, 0
        return {"input_ids": ids, "attention_mask": mask}

    def some(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Labels: about half of the ids that are no padding."""
        return np.where((mask == 1) & (self.rng.random(ids.shape) < 0.5), ids, -100)

    def greedy(self, inputs: Arrays, new: int = 12) -> np.ndarray:
        """New ids (rows, new) that the model writes greedily when nothing ends it."""
        sequences = self.model.generate(**to_torch(inputs), max_new_tokens=new, do_sample=False, eos_token_id=None)
        return sequences[:, -new:].numpy()


def positions(mask: np.ndarray) -> np.ndarray:
    return np.maximum(mask.cumsum(1) - 1, 0)


def to_torch(inputs: Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}


def to_numpy(value: Any) -> np.ndarray:
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).numpy()


def plain(draw: Draw) -> Iterator[Call]:
    yield Call("plain", {"input_ids": draw.ids()}, kwargs=ALL_STATES)


def left_pad(draw: Draw) -> Iterator[Call]:
    yield Call("left_pad", draw.padded("left"), compare="unpadded")


def backbone_inputs(draw: Draw) -> Iterator[Call]:
    """Every way of giving a decoder its inputs."""
    yield from plain(draw)
    yield Call("right_pad", draw.padded("right", (0, 3)), compare="unpadded")
    padded = draw.padded("left")
    ids, mask = padded.values()
    notes = "no position_ids; rows of padded query positions are implementation-defined"
    kept = ("last_hidden_state", "hidden_states.*", "attentions.0")
    yield Call("left_pad", padded, notes, ALL_STATES, compare="unpadded", keep=kept)
    yield Call("left_pad_posids", {**padded, "position_ids": positions(mask)}, compare="unpadded")
    shared = {"input_ids": ids, "position_ids": np.arange(3, 12)[None]}
    yield Call("posids_shared", shared, "position_ids of batch size 1, starting at 3, no attention_mask")
    embeds = draw.embeds()
    yield Call("embeds", {"inputs_embeds": embeds})
    yield Call("embeds_mask", {"inputs_embeds": embeds, "attention_mask": mask}, compare="unpadded")
    holes = np.ones((2, 9), "int64")
    holes[0, 2], holes[1, 3:5] = 0, 0
    yield Call("mask_holes", {"input_ids": draw.ids(), "attention_mask": holes})
    allowed = np.tril(draw.rng.random((2, 1, 9, 9)) < 0.7) | np.eye(9, dtype=bool)
    additive = np.where(allowed, 0.0, np.finfo("float32").min).astype("float32")
    masked = {"input_ids": draw.ids(), "attention_mask": additive}
    yield Call("mask4d", masked, "4D additive float mask is used as it is")
    packed = {"input_ids": draw.ids(), "position_ids": np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4]] * 2)}
    notes = "no mask, no cache, position_ids restart: block-diagonal (packed) mask"
    yield Call("packed_posids", packed, notes)
    notes = "same, but use_cache=True: the packed format is NOT detected"
    yield Call("packed_posids_cache", packed, notes, {"use_cache": True}, keep=("last_hidden_state",))
    yield Call("both", {"input_ids": ids, "inputs_embeds": embeds}, kind="error", kwargs={})
    yield Call("neither", {"attention_mask": mask}, kind="error", kwargs={})


def language_model(draw: Draw) -> Iterator[Call]:
    """Losses, logits_to_keep and caches of a causal language model."""
    # Not on the left: there padding predicts each row's first token, from whatever an implementation lets it see.
    padded = draw.padded("right")
    ids, mask = padded.values()
    labels = np.where(mask == 1, ids, -100)
    yield Call("loss", {**padded, "labels": labels}, compare="unpadded")
    yield Call("loss_nomask", {"input_ids": ids, "labels": labels}, keep=("loss",))
    yield all_ignored(ids)
    ids = draw.ids()
    for count in (1, 3):
        yield Call(f"keep_int{count}", {"input_ids": ids}, kwargs={"logits_to_keep": count, "use_cache": False})
    for name, index, notes in (
        ("keep_tensor", np.array([7, 0, 4]), "1-D index tensor: those positions in that order"),
        ("keep_tensor2d", np.array([[8, 1], [0, 5]]), "2-D index tensor: positions per row"),
        ("keep_bool2d", draw.rng.random(ids.shape) < 0.4, "2-D bool mask: output is flattened to (n_true, vocab)"),
    ):
        yield Call(name, {"input_ids": ids, "logits_to_keep": index}, notes)
    notes = "use_cache not given: config.use_cache decides whether past is returned"
    yield Call("default_cache", {"input_ids": draw.ids(1, 4)}, notes, kwargs={})
    ids, spans = draw.ids(2, 11), list(itertools.pairwise((0, 6, 7, 8, 9, 11)))
    kept = [("logits", "past.*")] * 2 + [("logits", "past.0.key")] * 2 + [("logits", "past.*")]
    steps = [step({"input_ids": ids[:, a:b]}, *keep) for (a, b), keep in zip(spans, kept, strict=True)]
    notes = (
        "prefill, 3 single tokens, chunk of 2; no mask, no position_ids; the cache only grows, so the caches "
        "that are not stored are prefixes of the last one"
    )
    yield Call("cache", notes=notes, kind="steps", carry="cache", steps=steps)
    yield Call("cache_full", {"input_ids": ids}, "the same tokens in one pass; must agree with the flow `cache`")
    ids, mask = draw.padded("left", (2, 4), 11).values()
    place = positions(mask)
    for name, notes in (
        ("cache_left_pad", "left padded, mask grows, no position_ids: positions are the plain column index"),
        ("cache_left_pad_posids", "left padded, with the position_ids that generate() makes"),
    ):
        steps = []
        for a, b in spans:
            inputs = {"input_ids": ids[:, a:b], "attention_mask": mask[:, :b]}
            inputs |= {"position_ids": place[:, a:b]} if name.endswith("posids") else {}
            steps.append(step(inputs, "logits", *([] if b < 11 else ["past.0.*"])))
        yield Call(name, notes=notes, kind="steps", carry="cache", compare="unpadded", steps=steps)


def step(inputs: Arrays, *keep: str, **kwargs: Any) -> Call:
    return Call("", inputs, kwargs=kwargs, keep=keep)


def all_ignored(ids: np.ndarray) -> Call:
    ignored = {"input_ids": ids, "labels": np.full_like(ids, -100)}
    return Call("loss_all_ignored", ignored, "every label is -100: loss is NaN", keep=("loss",))


def long_rotary(draw: Draw) -> Iterator[Call]:
    """Lengths around the switch at 12 of rotary scalings that depend on the length."""
    for name, length in (("exact", 12), ("long", 18)):
        yield Call(name, {"input_ids": draw.ids(2, length)})
    far = {"input_ids": draw.ids(2, 5), "position_ids": np.array([[2, 3, 4, 5, 6], [16, 17, 18, 19, 20]])}
    far["attention_mask"] = np.ones((2, 5), "int64")
    yield Call("far_posids", far, "max(position_ids)+1, not the number of tokens, decides")
    lengths = (8, 18, 15, 12, 7, 15, 13)
    steps = [step({"input_ids": draw.ids(1, n)}, "logits", use_cache=False, logits_to_keep=2) for n in lengths]
    notes = f"independent forward passes of lengths {list(lengths)} one after another on ONE model object"
    yield Call("sequence", notes=notes, kind="steps", carry="none", steps=steps)
    ids = draw.ids(1, 15)
    steps = [step({"input_ids": ids[:, a:b]}, "logits") for a, b in itertools.pairwise((0, *range(10, 16)))]
    steps[-1].keep = ("logits", "past.0.key")
    notes = "decoding across the switching length with a cache: old keys keep the rotation they were stored with"
    yield Call("cache_cross", notes=notes, kind="steps", carry="cache", steps=steps)


def rotary(draw: Draw) -> Iterator[Call]:
    kwargs = {"output_attentions": True, "use_cache": False}
    yield Call("plain", {"input_ids": draw.ids()}, kwargs=kwargs, keep=("logits", "attentions.0"))
    padded = draw.padded("left")
    yield Call("left_pad_posids", {**padded, "position_ids": positions(padded["attention_mask"])}, compare="unpadded")


def sequence_labels(draw: Draw, rows: int) -> np.ndarray:
    """Labels of the kind that the configuration infers or names."""
    number = draw.config.num_labels
    if draw.config.problem_type == "regression" or number == 1:
        return draw.rng.standard_normal((rows, number) if number > 1 else rows).astype("float32")
    return draw.rng.integers(0, number, rows)


def multi_labels(draw: Draw, rows: int) -> np.ndarray:
    return draw.rng.integers(0, 2, (rows, draw.config.num_labels)).astype("float32")


def sequence_classification(
    draw: Draw, labels_of: Callable[[Draw, int], np.ndarray] = sequence_labels
) -> Iterator[Call]:
    for side in ("right", "left"):
        yield Call(f"{side}_pad", {**draw.padded(side), "labels": labels_of(draw, 2)})
    yield Call("nolabels", {"input_ids": draw.ids()})


def multi_label(draw: Draw) -> Iterator[Call]:
    return sequence_classification(draw, multi_labels)


def single_label_extras(draw: Draw) -> Iterator[Call]:
    ids = draw.ids(3)
    ids[0, 3:5], ids[0, 7:], ids[2] = 0, 0, 0
    notes = (
        "row 0: pad in the middle and at the end -> rightmost non-pad token; last row: only pads -> index 0. "
        "attention_mask plays no role"
    )
    yield Call("pad_inside", {"input_ids": ids, "labels": sequence_labels(draw, 3)}, notes)
    inputs = {"inputs_embeds": draw.embeds(), "labels": sequence_labels(draw, 2)}
    inputs["attention_mask"] = draw.padded("right")["attention_mask"]
    yield Call("embeds", inputs, "inputs_embeds: always the last column")


def regression_extras(draw: Draw) -> Iterator[Call]:
    yield Call("batch1", {"input_ids": draw.ids(1), "labels": sequence_labels(draw, 1)})
    yield Call("labels_2d", {"input_ids": draw.ids(), "labels": sequence_labels(draw, 2)[:, None]})


def without_pad_id(draw: Draw) -> Iterator[Call]:
    inputs = {"input_ids": draw.ids(1), "labels": sequence_labels(draw, 1)}
    yield Call("batch1", inputs, "pad_token_id None and batch 1: last column")
    yield Call("batch2", {"input_ids": draw.ids()}, kind="error")


def token_classification(draw: Draw) -> Iterator[Call]:
    inputs = draw.padded("right", (0, 3))
    mask = inputs["attention_mask"]
    labels = np.where(mask == 1, draw.rng.integers(0, draw.config.num_labels, mask.shape), -100)
    yield Call("loss", {**inputs, "labels": labels}, compare="unpadded")
    yield Call("loss_all_ignored", {**inputs, "labels": np.full_like(labels, -100)}, "NaN", keep=("loss",))
    yield Call("embeds", {"inputs_embeds": draw.embeds()})


def question_answering(draw: Draw) -> Iterator[Call]:
    padded = draw.padded("right", (0, 3))
    whole, loss = {"compare": "unpadded"}, {"keep": ("loss",)}
    for name, start, end, notes, stored in (
        ("in_range", [2, 1], [4, 5], "", whole),
        ("out_of_range", [2, 12], [9, 3], "position >= length is clamped to length and ignored in the mean", loss),
        ("negative", [-3, 1], [4, -1], "negative positions are clamped to 0 and DO count", loss),
        ("all_out", [20, 30], [4, 5], "all starts ignored: NaN", loss),
        ("shape_b1", [[2], [1]], [[4], [5]], "positions of shape (B,1) are squeezed", loss),
    ):
        inputs = {**padded, "start_positions": np.array(start), "end_positions": np.array(end)}
        yield Call(name, inputs, notes, kwargs={}, **stored)
    yield Call("nolabels", {"inputs_embeds": draw.embeds()}, kwargs={})


def stored_dtype(draw: Draw) -> Iterator[Call]:
    call = Call("as_float32", draw.padded("left"), "weights cast to float32 at load", compare="unpadded")
    call.kwargs = {"output_hidden_states": True, "use_cache": False}
    yield call
    notes = "computed in the stored dtype; outputs stored as float32"
    yield dataclasses.replace(call, name="native", dtype=str(draw.config.dtype).removeprefix("torch."), notes=notes)


def generation(draw: Draw) -> Iterator[Call]:
    """Greedy decoding, its processors, and beam search."""
    inputs = draw.padded("left", (0, 2), 6)
    ids, mask = inputs.values()
    first, second = draw.greedy(inputs).tolist()
    base = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2}

    def call(name: str, inputs: Arrays = inputs, notes: str = "", scores: bool = False, **kwargs: Any) -> Call:
        return Call(name, inputs, notes, {**base, **kwargs}, "generate", save_scores=scores)

    yield call("greedy", scores=True)
    yield call("greedy_nopad", {"input_ids": draw.ids(2, 6), "attention_mask": np.ones((2, 6), "int64")})
    yield call("greedy_nomask", {"input_ids": ids}, "attention_mask not given: inferred from pad_token_id")
    yield call("greedy_nocache", use_cache=False)
    yield call("repetition_penalty", scores=True, repetition_penalty=1.7)
    yield call("no_repeat_ngram", no_repeat_ngram_size=2)
    ends = [first[4], second[6]]
    yield call("eos_list", eos_token_id=ends)
    yield call("min_new_tokens", eos_token_id=[first[2], second[3]], min_new_tokens=6)
    yield call("min_length", eos_token_id=[first[1], second[2]], min_length=11)
    words = [[first[1]], [second[0], second[1]], [first[3], first[3]]]
    yield call("bad_words", notes="single-token and two-token bad words", bad_words_ids=words)
    yield call("suppress", suppress_tokens=[first[0], second[2]])
    yield call("forced_eos", max_new_tokens=6, forced_eos_token_id=2)
    combined = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "bad_words_ids": words[:2], "min_new_tokens": 3}
    yield call("combo", scores=True, **combined)
    single = {"input_ids": ids[:1], "attention_mask": mask[:1]}
    yield call("num_return_greedy_batch1", single, max_new_tokens=5)
    fill = "finished hypotheses are filled with pad_token_id; with pad_token_id 0 the first eos id fills instead"
    beam = {"max_new_tokens": 8, "num_beams": 3}
    yield call("beam", **beam)
    yield call("beam_ret2_lp", **beam, num_return_sequences=2, length_penalty=0.4)
    never = {"early_stopping": "never", "num_return_sequences": 3, "length_penalty": 2.0, "pad_token_id": 3}
    for name, settings in (
        ("eos", {}),
        ("eos_early", {"early_stopping": True, "num_return_sequences": 2}),
        ("eos_never", never),
        ("eos_pad3", {"num_return_sequences": 2, "pad_token_id": 3}),
        ("eos_lp_neg", {"length_penalty": -1.0, "num_return_sequences": 2}),
        ("norepeat", {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2}),
    ):
        yield call(f"beam_{name}", notes=fill, eos_token_id=ends, **beam, **settings)


def masked_language_model(draw: Draw) -> Iterator[Call]:
    """Losses of a masked language model."""
    inputs = draw.padded("left")
    labels = draw.some(*inputs.values())
    yield Call("loss", {**inputs, "labels": labels}, kwargs=ALL_STATES, compare="unpadded")
    yield all_ignored(inputs["input_ids"])
    yield Call("embeds", {"inputs_embeds": draw.embeds()})


def multiple_choice(draw: Draw) -> Iterator[Call]:
    """Two rows of three choices."""
    yield Call("loss", {**in_rows(draw.padded("right", (0, 1, 3, 2, 0, 1))), "labels": np.array([2, 0])})


def in_rows(inputs: Arrays) -> Arrays:
    """Inputs of choices as those of two rows of them: (2, choices, length)."""
    return {name: value.reshape(2, -1, value.shape[-1]) for name, value in inputs.items()}


def typed(draw: Draw, *pads: int) -> Arrays:
    """Inputs padded to the right, with the token types of two texts in a row."""
    inputs = draw.padded("right", pads or (1, 3))
    mask = inputs["attention_mask"]
    return {**inputs, "token_type_ids": (np.arange(mask.shape[-1]) > 3) * mask}


def token_types(draw: Draw) -> Iterator[Call]:
    inputs = typed(draw)
    yield Call("token_types", inputs, kwargs={"output_hidden_states": True})
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    yield Call("token_types_embeds", {"inputs_embeds": draw.embeds(), **others})
    beyond = {**inputs, "token_type_ids": inputs["token_type_ids"] * 7}
    yield Call("token_types_beyond", beyond, kind="error")


def pretraining(draw: Draw) -> Iterator[Call]:
    inputs = typed(draw)
    inputs["labels"] = draw.some(inputs["input_ids"], inputs["attention_mask"])
    yield Call("loss", {**inputs, "next_sentence_label": np.array([1, 0])})
    yield Call("half_labels", inputs, "no loss without both labels")


def next_sentence(draw: Draw) -> Iterator[Call]:
    yield Call("loss", {**typed(draw), "labels": np.array([1, 0])})


def double_heads(draw: Draw) -> Iterator[Call]:
    """Two rows of two choices, with both labels, with neither, and without the axis of choices."""
    inputs = in_rows(draw.padded("right", (0, 1, 3, 2)))
    ids, mask = inputs.values()
    labels = {"labels": np.where(mask == 1, ids, -100), "mc_labels": np.array([1, 0])}
    yield Call("loss", {**inputs, "mc_token_ids": np.array([[2, 5], [3, 4]]), **labels})
    yield Call("last_token", inputs)


def typed_choices(draw: Draw) -> Iterator[Call]:
    yield Call("token_types", {**in_rows(typed(draw, 0, 1, 3, 2)), "labels": np.array([1, 0])})


def without(names: Sequence[str], make_calls: Callable[[Draw], Iterator[Call]]) -> Callable[[Draw], Iterator[Call]]:
    """Adapt a function of this module to models that know no such inputs and settings.

    Calls that give one of the inputs are left out; with "use_cache", so are those that hand a cache on.
    """

    @functools.wraps(make_calls)
    def adapted(draw: Draw) -> Iterator[Call]:
        for call in make_calls(draw):
            inputs = {name for step in (call, *call.steps) for name in step.inputs}
            if not inputs & set(names) and not (call.carry == "cache" and "use_cache" in names):
                kwargs = {name: value for name, value in call.kwargs.items() if name not in names}
                yield dataclasses.replace(call, kwargs=kwargs)

    return adapted
