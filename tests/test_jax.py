"""The same files on JAX: outputs, training and greedy generation equal TensorFlow's.

A process takes one backend: this file, run as a script under KERAS_BACKEND=jax, computes there what the tests compute
here, and the two are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # another process

ROOT = Path(__file__).parent.parent
FAMILIES = ("llama", "gpt_neox", "gpt_neo", "mpt", "mpnet")
LANGUAGE_MODELS = ("train_causal_lm", "train_masked_lm")


def compute(family: str, out: Path) -> dict[str, np.ndarray]:
    """Outputs of the heads of a family; losses of a few steps and generated ids of its language model.

    Heads are shared code: every head of a decoder and of an encoder, the language model of the other families.
    """
    import keras
    from safetensors.numpy import load_file

    import tfmodels
    from tfmodels.checkpoints.weight_map import slots_of

    results = {}

    def keep(name, value):
        results[name] = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))

    for folder in sorted((ROOT / "tests" / "reference" / family).glob("train_*")):
        head = folder.name
        if head not in LANGUAGE_MODELS and family not in ("llama", "mpnet"):
            continue
        model_class = json.loads((folder / "config.json").read_text())["architectures"][0]
        model_class = getattr(tfmodels, f"TF{model_class}")
        arrays = load_file(folder / "training.safetensors")
        inputs = {name[3:]: value for name, value in arrays.items() if name.startswith("in.")}
        model = model_class.from_pretrained(folder)
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        for index, value in enumerate(keras.tree.flatten(outputs)):
            keep(f"{head}.{index}", value)
        if head not in LANGUAGE_MODELS:
            continue
        if head == "train_causal_lm":
            prompt, mask = inputs["input_ids"][:, :5].copy(), np.ones((2, 5), "int64")
            prompt[0, :2], mask[0, :2] = 0, 0
            settings = {"attention_mask": mask, "max_new_tokens": 10, "eos_token_id": None}
            keep("ids", model.generate(prompt, **settings))
            if family == "llama":
                for name in ("drawn", "drawn again"):
                    keep(name, model.generate(prompt, **settings, do_sample=True, top_k=5, seed=7))
                keep(
                    "drawn alone",
                    model.generate(
                        prompt[:1], **{**settings, "attention_mask": mask[:1]}, do_sample=True, top_k=5, seed=7
                    ),
                )
        unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
        keep("predicted", model.predict(unlabelled, verbose=0)["logits"])
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0  # backends draw differently
        model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1))
        history = model.fit(inputs, batch_size=2, epochs=4, shuffle=False, verbose=0)
        keep("fit", np.array(history.history["loss"]))
        # Files of either backend are read by the other.
        model.save_pretrained(out / keras.backend.backend())
        again = model_class.from_pretrained(out / keras.backend.backend(), dtype="bfloat16")
        for name, slot in slots_of(again).items():
            keep(f"saved.{name}", slot.variable.value)
    return results


def test_the_same_on_jax(tmp_path):
    """Outputs, losses, greedy ids and saved weights of all families, computed there by one process."""
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, __file__, str(tmp_path), *FAMILIES], check=True, env=environment, cwd=ROOT)
    for family in FAMILIES:
        out = tmp_path / family
        here, there = compute(family, out), dict(np.load(out / "jax.npz"))
        assert here.keys() == there.keys()
        for name, value in here.items():
            if name == "ids":
                np.testing.assert_array_equal(there[name], value, err_msg=family)
            elif not name.startswith(("saved.", "drawn")):
                np.testing.assert_allclose(there[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{family} {name}")
        assert ("ids" in here) is (family != "mpnet") and ("drawn" in here) is (family == "llama")
        if "drawn" in here:
            sampling_repeats_itself(there)
        weights_after_training_are_saved(out, there)


def sampling_repeats_itself(there):
    np.testing.assert_array_equal(there["drawn"], there["drawn again"])
    np.testing.assert_array_equal(there["drawn"][:1], there["drawn alone"])
    assert not np.array_equal(there["drawn"], there["ids"])


def weights_after_training_are_saved(out, there):
    import tfmodels
    from tfmodels.checkpoints.weight_map import slots_of

    config = json.loads((out / "jax" / "config.json").read_text())
    model = getattr(tfmodels, f"TF{config['architectures'][0]}").from_pretrained(out / "jax", dtype="bfloat16")
    for name, slot in slots_of(model).items():
        np.testing.assert_array_equal(np.asarray(slot.variable).astype("float32"), there[f"saved.{name}"])


def test_an_engine_holds_its_cache_once():
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    code = (
        "import gc, jax, tfmodels\n"
        "model = tfmodels.TFLlamaForCausalLM.from_pretrained('stories260K')\n"
        "before = sum(array.nbytes for array in jax.live_arrays())\n"
        "engine = tfmodels.Engine(model, rows=2, capacity=128)\n"
        "engine.add([1, 403, 407], max_new_tokens=2)\n"
        "engine.run()\n"
        "gc.collect()\n"
        "held = sum(array.nbytes for array in jax.live_arrays()) - before\n"
        "print(held / engine.stats['cache_bytes'])\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert 1 <= float(done.stdout) < 1.1


def test_flash_attention_needs_a_gpu():
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    code = (
        "import numpy as np, tfmodels\n"
        "model = tfmodels.TFLlamaForCausalLM.from_pretrained('stories260K', dtype='bfloat16')\n"
        "model(input_ids=np.array([[1, 2]]))\n"
        "print(model.attention_report())\n"
        "tfmodels.TFLlamaForCausalLM(model.config, attn_implementation='flash')\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "5 blocks: eager (flash attention needs a GPU, and JAX sees none)\n"
    assert (
        "ValueError: attn_implementation='flash' cannot be used: flash attention needs a GPU, and JAX" in ended.stderr
    )


if __name__ == "__main__":
    for family in sys.argv[2:]:
        out = Path(sys.argv[1]) / family
        out.mkdir()
        np.savez(out / "jax.npz", **compute(family, out))
    # What a machine for JAX does not have must not be needed.
    assert "tensorflow" not in sys.modules
