"""Weights that the TensorFlow and Flax classes of transformers 4.57 wrote give the outputs of those classes."""

from pathlib import Path

import numpy as np
import pytest

import tfmodels

FOLDER = Path(__file__).parents[2] / "data" / "former"
EXPECTED = dict(np.load(FOLDER / "expected.npz"))
IDS, MASK = EXPECTED["ids"], EXPECTED["mask"]
CLASSES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
FILES = [(name, path.name) for name in CLASSES for path in (FOLDER / name).iterdir() if path.name != "config.json"]


def folder_with(name, files, target):
    """A folder with the configuration of a class and some of its files."""
    for file in ("config.json", *files):
        (target / file).symlink_to(FOLDER / name / file)
    return target


@pytest.mark.parametrize(("name", "file"), FILES)
def test_outputs_are_those_of_the_class_that_wrote_them(name, file, tmp_path):
    model_class = getattr(tfmodels, "TF" + name.removeprefix("TF").removeprefix("Flax"))
    model, info = model_class.from_pretrained(folder_with(name, [file], tmp_path), output_loading_info=True)
    left = [key for key in info["unexpected_keys"] if "pooler" not in key]  # which TFMPNetForMaskedLM has in vain
    assert not info["missing_keys"] and not left
    inputs, mask = {"input_ids": IDS, "attention_mask": MASK}, MASK == 1
    if "DoubleHeads" in name:
        inputs = {**{key: value[:, None] for key, value in inputs.items()}, "mc_token_ids": np.array([[3], [1]])}
        mask = mask[:, None]
    outputs = model(**inputs)
    compared = [key for key in EXPECTED if key.startswith(f"{name}.")]
    assert len(compared) == (2 if "PreTraining" in name or "DoubleHeads" in name else 1)
    for key in compared:
        got, want = np.asarray(outputs[key.split(".")[1]]), EXPECTED[key]
        if got.shape[: mask.ndim] == mask.shape:
            got, want = got[mask], want[mask]
        np.testing.assert_allclose(got, want, atol=2e-5)
