"""Losses, gradients and AdamW steps equal to those of transformers with torch, for every family and head.

`python -m tools.make_reference --training` makes the numbers; they lie in tests/reference/<family>/train_<head>.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors
import tensorflow as tf
from small_models import EVERY

import tfmodels
from tfmodels.auto import FAMILIES
from tfmodels.checkpoints.weight_map import slots_of

REFERENCE = Path(__file__).parent.parent / "reference"
CASES = sorted(REFERENCE.glob("*/train_*"))
# Heads beside which a bare backbone has nothing to learn from.
EVERY_HEAD = {(name, head) for name, head in EVERY if head != "Model"}

QUICK = ("llama-seqcls_single",)  # what is trained by default; tracing is what takes the time


NAMES = {f"{folder.parent.name}-{folder.name.removeprefix('train_')}": folder for folder in CASES}
# Steps of the optimiser are shared code: every head of a decoder and of an encoder, of the other families one head.
FEW = {name: folder for name, folder in NAMES.items() if name.startswith(("llama-", "mpnet-")) or "_lm" in name}


def every_case(names=NAMES, quick=None):
    slow = {name: [pytest.mark.slow] if quick and name not in quick else [] for name in names}
    return pytest.mark.parametrize(
        "folder", [pytest.param(folder, id=name, marks=slow[name]) for name, folder in names.items()]
    )


class Case:
    """A stored case: the model, its inputs, and what torch made of them under the names of our weights."""

    def __init__(self, folder):
        with safetensors.safe_open(folder / "training.safetensors", "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
            self.class_name, self.adamw = file.metadata()["class"], json.loads(file.metadata()["adamw"])
        self.model = getattr(tfmodels, "TF" + self.class_name).from_pretrained(folder)
        self.slots = slots_of(self.model)
        self.losses = arrays["losses"]
        self.inputs = {name[3:]: value for name, value in arrays.items() if name.startswith("in.")}
        self.gradients = self.by_slot(arrays, "gradient.")
        self.after = self.by_slot(arrays, "after.")

    def by_slot(self, arrays, start):
        names = [name.removeprefix(start) for name in arrays if name.startswith(start)]
        resolve, prefix = self.model.weight_map.resolve, self.model.base_model_prefix
        return {resolve(name, self.slots, prefix): arrays[start + name] for name in names}

    def in_file_layout(self, name, values):
        values = np.asarray(values)
        return values.T if self.slots[name].transposed else values


def test_there_is_a_case_for_every_head():
    heads = {
        (folder.parent.name, json.loads((folder / "config.json").read_text())["architectures"][0]) for folder in CASES
    }
    assert heads >= {(name, f"{FAMILIES[name].stem}{head}") for name, head in EVERY_HEAD}
    assert {name for name, _ in heads} == set(FAMILIES)


@every_case()
def test_loss_and_gradients(folder):
    case = Case(folder)
    with tf.GradientTape() as tape:
        loss = case.model(**case.inputs).loss
    np.testing.assert_allclose(loss, case.losses[0], rtol=1e-5)
    names = list(case.slots)
    gradients = tape.gradient(loss, [case.slots[name].variable.value for name in names])
    assert case.gradients.keys() == {name for name, value in zip(names, gradients, strict=True) if value is not None}
    for name, value in zip(names, gradients, strict=True):
        if value is not None:
            want = case.gradients[name]
            off = np.linalg.norm(case.in_file_layout(name, tf.convert_to_tensor(value)) - want)
            # Some are nothing but rounding, 1e-7 and less: a key's bias moves all scores of a query alike.
            assert off <= 1e-4 * np.linalg.norm(want) + 2e-7, name


@every_case(FEW, quick=QUICK)
def test_steps_of_adamw(folder):
    case = Case(folder)
    for layer in case.model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    (beta_1, beta_2), rate = case.adamw["betas"], case.adamw["lr"]
    case.model.compile(
        keras.optimizers.AdamW(
            rate,
            weight_decay=case.adamw["weight_decay"],
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=case.adamw["eps"],
        ),
        jit_compile=False,  # five small steps are done before XLA has compiled one
    )
    history = case.model.fit(case.inputs, batch_size=len(next(iter(case.inputs.values()))), epochs=5, verbose=0)
    np.testing.assert_allclose(history.history["loss"], case.losses[:-1], rtol=1e-4)
    np.testing.assert_allclose(case.model(**case.inputs).loss, case.losses[-1], rtol=1e-4)
    for name, want in case.after.items():
        # Adam divides a gradient by its own size: where it is nothing but rounding, so is the step.
        gradient = np.abs(case.gradients[name])
        counts = gradient > 1e-6
        if gradient.ndim > 1:
            counts |= gradient == 0  # rows that were not looked up only decay
        got = case.in_file_layout(name, case.slots[name].variable)
        off = np.linalg.norm((got - want)[counts])
        assert off <= 1e-4 * np.linalg.norm(want), name


def test_the_tool_makes_such_cases(tmp_path):
    pytest.importorskip("torch", reason="references are made with PyTorch")
    pytest.importorskip("transformers", reason="references are made with transformers")
    from tools.make_reference.command import main

    main([str(tmp_path), "--arch", "llama", "--training", "--case", "qa"])
    made, stored = Case(tmp_path / "llama" / "train_qa"), Case(REFERENCE / "llama" / "train_qa")
    assert made.adamw == stored.adamw
    np.testing.assert_allclose(made.losses, stored.losses, rtol=1e-5)
    for kind in ("gradients", "after"):
        ours, theirs = getattr(made, kind), getattr(stored, kind)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].shape == theirs[name].shape for name in ours)
