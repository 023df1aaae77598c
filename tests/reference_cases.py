"""Reads the reference cases below tests/reference and runs them through the public API.

A case is a folder with a checkpoint, `io.npz` (inputs and expected outputs) and `meta.json` (what was called). The
format is described in tests/reference/README.md; `python -m tools.make_reference` makes such folders.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tfmodels

ROOT = Path(__file__).parent / "reference"

# What the reference does and tfmodels does not, on purpose: (architecture, case, call) -> why.
DECIDED_AGAINST = {
    ("*", "rope_dynamic", "sequence"): "frequencies follow this call's positions, not the longest call before it",
    ("*", "*", "keep_bool2d"): "a mask of logits to keep would make the output's shape depend on values",
    ("mpt", "ignored_options", "*"): "no option is ignored: see tests/families/test_mpt.py",
    ("mpt", "max_seq_len", "longer"): "ALiBi has no longest input",
}


# Calls of `generate` that are compiled in every family.
COMPILED = ("greedy", "greedy_nocache")


@functools.cache
def meta_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


@functools.cache
def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "io.npz"))


@functools.lru_cache(maxsize=2)
def model_of(folder: Path, dtype: str) -> Any:
    model_class = getattr(tfmodels, "TF" + meta_of(folder)["class"])
    return model_class.from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def find(kinds: set[str]) -> list[tuple[str, Path, dict[str, Any]]]:
    """All calls of some kinds: (id, case folder, call)."""
    found = []
    for meta in sorted(ROOT.glob("*/*/meta.json")):
        folder = meta.parent
        for call in meta_of(folder).get("calls", ()):
            place = (folder.parent.name, folder.name, call["name"])
            decided = any(all(a in ("*", b) for a, b in zip(rule, place, strict=True)) for rule in DECIDED_AGAINST)
            if call["kind"] in kinds and not decided:
                found.append(("/".join(place), folder, call))
    return found


def inputs_of(folder: Path, call: dict[str, Any], start: str, names: list[str]) -> dict[str, np.ndarray]:
    values = {}
    for name in names:
        value = arrays_of(folder)[f"{start}.in.{name}"]
        values[name] = value.astype(bool) if name in call.get("bool_inputs", ()) else value
    return values


def part_of(output: Any, path: str) -> np.ndarray:
    """`hidden_states.0`, `past.1.key`, `logits`: that part of an output."""
    first, *rest = path.split(".")
    if first == "past":
        value = output.past_key_values[int(rest[0])][("key", "value").index(rest[1])]
    else:
        value = getattr(output, first)
        for step in rest:
            value = value[int(step)]
    return np.asarray(value).astype("float32")


class Difference(NamedTuple):
    """How far an output is from what it should be.

    Fields:
        where: which output.
        worst: largest absolute difference.
        atol: what is allowed.
    """

    where: str
    worst: float
    atol: float


def difference(
    got: np.ndarray, want: np.ndarray, atol: float, mask: np.ndarray | None, length: int, where: str
) -> Difference:
    """Compare; with a (batch, columns) mask, only queries and cached positions that are tokens.

    Of a windowed layer the reference's cache holds the last positions alone; caches here keep all.
    """
    if ".past." in where and got.shape[2] > want.shape[2]:
        got = got[:, :, -want.shape[2] :]
        mask = None if mask is None else mask[:, -want.shape[2] :]
    assert got.shape == want.shape, f"{where}: shape {got.shape}, expected {want.shape}"
    keep = np.ones(want.shape, bool)
    if mask is not None and want.ndim >= 2:
        own = mask[:, -length:].astype(bool)
        if want.ndim == 4 and want.shape[2] == want.shape[3]:
            keep &= own[:, None, :, None]
        elif want.ndim == 4:
            keep &= mask[:, : want.shape[2]].astype(bool)[:, None, :, None]
        elif want.shape[1] == length:
            keep &= own.reshape(own.shape + (1,) * (want.ndim - 2))
    keep &= ~(np.isnan(got) & np.isnan(want))  # the mean over no label at all
    return Difference(where, float(np.abs(np.where(keep, got - want, 0)).max(initial=0.0)), atol)


def check(differences: Iterable[Difference]) -> None:
    for where, worst, atol in differences:
        assert worst <= atol, f"{where}: largest difference {worst:.2e}, allowed {atol:.1e}"


def mask_for(call: dict[str, Any], inputs: dict[str, np.ndarray]) -> np.ndarray | None:
    mask = inputs.get("attention_mask")
    return mask if call.get("compare") == "unpadded" and mask is not None and mask.ndim == 2 else None


def forward_differences(
    folder: Path, call: dict[str, Any], transform: Any = lambda model: model
) -> Iterator[Difference]:
    """Every output of a call of kind "forward", of a model that `transform` may have compiled."""
    inputs = inputs_of(folder, call, call["name"], call["inputs"])
    model = transform(model_of(folder, call.get("dtype", "float32")))
    output = model(**inputs, **call.get("kwargs", {}), return_dict=True)
    length = inputs.get("input_ids", inputs.get("inputs_embeds")).shape[1]
    for key, spec in call["outputs"].items():
        if key.startswith("out."):
            want = arrays_of(folder)[f"{call['name']}.{key}"]
            yield difference(part_of(output, key[4:]), want, spec["atol"], mask_for(call, inputs), length, key)


def steps_differences(folder: Path, call: dict[str, Any]) -> Iterator[Difference]:
    """Every output of every step of a call of kind "steps"."""
    model = model_of(folder, call.get("dtype", "float32"))
    past = None
    for index, step in enumerate(call["steps"]):
        inputs = inputs_of(folder, call, f"{call['name']}.step{index}", step["inputs"])
        extra = dict(step.get("kwargs", {}))
        if call["carry"] == "cache":
            extra |= {"use_cache": True, "past_key_values": past}
        output = model(**inputs, **extra, return_dict=True)
        past = output.past_key_values if call["carry"] == "cache" else None
        length = inputs["input_ids"].shape[1]
        for key, spec in call["outputs"].items():
            start = f"step{index}.out."
            if key.startswith(start):
                want = arrays_of(folder)[f"{call['name']}.{key}"]
                got = part_of(output, key[len(start) :])
                yield difference(got, want, spec["atol"], mask_for(call, inputs), length, key)


def run_forward(folder: Path, call: dict[str, Any], transform: Any = lambda model: model) -> None:
    check(forward_differences(folder, call, transform))


def run_steps(folder: Path, call: dict[str, Any]) -> None:
    check(steps_differences(folder, call))


def run_generate(folder: Path, call: dict[str, Any]) -> None:
    model = model_of(folder, call.get("dtype", "float32"))
    inputs = inputs_of(folder, call, call["name"], call["inputs"])
    # Settings are code that all families share. Llama's calls are compiled, but for those of beams that differ in
    # numbers alone; of another family's calls those of COMPILED, and beams for GPT-Neo's windows. The others run as
    # plain graphs.
    family, name = folder.parent.name, call["name"]
    graph = name.startswith("beam_") if family == "llama" else name not in COMPILED
    graph &= (family, name) != ("gpt_neo", "beam")
    options = {"jit_compile": False} if graph else {}
    output = model.generate(**inputs, **call["kwargs"], **options, output_scores=True, return_dict_in_generate=True)
    arrays = arrays_of(folder)
    np.testing.assert_array_equal(np.asarray(output.sequences), arrays[f"{call['name']}.out.sequences"])
    if "out.sequences_scores" in call["outputs"]:
        np.testing.assert_array_equal(np.asarray(output.beam_indices), arrays[f"{call['name']}.out.beam_indices"])
        got, want = np.asarray(output.sequences_scores), arrays[f"{call['name']}.out.sequences_scores"]
        check([difference(got, want, call["outputs"]["out.sequences_scores"]["atol"], None, 0, "sequences_scores")])
    key = f"{call['name']}.out.scores"
    if key in arrays:
        got, want = np.stack([np.asarray(scores) for scores in output.scores]), arrays[key]
        banned = (want < -1e30) & (got < -1e30)
        got, want = np.where(banned, 0, got), np.where(banned, 0, want)
        check([difference(got, want, call["outputs"]["out.scores"]["atol"], None, 0, key)])
