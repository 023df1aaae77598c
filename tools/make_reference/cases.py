"""Write cases: weights, config.json, io.npz with inputs and outputs, meta.json with calls and tolerances.

A training case has the loss of one batch, its gradients, and the weights after a few steps of AdamW instead of calls.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tools.make_reference.calls import sequence_labels
from tools.make_reference.draw import NO_CACHE, Draw, to_numpy, to_torch
from tools.make_reference.families import CHOICE, QA, SEQUENCE, Case, Family, old_spelling
from tools.make_reference.running import cast, field_names, random_model, stable_calls

# The cases whose heads are trained; each becomes train_<name>, of the family's tiny configuration.
TRAINED = (
    "causal_lm",
    "masked_lm",
    "multiple_choice",
    "next_sentence",
    "pretraining",
    "qa",
    "seqcls_single",
    "token_cls",
)
STEPS = 5
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


def tuple_order(model: Any, draw: Draw) -> dict[str, list[str]]:
    """The fields that return_dict=False leaves out the names of, for the usual settings."""
    inputs: dict[str, np.ndarray] = {"input_ids": draw.ids(1, 5)}
    labels: dict[str, np.ndarray] = {}
    kind = type(model).__name__
    if kind.endswith(CHOICE):
        inputs, labels = {"input_ids": draw.ids(2, 5)[None]}, {"labels": np.array([1])}
    if kind.endswith(QA):
        labels = {"start_positions": np.array([1]), "end_positions": np.array([2])}
    elif kind.endswith(SEQUENCE):
        labels = {"labels": sequence_labels(draw, 1)}
        if model.config.problem_type == "multi_label_classification":
            labels = {"labels": np.zeros((1, model.config.num_labels), "float32")}
    elif kind.endswith("ForNextSentencePrediction"):
        labels = {"labels": np.array([1])}
    elif kind.endswith("ForPreTraining"):
        labels = {"labels": np.ones((1, 5), "int64"), "next_sentence_label": np.array([1])}
    elif not kind.endswith(("Model", CHOICE)):
        labels = {"labels": np.ones((1, 5), "int64")}
    states = {"output_hidden_states": True, "output_attentions": True}
    settings = {"plain": {}, "hs_attn": states}
    if "use_cache" in inspect.signature(model.forward).parameters:
        settings |= {
            "no_cache": NO_CACHE,
            "no_cache_hs_attn": {**states, **NO_CACHE},
            "cache_hs_attn": {**states, "use_cache": True},
        }
    orders = {}
    for name, kwargs in settings.items():
        for suffix, given in (("", {}), ("+labels", labels)) if labels else (("", {}),):
            arguments = {**to_torch({**inputs, **given}), **kwargs}
            with torch.no_grad():
                fields = model(**arguments, return_dict=True)
                values = model(**arguments, return_dict=False)
            # Some classes leave fields out of their tuples.
            orders[name + suffix] = [
                field for field in field_names(fields) if any(same(getattr(fields, field), v) for v in values)
            ]
            if len(orders[name + suffix]) != len(values):
                raise SystemExit(f"{kind}: a tuple of {len(values)} does not consist of the fields {list(fields)}")
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
    names, shards = list(state), 3
    weight_map = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        part = {name: state[name] for name in names[shard::shards]}
        weight_map |= dict.fromkeys(part, file)
        torch.save(part, folder / file)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": stored}, "weight_map": weight_map})


def rotary_state(model: Any, draw: Draw) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Inverse frequencies and attention factor; and the frequencies after a longer call where it changes them."""
    (rotary,) = (module for name, module in model.named_modules() if name.endswith("rotary_emb"))
    with torch.no_grad():
        model(input_ids=torch.from_numpy(draw.ids(1, 4)))
        arrays = {"rope.inv_freq": to_numpy(rotary.inv_freq).copy()}
        arrays["rope.attention_scaling"] = np.float32(rotary.attention_scaling)
        model(input_ids=torch.from_numpy(draw.ids(1, 18)))
    info: dict[str, Any] = {"rope_type": model.config.rope_parameters["rope_type"]}
    if info["rope_type"] in ("dynamic", "longrope"):
        arrays["rope.inv_freq_long"] = to_numpy(rotary.inv_freq)
        info["long_len"] = 18
    return info | {"keys": list(arrays)}, arrays


def start_case(out: Path, arch: str, family: Family, case: Case, seed: int) -> tuple[Path, Draw]:
    """Make a case's folder and save its model there; the draw holds that model."""
    folder = out / arch / case.name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, zlib.crc32(f"{arch}/{case.name}".encode())])
    draw = Draw(rng, random_model(family, case, rng))
    save_weights(draw.model, folder, case)
    return folder, draw


def made_by(family: Family, case: Case) -> dict[str, str]:
    """The class of a case's model, and the versions of the libraries that ran it."""
    return {
        "class": family.class_name(case.head),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def make_case(out: Path, arch: str, family: Family, case: Case, seed: int) -> None:
    """Write one case's folder."""
    folder, draw = start_case(out, arch, family, case, seed)
    model = draw.model
    written = json.loads((folder / "config.json").read_text())
    if case.respell:
        write_json(folder / "config.json", case.respell(written))
    elif "rope_parameters" in written:
        write_json(folder / "config_v4.json", old_spelling(written))

    arrays: dict[str, np.ndarray] = {}
    entries = []
    for make_calls in case.calls:
        for entry, outputs in stable_calls(make_calls, draw, seed):
            entries.append(entry)
            arrays |= outputs
    meta = {
        "format": 1,
        "arch": arch,
        "case": case.name,
        "seed": seed,
        **made_by(family, case),
        "attn_implementation": "eager",
        "weights": case.weights,
        "saved_dtype": case.dtype,
        "notes": case.notes,
        "calls": entries,
    }
    if case.name.startswith("rope_"):
        meta["rope"], frequencies = rotary_state(model, draw)
        arrays |= frequencies
    np.savez_compressed(folder / "io.npz", **arrays)
    if case.name != "generate":
        meta["tuple_order"] = tuple_order(model, draw)
    write_json(folder / "meta.json", meta)


def make_training(out: Path, arch: str, family: Family, case: Case, seed: int) -> None:
    """Write a model and training.safetensors: inputs, losses, gradients and the weights after STEPS steps."""
    from safetensors.numpy import save_file

    case = dataclasses.replace(case, name=f"train_{case.name}", config={**case.config, **family.tiny})
    folder, draw = start_case(out, arch, family, case, seed)
    model = draw.model
    inputs = next(case.calls[0](draw)).inputs
    if not inputs["attention_mask"][..., 0].all():
        # Padding goes to the right: a padded query before all tokens sees nothing, and what it gives is undefined.
        inputs = {name: np.flip(value, -1).copy() for name, value in inputs.items()}
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), **ADAMW)
    losses, gradients = [], {}
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        loss = model(**to_torch(inputs)).loss
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
    about = {**made_by(family, case), "adamw": json.dumps(ADAMW), "seed": str(seed)}
    save_file(arrays, folder / "training.safetensors", about)
