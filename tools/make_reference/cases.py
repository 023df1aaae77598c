"""Make cases: weights, config.json, io.npz with inputs and outputs, meta.json with calls and tolerances.

Calls run on a case's model and on copies whose weights moved a little, which tells how far outputs change. A training
case has the loss of one batch, its gradients, and the weights after a few steps of AdamW instead of calls.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import functools
import inspect
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tfmodels.auto import FAMILIES as PUBLIC
from tools.make_reference.calls import NO_CACHE, Arrays, Call, Draw, sequence_labels, to_numpy, to_torch
from tools.make_reference.families import CHOICE, FAMILIES, QA, SEQUENCE, Case, old_spelling

# The cases whose heads are trained; each becomes train_<name>, of the family's tiny configuration.
TRAINED = ("causal_lm", "masked_lm", "multiple_choice", "next_sentence")
TRAINED += ("pretraining", "qa", "seqcls_single", "token_cls")
STEPS = 5
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
FLOAT_ATOL, HALF_ATOL = 1e-5, 1e-3
NOISE_RUNS = 3
# Moving every weight by up to a whole unit in the last place of its dtype.
ULP = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def field_names(output: Any) -> list[str]:
    """The fields of an output, under the names that they have had longest."""
    return ["past_key_values" if name == "cache" else name for name in output]


def flatten(output: Any) -> Arrays:
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


def wanted(output: Any, prefix: str, keep: tuple[str, ...]) -> Arrays:
    """Copies of an output's arrays, of all or of those whose names are as `keep` has them, under longer names."""
    rules = keep or ("*",)
    kept = {name: value for name, value in flatten(output).items() if any(fnmatch.fnmatch(name, r) for r in rules)}
    return {f"{prefix}out.{name}": value.copy() for name, value in kept.items()}


def run(model: Any, call: Call) -> Arrays:
    """A call's outputs under their names in io.npz, without the call's own name."""
    if call.kind == "generate":
        searches = call.kwargs.get("num_beams", 1) > 1
        settings = {"output_scores": call.save_scores or searches, "return_dict_in_generate": True}
        result = model.generate(**to_torch(call.inputs), **call.kwargs, **settings)
        outputs = {"out.sequences": to_numpy(result.sequences)}
        if searches:
            outputs["out.sequences_scores"] = to_numpy(result.sequences_scores)
            outputs["out.beam_indices"] = to_numpy(result.beam_indices).astype("int64")
        elif call.save_scores:
            outputs["out.scores"] = np.stack([to_numpy(scores) for scores in result.scores])
        return outputs
    if call.kind != "steps":
        return wanted(model(**to_torch(call.inputs), **call.kwargs, return_dict=True), "", call.keep)
    outputs, carried = {}, {"use_cache": True} if call.carry == "cache" else {}
    for index, step in enumerate(call.steps):
        output = model(**to_torch(step.inputs), **{**carried, **step.kwargs}, return_dict=True)
        carried |= {"past_key_values": output.past_key_values} if carried else {}
        # The cache is one growing object, of which the copies are what it holds now.
        outputs |= wanted(output, f"step{index}.", step.keep)
    return outputs


def cast(model: Any, dtype: str) -> Any:
    """A copy of a model with its parameters in another dtype; buffers (rotary frequencies) stay in float32."""
    result = copy.deepcopy(model)
    for parameter in result.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return result


def moved(model: Any, dtype: str, seed: int) -> Any:
    """A copy in a dtype whose weights are off by up to a unit in the last place."""
    result = cast(model, dtype)
    generator = torch.Generator().manual_seed(seed)
    for parameter in result.parameters():
        shift = torch.rand(parameter.shape, generator=generator) * 2 - 1
        parameter.data = (parameter.data.float() * (1 + ULP[dtype] * shift)).to(parameter.dtype)
    return result


def measure(value: np.ndarray, others: list[np.ndarray], dtype: str) -> dict[str, Any]:
    """An entry of `outputs`: shape, dtype, noise and tolerance."""
    entry: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.dtype)}
    if value.dtype.kind in "iu":
        return entry
    finite = [np.where(np.isfinite(one), one, 0) for one in (value, *others)]
    noise = max(float(np.abs(finite[0] - other).max(initial=0)) for other in finite[1:])
    least, factor = (FLOAT_ATOL, 10) if dtype == "float32" else (HALF_ATOL, 3)
    noise, atol = (float(f"{number:.1e}") for number in (noise, factor * noise))
    entry |= {"noise": noise, "atol": max(least, atol)}
    return entry if np.isfinite(value).all() else {**entry, "nonfinite": True}


def class_name(arch: str, case: Case) -> str:
    """The class in transformers of a case's model."""
    return PUBLIC[arch].class_name(case.head).removeprefix("TF")


def random_model(arch: str, case: Case, rng: np.random.Generator) -> Any:
    """The model of a case."""
    model_class = getattr(transformers, class_name(arch, case))
    # transformers writes defaults into nested dicts, so it gets copies.
    config = model_class.config_class(**copy.deepcopy({**FAMILIES[arch].config, **case.config}))
    config._attn_implementation = "eager"
    config.dtype = case.dtype
    model = model_class(config).eval()
    # Weights far from the usual tiny ones, so that every part of the model shows in the outputs.
    for name, parameter in sorted(model.named_parameters()):
        values = rng.standard_normal(parameter.shape)
        if parameter.ndim == 1:
            values = float(name.endswith("weight")) + 0.2 * values  # a norm's are around 1
        else:
            values = 1.2 * values / np.sqrt(parameter.shape[1])
        parameter.data = torch.from_numpy(values.astype("float32"))
    # The model runs in float32, with the numbers that a file of the case's dtype holds.
    return cast(cast(model, case.dtype), "float32")


def stable_calls(
    make_calls: Callable[[Draw], Iterator[Call]], draw: Draw, seed: int, tries: int = 20
) -> list[tuple[dict[str, Any], Arrays]]:
    """Run the calls of a function of `calls`; all of it is drawn again until generated ids hold under noise."""

    @functools.cache
    def models(dtype: str) -> tuple[Any, list[Any]]:
        exact = draw.model if dtype == "float32" else cast(draw.model, dtype)
        return exact, [moved(draw.model, dtype, seed + index) for index in range(NOISE_RUNS)]

    for _ in range(tries):
        results, full = [], {}
        for call in make_calls(draw):
            exact, noisy = models(call.dtype)
            entry, arrays = call.described(), stored_inputs(call)
            results.append((entry, arrays))
            if call.kind == "error":
                entry |= {"error": error_of(exact, call), "outputs": {}}
                continue
            outputs = run(exact, call)
            others = [run(other, call) for other in noisy]
            ids = [name for name, value in outputs.items() if value.dtype.kind in "iu"]
            if not all(np.array_equal(outputs[name], other[name]) for name in ids for other in others):
                break
            entry["outputs"] = {
                name: measure(value, [other[name] for other in others], call.dtype) for name, value in outputs.items()
            }
            if call.dtype == "float32":
                full = outputs
            else:
                for name, value in outputs.items():
                    distance = np.linalg.norm(value - full[name]) / np.linalg.norm(full[name])
                    entry["outputs"][name]["rel_l2_to_float32"] = float(f"{distance:.3g}")
            arrays |= {f"{call.name}.{name}": value for name, value in outputs.items()}
        else:
            return results
    raise SystemExit(f"{make_calls.__name__}: ids change with the weights' last bits in each of {tries} draws")


def stored_inputs(call: Call) -> Arrays:
    """A call's inputs under their names in io.npz; bools as int64, as `bool_inputs` says."""
    parts = {"": call.inputs, **{f"step{index}.": step.inputs for index, step in enumerate(call.steps)}}
    named = {f"{call.name}.{part}in.{name}": value for part, own in parts.items() for name, value in own.items()}
    return {name: value if value.dtype.kind == "f" else value.astype("int64") for name, value in named.items()}


def error_of(model: Any, call: Call) -> str:
    try:
        model(**to_torch(call.inputs), **call.kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise SystemExit(f"{call.name}: transformers {transformers.__version__} raises nothing here")


def labels_of(model: Any, draw: Draw) -> Arrays:
    """Labels of one row for a model's head; none for those without a loss."""
    kind, one, row = type(model).__name__, np.array([1]), np.ones((1, 5), "int64")
    if kind.endswith(SEQUENCE):
        many = model.config.problem_type == "multi_label_classification"
        return {"labels": np.zeros((1, model.config.num_labels), "float32") if many else sequence_labels(draw, 1)}
    others = {
        QA: {"start_positions": one, "end_positions": np.array([2])},
        CHOICE: {"labels": one},
        "ForNextSentencePrediction": {"labels": one},
        "ForPreTraining": {"labels": row, "next_sentence_label": one},
        "Model": {},
    }
    return next((labels for head, labels in others.items() if kind.endswith(head)), {"labels": row})


def tuple_order(model: Any, draw: Draw) -> dict[str, list[str]]:
    """The fields that return_dict=False leaves out the names of, for the usual settings."""
    inputs: Arrays = {"input_ids": draw.ids(1, 5)}
    if type(model).__name__.endswith(CHOICE):
        inputs = {"input_ids": draw.ids(2, 5)[None]}
    labels = labels_of(model, draw)
    states = {"output_hidden_states": True, "output_attentions": True}
    settings: dict[str, dict[str, bool]] = {"plain": {}, "hs_attn": states}
    if "use_cache" in inspect.signature(model.forward).parameters:
        settings |= {"no_cache": NO_CACHE, "no_cache_hs_attn": {**states, **NO_CACHE}}
        settings |= {"cache_hs_attn": {**states, "use_cache": True}}
    orders = {}
    for name, kwargs in settings.items():
        for suffix, given in {"": {}, "+labels": labels}.items() if labels else [("", {})]:
            arguments = {**to_torch({**inputs, **given}), **kwargs}
            fields, values = model(**arguments, return_dict=True), model(**arguments, return_dict=False)
            # Some classes leave fields out of their tuples.
            order = [one for one in field_names(fields) if any(same(getattr(fields, one), v) for v in values)]
            if len(order) != len(values):
                raise SystemExit(f"{type(model).__name__}: {len(values)} values are not the fields {list(fields)}")
            orders[name + suffix] = order
    return orders


def same(one: Any, other: Any) -> bool:
    """Whether two fields of outputs hold the same values."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other)  # a cache


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def save_weights(model: Any, folder: Path, case: Case) -> None:
    model = cast(model, case.dtype)
    stored = sum(p.numel() * p.element_size() for p in model.parameters())
    if not case.weights.startswith("bin"):
        model.save_pretrained(folder, max_shard_size=stored // 3 if case.weights == "sharded" else "5GB")
        return
    model.config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if case.weights == "bin":
        # Old files hold buffers that were stored by mistake; whoever loads them must ignore these.
        for name, module in model.named_modules():
            if name.endswith("rotary_emb"):
                state[f"{name}.inv_freq"] = module.inv_freq.clone()
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map: dict[str, str] = {}
    for shard in range(3):
        file = f"pytorch_model-{shard + 1:05d}-of-00003.bin"
        part = dict(list(state.items())[shard::3])
        weight_map |= dict.fromkeys(part, file)
        torch.save(part, folder / file)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": stored}, "weight_map": weight_map})


def rotary_state(draw: Draw) -> tuple[dict[str, Any], Arrays]:
    """Inverse frequencies and attention factor; and the frequencies after a longer call where it changes them."""
    model = draw.model
    (rotary,) = (module for name, module in model.named_modules() if name.endswith("rotary_emb"))
    model(input_ids=torch.from_numpy(draw.ids(1, 4)))
    arrays = {"rope.inv_freq": to_numpy(rotary.inv_freq).copy()}
    arrays["rope.attention_scaling"] = np.float32(rotary.attention_scaling)
    model(input_ids=torch.from_numpy(draw.ids(1, 18)))
    info: dict[str, Any] = {"rope_type": model.config.rope_parameters["rope_type"]}
    if info["rope_type"] in ("dynamic", "longrope"):
        arrays["rope.inv_freq_long"] = to_numpy(rotary.inv_freq)
        info["long_len"] = 18
    return info | {"keys": list(arrays)}, arrays


def start_case(out: Path, arch: str, case: Case, seed: int) -> tuple[Path, Draw, dict[str, str]]:
    """Make a case's folder and save its model there; the draw holds that model, the last says what made it."""
    folder = out / arch / case.name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, zlib.crc32(f"{arch}/{case.name}".encode())])
    draw = Draw(rng, random_model(arch, case, rng))
    save_weights(draw.model, folder, case)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    return folder, draw, {"class": class_name(arch, case), **versions}


def make_case(out: Path, arch: str, case: Case, seed: int) -> None:
    """Write one case's folder."""
    folder, draw, made_by = start_case(out, arch, case, seed)
    written = json.loads((folder / "config.json").read_text())
    if case.respell:
        write_json(folder / "config.json", case.respell(written))
    elif "rope_parameters" in written:
        write_json(folder / "config_v4.json", old_spelling(written))

    made = [one for make_calls in case.calls for one in stable_calls(make_calls, draw, seed)]
    arrays = {name: value for _, own in made for name, value in own.items()}
    meta: dict[str, Any] = {"format": 1, "arch": arch, "case": case.name, "seed": seed, **made_by}
    meta |= {"attn_implementation": "eager", "weights": case.weights, "saved_dtype": case.dtype, "notes": case.notes}
    meta["calls"] = [entry for entry, _ in made]
    if case.name.startswith("rope_"):
        meta["rope"], frequencies = rotary_state(draw)
        arrays |= frequencies
    np.savez_compressed(folder / "io.npz", **arrays)
    if case.name != "generate":
        meta["tuple_order"] = tuple_order(draw.model, draw)
    write_json(folder / "meta.json", meta)


def make_training(out: Path, arch: str, case: Case, seed: int) -> None:
    """Write a model and training.safetensors: inputs, losses, gradients and the weights after STEPS steps."""
    from safetensors.numpy import save_file

    tiny = {**case.config, **FAMILIES[arch].tiny}
    trained = dataclasses.replace(case, name=f"train_{case.name}", config=tiny)
    folder, draw, made_by = start_case(out, arch, trained, seed)
    inputs = next(case.calls[0](draw)).inputs
    if not inputs["attention_mask"][..., 0].all():
        # Padding goes to the right: a padded query before all tokens sees nothing, and what it gives is undefined.
        inputs = {name: np.flip(value, -1).copy() for name, value in inputs.items()}
    parameters = dict(draw.model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), **ADAMW)
    losses, gradients = [], {}
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        loss = draw.model(**to_torch(inputs)).loss
        losses.append(loss.item())
        if step == STEPS:
            break
        loss.backward()
        if not step:
            gradients = {name: to_numpy(p.grad).copy() for name, p in parameters.items() if p.grad is not None}
        optimizer.step()
    arrays = {f"in.{name}": value for name, value in inputs.items()}
    arrays |= {f"gradient.{name}": value for name, value in gradients.items()}
    arrays |= {f"after.{name}": to_numpy(parameters[name]) for name in gradients}
    arrays["losses"] = np.array(losses, "float32")
    save_file(arrays, folder / "training.safetensors", {**made_by, "adamw": json.dumps(ADAMW), "seed": str(seed)})
