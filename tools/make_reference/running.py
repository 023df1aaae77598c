"""Run calls on models and on copies whose weights moved a little, and measure how far outputs change."""

from __future__ import annotations

import copy
import fnmatch
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers

from tools.make_reference.draw import Call, Draw, to_numpy, to_torch
from tools.make_reference.families import Case, Family

FLOAT_ATOL, HALF_ATOL = 1e-5, 1e-3
NOISE_RUNS = 3
# Moving every weight by up to a whole unit in the last place of its dtype.
ULP = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def field_names(output: Any) -> list[str]:
    """The fields of an output, under the names that they have had longest."""
    return ["past_key_values" if name == "cache" else name for name in output]


def flatten(output: Any) -> dict[str, np.ndarray]:
    """Arrays of an output by the names that io.npz gives them: logits, hidden_states.0, past.1.key, ..."""
    arrays = {}
    for name in field_names(output):
        value = getattr(output, name)
        if name == "past_key_values":
            for index, layer in enumerate(value.layers):
                arrays |= {f"past.{index}.key": to_numpy(layer.keys), f"past.{index}.value": to_numpy(layer.values)}
        elif isinstance(value, tuple):
            arrays |= {f"{name}.{index}": to_numpy(item) for index, item in enumerate(value)}
        else:
            arrays[name] = to_numpy(value)
    return arrays


def wanted(arrays: dict[str, np.ndarray], keep: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not keep:
        return arrays
    return {name: value for name, value in arrays.items() if any(fnmatch.fnmatch(name, rule) for rule in keep)}


@torch.no_grad()
def run(model: Any, call: Call) -> dict[str, np.ndarray]:
    """A call's outputs under their names in io.npz, without the call's own name."""
    if call.kind == "generate":
        extra = {"output_scores": True} if call.save_scores or call.kwargs.get("num_beams", 1) > 1 else {}
        result = model.generate(**to_torch(call.inputs), **call.kwargs, **extra, return_dict_in_generate=True)
        outputs = {"out.sequences": to_numpy(result.sequences)}
        if call.kwargs.get("num_beams", 1) > 1:
            outputs["out.sequences_scores"] = to_numpy(result.sequences_scores)
            outputs["out.beam_indices"] = to_numpy(result.beam_indices).astype("int64")
        elif call.save_scores:
            outputs["out.scores"] = np.stack([to_numpy(scores) for scores in result.scores])
        return outputs
    if call.kind == "steps":
        outputs, past = {}, None
        for index, step in enumerate(call.steps):
            carried = {"use_cache": True, "past_key_values": past} if call.carry == "cache" else {}
            output = model(**to_torch(step.inputs), **{**carried, **step.kwargs}, return_dict=True)
            # The cache is one growing object: its arrays are copied before the next step.
            past = output.past_key_values if call.carry == "cache" else None
            arrays = wanted(flatten(output), step.keep)
            outputs |= {f"step{index}.out.{name}": value.copy() for name, value in arrays.items()}
        return outputs
    output = model(**to_torch(call.inputs), **call.kwargs, return_dict=True)
    return {f"out.{name}": value for name, value in wanted(flatten(output), call.keep).items()}


def cast(model: Any, dtype: str) -> Any:
    """A copy of a model with its parameters in another dtype; buffers (rotary frequencies) stay in float32."""
    result = copy.deepcopy(model)
    for parameter in result.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return result


@torch.no_grad()
def moved(model: Any, dtype: str, seed: int) -> Any:
    """A copy in a dtype whose weights are off by up to a unit in the last place."""
    result = cast(model, dtype)
    generator = torch.Generator().manual_seed(seed)
    for parameter in result.parameters():
        shift = torch.rand(parameter.shape, generator=generator) * 2 - 1
        parameter.copy_((parameter.float() * (1 + ULP[dtype] * shift)).to(parameter.dtype))
    return result


def round_up(value: float) -> float:
    return float(f"{value:.1e}")


def measure(name: str, value: np.ndarray, others: list[np.ndarray], dtype: str) -> dict[str, Any]:
    """An entry of `outputs`: shape, dtype, noise and tolerance."""
    entry: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.dtype)}
    if value.dtype.kind in "iu":
        return entry
    noise = 0.0
    for other in others:
        difference = np.abs(np.where(np.isfinite(value), value, 0) - np.where(np.isfinite(other), other, 0))
        noise = max(noise, float(difference.max(initial=0)))
    least, factor = (FLOAT_ATOL, 10) if dtype == "float32" else (HALF_ATOL, 3)
    entry |= {"noise": round_up(noise), "atol": max(least, round_up(factor * noise))}
    if not np.isfinite(value).all():
        entry["nonfinite"] = True
    return entry


def ids_hold(outputs: dict[str, np.ndarray], others: list[dict[str, np.ndarray]]) -> bool:
    """Whether generated ids stay the same when the weights move a little."""
    ids = [name for name, value in outputs.items() if value.dtype.kind in "iu"]
    return all(np.array_equal(outputs[name], other[name]) for name in ids for other in others)


def initialise(model: Any, rng: np.random.Generator) -> None:
    """Weights far from the usual tiny ones, so that every part of the model shows in the outputs."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                base = 1.0 if name.endswith("weight") else 0.0  # a norm's
                values = base + 0.2 * rng.standard_normal(parameter.shape)
            else:
                values = 1.2 * rng.standard_normal(parameter.shape) / np.sqrt(parameter.shape[1])
            parameter.copy_(torch.from_numpy(values.astype("float32")))


def random_model(family: Family, case: Case, rng: np.random.Generator) -> Any:
    """The model of a case."""
    model_class = getattr(transformers, family.class_name(case.head))
    # from_dict copies what it is given: transformers writes defaults into nested dicts.
    config = model_class.config_class(**json.loads(json.dumps({**family.config, **case.config})))
    config._attn_implementation = "eager"
    config.dtype = case.dtype
    model = model_class(config).eval()
    initialise(model, rng)
    # What was stored is what is run, also for half precision.
    return cast(cast(model, case.dtype), "float32")


def stable_calls(
    make_calls: Callable[[Draw], Iterator[Call]], draw: Draw, seed: int, tries: int = 20
) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Run the calls of a function of `calls`; all of it is drawn again until generated ids hold under noise."""
    model = draw.model
    dtypes: dict[str, tuple[Any, list[Any]]] = {}

    def models(dtype: str) -> tuple[Any, list[Any]]:
        if dtype not in dtypes:
            exact = model if dtype == "float32" else cast(model, dtype)
            dtypes[dtype] = exact, [moved(model, dtype, seed + index) for index in range(NOISE_RUNS)]
        return dtypes[dtype]

    for _ in range(tries):
        results, full = [], {}
        for call in make_calls(draw):
            exact, noisy = models(call.dtype)
            entry = call.described()
            if call.kind == "error":
                entry |= {"error": error_of(exact, call), "outputs": {}}
                results.append((entry, stored_inputs(call)))
                continue
            outputs = run(exact, call)
            others = [run(other, call) for other in noisy]
            if not ids_hold(outputs, others):
                break
            entry["outputs"] = {
                name: measure(name, value, [other[name] for other in others], call.dtype)
                for name, value in outputs.items()
            }
            if call.dtype == "float32":
                full = outputs
            else:
                for name, value in outputs.items():
                    distance = np.linalg.norm(value - full[name]) / np.linalg.norm(full[name])
                    entry["outputs"][name]["rel_l2_to_float32"] = float(f"{distance:.3g}")
            arrays = {f"{call.name}.{name}": value for name, value in outputs.items()}
            results.append((entry, {**stored_inputs(call), **arrays}))
        else:
            return results
    raise SystemExit(f"{make_calls.__name__}: ids change with the weights' last bits in each of {tries} draws")


def stored_inputs(call: Call) -> dict[str, np.ndarray]:
    """A call's inputs under their names in io.npz; bools as int64, as `bool_inputs` says."""
    steps = enumerate(call.steps)
    named = {f"{call.name}.step{i}.in.{name}": value for i, step in steps for name, value in step.inputs.items()}
    named |= {f"{call.name}.in.{name}": value for name, value in call.inputs.items()}
    return {name: value if value.dtype.kind == "f" else value.astype("int64") for name, value in named.items()}


def error_of(model: Any, call: Call) -> str:
    try:
        with torch.no_grad():
            model(**to_torch(call.inputs), **call.kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise SystemExit(f"{call.name}: transformers {transformers.__version__} raises nothing here")
