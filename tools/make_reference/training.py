"""Write a training case: the loss of one batch, its gradients, and the weights after a few steps of AdamW."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from tools.make_reference.cases import made_by, start_case
from tools.make_reference.draw import to_numpy, to_torch
from tools.make_reference.families import Case, Family

# The cases whose heads are trained; each becomes train_<name>, of the family's tiny configuration.
TRAINED = ("causal_lm", "masked_lm", "multiple_choice", "qa", "seqcls_single", "token_cls")
STEPS = 5
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


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
