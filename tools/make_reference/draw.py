"""Calls of a model and the random inputs they are given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

NO_CACHE = {"use_cache": False}
ALL_STATES = {"output_hidden_states": True, "output_attentions": True, "use_cache": False}


@dataclasses.dataclass
class Call:
    """One entry of meta.json's `calls`; `steps` holds the inputs and settings of each step of kind "steps"."""

    name: str
    kind: str = "forward"
    inputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    compare: str | None = "all"
    keep: tuple[str, ...] = ()
    notes: str | None = None
    dtype: str = "float32"
    save_scores: bool = False
    carry: str | None = None
    steps: list[Call] = dataclasses.field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """The entry without its outputs."""
        entry: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind == "steps":
            entry |= {"carry": self.carry, "compare": self.compare}
            entry["steps"] = [
                {"inputs": list(step.inputs), "kwargs": step.kwargs, "keep": list(step.keep)} for step in self.steps
            ]
        else:
            entry |= {"kwargs": self.kwargs, "inputs": list(self.inputs)}
            if self.kind == "generate":
                entry["save_scores"] = self.save_scores
            elif self.kind == "forward":
                entry["compare"] = self.compare
            if self.keep:
                entry["keep"] = list(self.keep)
            bools = [name for name, value in self.inputs.items() if value.dtype == bool]
            if bools:
                entry["bool_inputs"] = bools
        if self.notes:
            entry["notes"] = self.notes
        return entry | {"dtype": self.dtype}


def uncached(
    name: str,
    inputs: dict[str, np.ndarray],
    notes: str | None = None,
    *,
    keep: tuple[str, ...] = (),
    compare: str | None = "all",
) -> Call:
    """A forward pass without a cache."""
    return Call(name, inputs=inputs, kwargs=NO_CACHE, keep=keep, compare=compare, notes=notes)


class Draw:
    """Random inputs of one case, the same for the same seed, and its model for calls that depend on what it writes."""

    def __init__(self, rng: np.random.Generator, model: Any):
        self.rng = rng
        self.model = model
        self.config = model.config

    def ids(self, rows: int = 2, length: int = 9) -> np.ndarray:
        # 0, 1 and 2 are the special tokens of every small configuration here.
        return self.rng.integers(3, self.config.vocab_size, (rows, length))

    def embeds(self, rows: int = 2, length: int = 9) -> np.ndarray:
        return self.rng.standard_normal((rows, length, self.config.hidden_size)).astype("float32")

    def padded(self, side: str, pads: tuple[int, ...] = (1, 3), length: int = 9) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = self.ids(len(pads), length), np.ones((len(pads), length), "int64")
        for row, count in enumerate(pads):
            columns = slice(0, count) if side == "left" else slice(length - count, length)
            ids[row, columns], mask[row, columns] = self.config.pad_token_id or 0, 0
        return ids, mask

    def masked(self, *arguments: Any) -> dict[str, np.ndarray]:
        """Ids and mask of `padded` as a model's inputs."""
        ids, mask = self.padded(*arguments)
        return {"input_ids": ids, "attention_mask": mask}

    def greedy(self, inputs: dict[str, np.ndarray], new: int = 12) -> np.ndarray:
        """New ids (rows, new) that the model writes greedily when nothing ends it."""
        sequences = self.model.generate(**to_torch(inputs), max_new_tokens=new, do_sample=False, eos_token_id=None)
        return sequences[:, -new:].numpy()


def positions(mask: np.ndarray) -> np.ndarray:
    return np.maximum(mask.cumsum(1) - 1, 0)


def to_torch(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}


def to_numpy(value: Any) -> np.ndarray:
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).numpy()
