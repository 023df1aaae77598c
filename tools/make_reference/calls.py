"""What the reference cases call: functions of a `Draw` that yield calls."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tools.make_reference.draw import ALL_STATES, NO_CACHE, Call, Draw, positions, uncached


def plain(draw: Draw) -> Iterator[Call]:
    yield Call("plain", inputs={"input_ids": draw.ids()}, kwargs=ALL_STATES)


def left_pad(draw: Draw) -> Iterator[Call]:
    yield uncached("left_pad", draw.masked("left"), compare="unpadded")


def backbone_inputs(draw: Draw) -> Iterator[Call]:
    """Every way of giving a decoder its inputs."""
    yield from plain(draw)
    yield uncached("right_pad", draw.masked("right", (0, 3)), compare="unpadded")
    padded = draw.masked("left")
    ids, mask = padded.values()
    yield Call(
        "left_pad",
        inputs=padded,
        kwargs=ALL_STATES,
        keep=("last_hidden_state", "hidden_states.*", "attentions.0"),
        compare="unpadded",
        notes="no position_ids; rows of padded query positions are implementation-defined",
    )
    yield uncached("left_pad_posids", {**padded, "position_ids": positions(mask)}, compare="unpadded")
    shared = {"input_ids": ids, "position_ids": np.arange(3, 12)[None]}
    yield uncached("posids_shared", shared, "position_ids of batch size 1, starting at 3, no attention_mask")
    embeds = draw.embeds()
    yield uncached("embeds", {"inputs_embeds": embeds})
    yield uncached("embeds_mask", {"inputs_embeds": embeds, "attention_mask": mask}, compare="unpadded")
    holes = np.ones((2, 9), "int64")
    holes[0, 2], holes[1, 3:5] = 0, 0
    yield uncached("mask_holes", {"input_ids": draw.ids(), "attention_mask": holes})
    allowed = np.tril(draw.rng.random((2, 1, 9, 9)) < 0.7) | np.eye(9, dtype=bool)
    additive = np.where(allowed, 0.0, np.finfo("float32").min).astype("float32")
    masked = {"input_ids": draw.ids(), "attention_mask": additive}
    yield uncached("mask4d", masked, "4D additive float mask is used as it is")
    restarting = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 1, 2, 3, 4]])
    packed = {"input_ids": draw.ids(), "position_ids": restarting}
    notes = "no mask, no cache, position_ids restart: block-diagonal (packed) mask"
    yield uncached("packed_posids", packed, notes)
    yield Call(
        "packed_posids_cache",
        inputs=packed,
        kwargs={"use_cache": True},
        keep=("last_hidden_state",),
        notes="same, but use_cache=True: the packed format is NOT detected",
    )
    yield Call("both", kind="error", inputs={"input_ids": ids, "inputs_embeds": embeds})
    yield Call("neither", kind="error", inputs={"attention_mask": mask})


def language_model(draw: Draw) -> Iterator[Call]:
    """Losses, logits_to_keep and caches of a causal language model."""
    # Not on the left: there padding predicts each row's first token, from whatever an implementation lets it see.
    padded = draw.masked("right")
    ids, mask = padded.values()
    labels = np.where(mask == 1, ids, -100)
    yield uncached("loss", {**padded, "labels": labels}, compare="unpadded")
    yield uncached("loss_nomask", {"input_ids": ids, "labels": labels}, keep=("loss",))
    ignored = {"input_ids": ids, "labels": np.full_like(ids, -100)}
    yield uncached("loss_all_ignored", ignored, "every label is -100: loss is NaN", keep=("loss",))
    ids = draw.ids()
    for count in (1, 3):
        kwargs = {"logits_to_keep": count, "use_cache": False}
        yield Call(f"keep_int{count}", inputs={"input_ids": ids}, kwargs=kwargs)
    for name, index, notes in (
        ("keep_tensor", np.array([7, 0, 4]), "1-D index tensor: those positions in that order"),
        ("keep_tensor2d", np.array([[8, 1], [0, 5]]), "2-D index tensor: positions per row"),
        ("keep_bool2d", draw.rng.random(ids.shape) < 0.4, "2-D bool mask: output is flattened to (n_true, vocab)"),
    ):
        yield uncached(name, {"input_ids": ids, "logits_to_keep": index}, notes)
    yield Call(
        "default_cache",
        inputs={"input_ids": draw.ids(1, 4)},
        notes="use_cache not given: config.use_cache decides whether past is returned",
    )
    ids, cuts = draw.ids(2, 11), (0, 6, 7, 8, 9, 11)
    spans = list(itertools.pairwise(cuts))
    kept = [("logits", "past.*")] * 2 + [("logits", "past.0.key")] * 2 + [("logits", "past.*")]
    yield Call(
        "cache",
        kind="steps",
        carry="cache",
        notes="prefill, 3 single tokens, chunk of 2; no mask, no position_ids; the cache only grows, so the caches "
        "that are not stored are prefixes of the last one",
        steps=[Call("", inputs={"input_ids": ids[:, a:b]}, keep=k) for (a, b), k in zip(spans, kept, strict=True)],
    )
    yield uncached("cache_full", {"input_ids": ids}, "the same tokens in one pass; must agree with the flow `cache`")
    ids, mask = draw.padded("left", (2, 4), 11)
    place = positions(mask)
    for name, with_positions, notes in (
        ("cache_left_pad", False, "left padded, mask grows, no position_ids: positions are the plain column index"),
        ("cache_left_pad_posids", True, "left padded, with the position_ids that generate() makes"),
    ):
        steps = []
        for a, b in spans:
            inputs = {"input_ids": ids[:, a:b], "attention_mask": mask[:, :b]}
            if with_positions:
                inputs["position_ids"] = place[:, a:b]
            steps.append(Call("", inputs=inputs, keep=("logits",) if b < 11 else ("logits", "past.0.*")))
        yield Call(name, kind="steps", carry="cache", compare="unpadded", notes=notes, steps=steps)


def long_rotary(draw: Draw) -> Iterator[Call]:
    """Lengths around the switch at 12 of rotary scalings that depend on the length."""
    for name, length in (("exact", 12), ("long", 18)):
        yield uncached(name, {"input_ids": draw.ids(2, length)})
    far = {
        "input_ids": draw.ids(2, 5),
        "position_ids": np.array([[2, 3, 4, 5, 6], [16, 17, 18, 19, 20]]),
        "attention_mask": np.ones((2, 5), "int64"),
    }
    yield uncached("far_posids", far, "max(position_ids)+1, not the number of tokens, decides")
    lengths = (8, 18, 15, 12, 7, 15, 13)
    kwargs = {"use_cache": False, "logits_to_keep": 2}
    yield Call(
        "sequence",
        kind="steps",
        carry="none",
        notes=f"independent forward passes of lengths {list(lengths)} one after another on ONE model object",
        steps=[Call("", inputs={"input_ids": draw.ids(1, n)}, kwargs=kwargs, keep=("logits",)) for n in lengths],
    )
    ids = draw.ids(1, 15)
    steps = [Call("", inputs={"input_ids": ids[:, :10]}, keep=("logits",))]
    steps += [Call("", inputs={"input_ids": ids[:, n : n + 1]}, keep=("logits",)) for n in range(10, 15)]
    steps[-1].keep = ("logits", "past.0.key")
    notes = "decoding across the switching length with a cache: old keys keep the rotation they were stored with"
    yield Call("cache_cross", kind="steps", carry="cache", notes=notes, steps=steps)


def rotary(draw: Draw) -> Iterator[Call]:
    kwargs = {"output_attentions": True, "use_cache": False}
    yield Call("plain", inputs={"input_ids": draw.ids()}, kwargs=kwargs, keep=("logits", "attentions.0"))
    inputs = draw.masked("left")
    inputs["position_ids"] = positions(inputs["attention_mask"])
    yield uncached("left_pad_posids", inputs, compare="unpadded")


def sequence_labels(draw: Draw, rows: int) -> np.ndarray:
    """Labels of the kind that the configuration infers or names."""
    number = draw.config.num_labels
    if draw.config.problem_type == "regression" or number == 1:
        return draw.rng.standard_normal((rows, number) if number > 1 else rows).astype("float32")
    return draw.rng.integers(0, number, rows)


def sequence_classification(draw: Draw) -> Iterator[Call]:
    for side in ("right", "left"):
        yield uncached(f"{side}_pad", {**draw.masked(side), "labels": sequence_labels(draw, 2)})
    yield uncached("nolabels", {"input_ids": draw.ids()})


def single_label_extras(draw: Draw) -> Iterator[Call]:
    ids = draw.ids(3)
    ids[0, 3:5], ids[0, 7:], ids[2] = 0, 0, 0
    notes = (
        "row 0: pad in the middle and at the end -> rightmost non-pad token; last row: only pads -> index 0. "
        "attention_mask plays no role"
    )
    yield uncached("pad_inside", {"input_ids": ids, "labels": sequence_labels(draw, 3)}, notes)
    inputs = {"inputs_embeds": draw.embeds(), "labels": sequence_labels(draw, 2)}
    inputs["attention_mask"] = draw.padded("right")[1]
    yield uncached("embeds", inputs, "inputs_embeds: always the last column")


def regression_extras(draw: Draw) -> Iterator[Call]:
    yield uncached("batch1", {"input_ids": draw.ids(1), "labels": sequence_labels(draw, 1)})
    yield uncached("labels_2d", {"input_ids": draw.ids(), "labels": sequence_labels(draw, 2)[:, None]})


def multi_label(draw: Draw) -> Iterator[Call]:
    for side in ("right", "left"):
        inputs = draw.masked(side)
        labels = draw.rng.integers(0, 2, (2, draw.config.num_labels)).astype("float32")
        yield uncached(f"{side}_pad", {**inputs, "labels": labels})
    yield uncached("nolabels", {"input_ids": draw.ids()})


def without_pad_id(draw: Draw) -> Iterator[Call]:
    inputs = {"input_ids": draw.ids(1), "labels": sequence_labels(draw, 1)}
    yield uncached("batch1", inputs, "pad_token_id None and batch 1: last column")
    yield Call("batch2", kind="error", inputs={"input_ids": draw.ids()}, kwargs=NO_CACHE)


def token_classification(draw: Draw) -> Iterator[Call]:
    inputs = draw.masked("right", (0, 3))
    mask = inputs["attention_mask"]
    labels = np.where(mask == 1, draw.rng.integers(0, draw.config.num_labels, mask.shape), -100)
    yield uncached("loss", {**inputs, "labels": labels}, compare="unpadded")
    yield uncached("loss_all_ignored", {**inputs, "labels": np.full_like(labels, -100)}, "NaN", keep=("loss",))
    yield uncached("embeds", {"inputs_embeds": draw.embeds()})


def question_answering(draw: Draw) -> Iterator[Call]:
    padded = draw.masked("right", (0, 3))
    for name, start, end, notes in (
        ("in_range", [2, 1], [4, 5], ""),
        ("out_of_range", [2, 12], [9, 3], "position >= length is clamped to length and ignored in the mean"),
        ("negative", [-3, 1], [4, -1], "negative positions are clamped to 0 and DO count"),
        ("all_out", [20, 30], [4, 5], "all starts ignored: NaN"),
        ("shape_b1", [[2], [1]], [[4], [5]], "positions of shape (B,1) are squeezed"),
    ):
        inputs = {**padded, "start_positions": np.array(start), "end_positions": np.array(end)}
        if name == "in_range":
            yield Call(name, inputs=inputs, compare="unpadded")
        else:
            yield Call(name, inputs=inputs, keep=("loss",), notes=notes)
    yield Call("nolabels", inputs={"inputs_embeds": draw.embeds()})


def stored_dtype(draw: Draw) -> Iterator[Call]:
    kwargs = {"output_hidden_states": True, "use_cache": False}
    common = {"inputs": draw.masked("left"), "kwargs": kwargs, "compare": "unpadded"}
    yield Call("as_float32", notes="weights cast to float32 at load", **common)
    stored = str(draw.config.dtype).removeprefix("torch.")
    notes = "computed in the stored dtype; outputs stored as float32"
    yield Call("native", dtype=stored, notes=notes, **common)


def generation(draw: Draw) -> Iterator[Call]:
    """Greedy decoding, its processors, and beam search."""
    inputs = draw.masked("left", (0, 2), 6)
    ids, mask = inputs.values()
    written = draw.greedy(inputs)
    base = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2}

    def call(name: str, inputs: dict = inputs, notes: str | None = None, scores: bool = False, **kwargs: Any) -> Call:
        return Call(name, "generate", inputs, {**base, **kwargs}, None, notes=notes, save_scores=scores)

    def seen(row: int, step: int) -> int:
        return int(written[row, step])

    yield call("greedy", scores=True)
    yield call("greedy_nopad", {"input_ids": draw.ids(2, 6), "attention_mask": np.ones((2, 6), "int64")})
    yield call("greedy_nomask", {"input_ids": ids}, "attention_mask not given: inferred from pad_token_id")
    yield call("greedy_nocache", use_cache=False)
    yield call("repetition_penalty", scores=True, repetition_penalty=1.7)
    yield call("no_repeat_ngram", no_repeat_ngram_size=2)
    ends = [seen(0, 4), seen(1, 6)]
    yield call("eos_list", eos_token_id=ends)
    yield call("min_new_tokens", eos_token_id=[seen(0, 2), seen(1, 3)], min_new_tokens=6)
    yield call("min_length", eos_token_id=[seen(0, 1), seen(1, 2)], min_length=11)
    words = [[seen(0, 1)], [seen(1, 0), seen(1, 1)], [seen(0, 3), seen(0, 3)]]
    yield call("bad_words", notes="single-token and two-token bad words", bad_words_ids=words)
    yield call("suppress", suppress_tokens=[seen(0, 0), seen(1, 2)])
    yield call("forced_eos", max_new_tokens=6, forced_eos_token_id=2)
    combined = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "bad_words_ids": words[:2], "min_new_tokens": 3}
    yield call("combo", scores=True, **combined)
    single = {"input_ids": ids[:1], "attention_mask": mask[:1]}
    yield call("num_return_greedy_batch1", single, max_new_tokens=5)
    fill = "finished hypotheses are filled with pad_token_id; with pad_token_id 0 the first eos id fills instead"
    beam = {"max_new_tokens": 8, "num_beams": 3}
    yield call("beam", **beam)
    yield call("beam_ret2_lp", **beam, num_return_sequences=2, length_penalty=0.4)
    for name, settings in (
        ("eos", {}),
        ("eos_early", {"early_stopping": True, "num_return_sequences": 2}),
        (
            "eos_never",
            {"early_stopping": "never", "num_return_sequences": 3, "length_penalty": 2.0, "pad_token_id": 3},
        ),
        ("eos_pad3", {"num_return_sequences": 2, "pad_token_id": 3}),
        ("eos_lp_neg", {"length_penalty": -1.0, "num_return_sequences": 2}),
        ("norepeat", {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2}),
    ):
        yield call(f"beam_{name}", notes=fill, eos_token_id=ends, **beam, **settings)


def masked_language_model(draw: Draw) -> Iterator[Call]:
    """Losses of a masked language model."""
    inputs = draw.masked("left")
    ids, mask = inputs.values()
    labels = np.where((mask == 1) & (draw.rng.random(ids.shape) < 0.5), ids, -100)
    yield Call("loss", inputs={**inputs, "labels": labels}, kwargs=ALL_STATES, compare="unpadded")
    ignored = {"input_ids": ids, "labels": np.full_like(ids, -100)}
    yield Call("loss_all_ignored", inputs=ignored, keep=("loss",), notes="every label is -100: loss is NaN")
    yield Call("embeds", inputs={"inputs_embeds": draw.embeds()})


def multiple_choice(draw: Draw) -> Iterator[Call]:
    """Two rows of three choices."""
    inputs = in_rows(draw.masked("right", (0, 1, 3, 2, 0, 1)))
    yield Call("loss", inputs={**inputs, "labels": np.array([2, 0])})


def in_rows(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of choices as those of two rows of them: (2, choices, length)."""
    return {name: value.reshape(2, -1, value.shape[-1]) for name, value in inputs.items()}


def types_of(mask: np.ndarray) -> np.ndarray:
    """Token types of two texts in a row."""
    return (np.arange(mask.shape[-1]) > 3) * mask


def typed(draw: Draw, *pads: int) -> dict[str, np.ndarray]:
    """Inputs padded to the right, with token types."""
    inputs = draw.masked("right", pads or (1, 3))
    return {**inputs, "token_type_ids": types_of(inputs["attention_mask"])}


def token_types(draw: Draw) -> Iterator[Call]:
    inputs = typed(draw)
    yield Call("token_types", inputs=inputs, kwargs={"output_hidden_states": True})
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    yield Call("token_types_embeds", inputs={"inputs_embeds": draw.embeds(), **others})
    beyond = {**inputs, "token_type_ids": inputs["token_type_ids"] * 7}
    yield Call("token_types_beyond", kind="error", inputs=beyond)


def pretraining(draw: Draw) -> Iterator[Call]:
    inputs = typed(draw)
    ids, mask, _ = inputs.values()
    labels = np.where((mask == 1) & (draw.rng.random(ids.shape) < 0.5), ids, -100)
    yield Call("loss", inputs={**inputs, "labels": labels, "next_sentence_label": np.array([1, 0])})
    yield Call("half_labels", inputs={**inputs, "labels": labels}, notes="no loss without both labels")


def next_sentence(draw: Draw) -> Iterator[Call]:
    yield Call("loss", inputs={**typed(draw), "labels": np.array([1, 0])})


def double_heads(draw: Draw) -> Iterator[Call]:
    """Two rows of two choices, with both labels, with neither, and without the axis of choices."""
    inputs = in_rows(draw.masked("right", (0, 1, 3, 2)))
    ids, mask = inputs.values()
    labels = {"labels": np.where(mask == 1, ids, -100), "mc_labels": np.array([1, 0])}
    yield uncached("loss", {**inputs, "mc_token_ids": np.array([[2, 5], [3, 4]]), **labels})
    yield uncached("last_token", inputs)


def typed_choices(draw: Draw) -> Iterator[Call]:
    yield Call("token_types", inputs={**in_rows(typed(draw, 0, 1, 3, 2)), "labels": np.array([1, 0])})


MakeCalls = Callable[[Draw], Iterator[Call]]


def without(*names: str) -> Callable[[MakeCalls], MakeCalls]:
    """Adapt a function of this module to models that know no such inputs and settings.

    Calls that give one of the inputs are left out; with "use_cache", so are those that hand a cache on.
    """

    def adapted(make_calls: MakeCalls) -> MakeCalls:
        @functools.wraps(make_calls)
        def calls(draw: Draw) -> Iterator[Call]:
            for call in make_calls(draw):
                inputs = {name for step in (call, *call.steps) for name in step.inputs}
                if inputs & set(names) or (call.carry == "cache" and "use_cache" in names):
                    continue
                kwargs = {name: value for name, value in call.kwargs.items() if name not in names}
                yield dataclasses.replace(call, kwargs=kwargs)

        return calls

    return adapted
