"""Make the reference cases that tests/reference holds, from transformers with PyTorch (`pip install -e '.[bench]'`).

    python -m tools.make_reference OUT --arch llama [--case model,generate] [--seed 1]
    python -m tools.make_reference OUT --arch common
    python -m tools.make_reference OUT --arch llama --training

A case is a small random model and several calls of it with their outputs; tests/reference/README.md describes the
files. How far an implementation may be off is measured: every call runs again with all weights moved by about one
unit in the last place, the change of an output is its `noise`, ten times that (at least 1e-5) its `atol`. Generated
ids must not change at all under that noise: calls whose ids do are drawn again.

With --training it makes, for each head, a batch's loss, its gradients, and the weights after steps of AdamW.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import torch
    import transformers
except ImportError as missing:
    sys.exit(f"make_reference: {missing}; run pip install -e '.[bench]'")

from tools.make_reference.cases import TRAINED, make_case, make_training
from tools.make_reference.families import FAMILIES
from tools.make_reference.tables import TABLES


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write <arch>/<case> into")
    parser.add_argument("--arch", required=True, choices=[*FAMILIES, "common"])
    parser.add_argument("--case", help="these cases only, comma-separated")
    parser.add_argument("--training", action="store_true", help="make training cases of those that train a head")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.training and options.arch == "common":
        parser.error("--training needs an architecture: --arch common holds no models")
    known = list(TABLES) if options.arch == "common" else [case.name for case in FAMILIES[options.arch].cases]
    if options.training:
        known = [name for name in known if name in TRAINED]
    chosen = options.case.split(",") if options.case else known
    if unknown := set(chosen) - set(known):
        parser.error(f"--case: {', '.join(sorted(unknown))} not among {', '.join(known)}")
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    for name in chosen:
        if options.arch == "common":
            TABLES[name](options.out, options.seed)
        else:
            case = next(case for case in FAMILIES[options.arch].cases if case.name == name)
            with torch.set_grad_enabled(options.training):
                (make_training if options.training else make_case)(options.out, options.arch, case, options.seed)
        print(f"{options.arch}/{name}", flush=True)
