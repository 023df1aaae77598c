"""Verification: compare an artefact's results with those of the model that it came from."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from tfmodels.export.artifact import Runner, Tolerance
from tfmodels.export.formats import FORMATS, format_of
from tfmodels.export.models import causal, context_of, forward, has_token_types, rank_of, transformer_of
from tfmodels.generation.config import GenerationConfig
from tfmodels.utils.text import quote

GREEDY_TOKENS = 64
_TIMED_LENGTH, _TIMED_CALLS = 16, 5


class VerificationError(ValueError):
    """An artefact's results are not those of its source. `report` holds what was found."""

    def __init__(self, message: str, report: VerifyReport):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """The comparison of an artefact with its source.

    Fields:
        differences: by output, the largest difference of any number in any call.
        largest: by output, the largest number that the source gave.
        calls: how many calls were compared.
        tolerance: what was accepted.
        greedy_tokens, equal_tokens: for causal models, how many tokens were generated, and how many before the first
            that differs, over all prompts; else None.
        exact_ids: whether greedy ids had to be the source's, but for choices between scores that are equal within the
            tolerance.
        latency_ms: median time of a call with one row of `latency_tokens` tokens, in milliseconds.
    """

    differences: dict[str, float]
    largest: dict[str, float]
    calls: int
    tolerance: Tolerance
    greedy_tokens: int | None
    equal_tokens: int | None
    latency_ms: float
    latency_tokens: int
    exact_ids: bool = True

    @property
    def largest_difference(self) -> float:
        """Largest difference of any output."""
        return max(self.differences.values())

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the report in lines of two columns, for people."""
        for name, difference in self.differences.items():
            allowed = self.allowed(name)
            yield "largest difference", f"{name}: {difference:.1e} (at most {allowed:.1e}), {self.calls} calls"
        if self.greedy_tokens is not None:
            how = (
                "required, but for ties" if self.exact_ids else "not required: rounded weights or sums change choices"
            )
            yield "greedy tokens", f"{self.equal_tokens} of {self.greedy_tokens} as the model's ({how})"
        yield "latency", f"{self.latency_ms:.2f} ms for 1 x {self.latency_tokens} tokens"

    def allowed(self, name: str) -> float:
        """Largest allowed difference of an output."""
        return self.tolerance.absolute + self.tolerance.relative * self.largest[name]


def verify(
    artefact_path: str | os.PathLike | Runner, source_model: Any, *, tolerance: float | Tolerance | None = None
) -> VerifyReport:
    """Compare an exported artefact with the model it came from.

    Both get the same inputs, fixed and random ones: one row and several, short and long, rows of different lengths
    padded on the right and, for causal models, on the left, where the artefact takes padding. Every output is
    compared, except at padding, where numbers mean nothing. Causal models also continue prompts greedily, 64 tokens
    where the artefact has room for them, and the ids are compared token by token. Ids may differ from where the source
    itself gives two tokens the same score within the tolerance; and everywhere in formats that promise numbers only
    (quantised weights, half precision), as the report says.

    Args:
        artefact_path: what `export` wrote, or a `Runner` that has it open.
        source_model: the model, as it was exported.
        tolerance: largest difference that is accepted, absolute. Default: what the format promises for its dtype
            (`Runner.tolerance`).

    Returns:
        The largest differences, equal tokens and the latency.

    Raises:
        VerificationError: a difference is above the tolerance, an output is missing or has another shape, or greedy
            ids differ where the format promises the same.
        FileNotFoundError: there is no artefact.

    Example:
        >>> import tempfile
        >>> from tfmodels import MPNetConfig, TFMPNetForTokenClassification
        >>> config = MPNetConfig(vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, max_position_embeddings=32)
        >>> model = TFMPNetForTokenClassification(config)
        >>> path = model.export(tempfile.mkdtemp() + "/tagger").path
        >>> verify(path, model).largest_difference < 1e-5
        True
    """
    runner = artefact_path if isinstance(artefact_path, Runner) else _open(artefact_path)
    if not isinstance(tolerance, Tolerance):
        tolerance = runner.tolerance if tolerance is None else Tolerance(float(tolerance))
    limit = min(context_of(source_model), runner.max_length or context_of(source_model))
    differences: dict[str, float] = {}
    largest: dict[str, float] = {}
    calls = 0
    for inputs in inputs_for(source_model, limit):
        tokens = inputs["attention_mask"] != 0
        if not runner.padding and not tokens.all():
            continue
        expected, got = reference(source_model, inputs), runner.run(inputs)
        calls += 1
        for name, values in expected.items():
            found = got.get(name)
            if found is None or found.shape != values.shape:
                what = "is missing" if found is None else f"has shape {found.shape}, not {values.shape}"
                raise ValueError(f"the artefact's output {quote(name)} {what}; it gives {', '.join(got)}.")
            if values.ndim > tokens.ndim or name in ("start_logits", "end_logits"):  # a value per token
                found, values = found[tokens], values[tokens]
            difference = np.abs(found.astype("float64") - values)
            # A number that is none must not pass as one that equals.
            worst = float(np.max(np.where(np.isfinite(difference), difference, np.inf), initial=0))
            differences[name] = max(differences.get(name, 0.0), worst)
            largest[name] = max(largest.get(name, 0.0), float(np.max(np.abs(values), initial=0)))
    length = min(_TIMED_LENGTH, limit)
    report = VerifyReport(
        differences, largest, calls, tolerance, None, None, _latency(runner, source_model, length), length
    )
    tied = True
    if causal(source_model) and runner.generates:
        room = min(context_of(source_model), runner.capacity or context_of(source_model))
        total, equal, tied = _compare_greedy(runner, source_model, room, report.allowed("logits"))
        report = dataclasses.replace(report, greedy_tokens=total, equal_tokens=equal, exact_ids=runner.exact_ids)
    wrong = [name for name in differences if not differences[name] <= report.allowed(name)]
    if wrong:
        details = ", ".join(
            f"{name} by {differences[name]:.2g} (at most {report.allowed(name):.2g})" for name in wrong
        )
        raise VerificationError(f"the artefact's outputs are not the model's: {details}.", report)
    if runner.exact_ids and not tied:
        raise VerificationError(
            f"the artefact's greedy tokens are not the model's: {report.equal_tokens} of {report.greedy_tokens} "
            f"before the first that differs.",
            report,
        )
    return report


def _open(path: str | os.PathLike) -> Runner:
    return FORMATS[format_of(path)].load().open(path)


def inputs_for(model: Any, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield inputs to compare with: dicts of int32 arrays, at most `limit` tokens a row.

    They hold `input_ids` and `attention_mask`, and, where there are several rows, `token_type_ids` of models that tell
    types apart: single rows have type 0.
    """
    config = transformer_of(model).config
    pad = 0 if config.pad_token_id is None else config.pad_token_id
    words = np.setdiff1d(np.arange(config.vocab_size, dtype="int32"), [pad])
    random = np.random.default_rng(0)
    choices = (2,) if rank_of(model) == 3 else ()
    lengths = sorted({min(length, limit) for length in (1, 7, 16, 33)})
    for length in lengths:
        for batch in (1, 3):
            shape = (batch, *choices, length)
            types = {}
            if batch == 1:  # fixed: the vocabulary in order
                ids = np.resize(words, shape)
            else:
                ids = random.choice(words, shape)
                if has_token_types(model):
                    last = transformer_of(model).config.type_vocab_size - 1
                    types["token_type_ids"] = np.broadcast_to(
                        np.linspace(0, last, length).round().astype("int32"), shape
                    )
            yield {"input_ids": ids, "attention_mask": np.ones(shape, "int32"), **types}
            for left in (False, True) if causal(model) else (False,):
                if length > 1 and batch > 1:
                    real = random.integers(1, length, shape[:-1])
                    real[0] = length
                    mask = (np.arange(length) < real[..., None]).astype("int32")
                    mask = mask[..., ::-1] if left else mask
                    padded = np.where(mask == 1, ids, pad).astype("int32")
                    yield {"input_ids": padded, "attention_mask": mask, **types}


def reference(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Call the source model. Returns its outputs by name, float32, without caches and states."""
    return {name: ops.convert_to_numpy(value) for name, value in forward(model, **inputs).items()}


def _compare_greedy(runner: Runner, model: Any, room: int, allowed: float) -> tuple[int, int, bool]:
    """Continue a fixed and a random prompt greedily.

    Args:
        room: most tokens of prompt and continuation.
        allowed: how far logits may be off.

    Returns:
        Tokens generated; tokens before the first that differs, over both prompts; and whether each first difference is
        between tokens whose scores are equal within what is allowed.
    """
    config = model.config
    random = np.random.default_rng(1)
    prompts = [np.arange(1, 6) % config.vocab_size, random.integers(0, config.vocab_size, 11)]
    own = model.generation_config
    total = equal = 0
    tied = True
    try:
        # Plain greedy decoding, whatever else the checkpoint asks for by default.
        model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
        for prompt in prompts:
            ids = prompt[None, : max(1, min(len(prompt), room // 2))].astype("int32")
            start = ids.shape[1]
            new = min(GREEDY_TOKENS, room - start)
            # A plain graph, as the few tokens do not repay XLA's compilation.
            run = model.generate(ids, attention_mask=np.ones_like(ids), max_new_tokens=new, jit_compile=False)
            expected = np.asarray(run)[0]
            got = np.asarray(runner.generate(ids, new))[0]
            both = min(len(expected), len(got))
            differing = np.flatnonzero(expected[:both] != got[:both])
            first = int(differing[0]) if len(differing) else both
            total += max(len(expected), len(got)) - start
            equal += first - start
            if len(differing):
                seen = expected[None, :first]
                scores = reference(model, {"input_ids": seen, "attention_mask": np.ones_like(seen)})["logits"][0, -1]
                # Either score may be off by as much.
                tied &= bool(abs(scores[expected[first]] - scores[got[first]]) <= 2 * allowed)
            else:
                tied &= len(expected) == len(got)
    finally:
        model.generation_config = own
    return total, equal, tied


def _latency(runner: Runner, model: Any, length: int) -> float:
    inputs = next(inputs for inputs in inputs_for(model, length) if inputs["input_ids"].shape[-1] == length)
    times = []
    for _ in range(_TIMED_CALLS + 1):
        start = time.perf_counter()
        runner.run(inputs)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[1:]))
