"""Makes the files beside it: `TF_USE_LEGACY_KERAS=1 python tests/data/former/make.py`. The tests only read them.

Made with transformers 4.57.6, TensorFlow 2.21, tf_keras 2.21 and flax 0.12: the TensorFlow and Flax classes wrote the
weights and gave the outputs in `expected.npz`, `CLASS.OUTPUT` for the inputs `ids` and `mask`. A folder a class,
with its config.json and its weights as `model.safetensors` and, of some, in the format of its own framework.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CLASSES = (
    "TFBertForPreTraining",
    "TFRobertaForMaskedLM",
    "TFDistilBertForMaskedLM",
    "TFDistilBertForSequenceClassification",
    "TFGPT2DoubleHeadsModel",
    "TFMPNetForMaskedLM",
    "TFMistralForCausalLM",
    "FlaxBertForPreTraining",
    "FlaxRobertaForMaskedLM",
    "FlaxDistilBertForMaskedLM",
    "FlaxGPT2LMHeadModel",
    "FlaxGPTNeoForCausalLM",
    "FlaxLlamaForCausalLM",
    "FlaxMistralForCausalLM",
)
SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}
SIZES |= {"max_position_embeddings": 16, "pad_token_id": 1}
OWN = {
    "distilbert": {"hidden_dim": 12},
    "gpt2": {"n_inner": 12},
    "gpt_neo": {"intermediate_size": 12, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    "mistral": {"intermediate_size": 12, "num_key_value_heads": 1},
    "llama": {"intermediate_size": 12, "num_key_value_heads": 1},
}


def main() -> None:
    import jax
    import tensorflow as tf
    import transformers

    rng = np.random.default_rng(0)
    ids, mask = np.array([[5, 9, 2, 14], [7, 3, 1, 1]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    expected = {"ids": ids, "mask": mask}
    for name in CLASSES:
        model_class = getattr(transformers, name)
        kind = model_class.config_class.model_type
        config = model_class.config_class(**SIZES, **OWN.get(kind, {"intermediate_size": 12}))
        model = model_class(config)
        if name.startswith("TF"):
            inputs = {"input_ids": tf.constant(ids), "attention_mask": tf.constant(mask)}
            if "DoubleHeads" in name:
                inputs = {key: value[:, None] for key, value in inputs.items()}
                inputs["mc_token_ids"] = np.array([[3], [1]])
            model(**inputs)
            for weight in model.weights:  # biases that say where they go
                if min(weight.shape) == weight.shape[0] and len(weight.shape) < 3:
                    weight.assign_add(rng.normal(size=weight.shape) * 0.2)
        else:
            inputs = {"input_ids": ids, "attention_mask": mask}
            model.params = jax.tree.map(
                lambda value: value + (rng.normal(size=value.shape) * 0.2 if value.ndim == 1 else 0), model.params
            )
        outputs = model(**inputs)
        expected |= {f"{name}.{key}": np.asarray(value) for key, value in outputs.items() if hasattr(value, "shape")}
        if name in ("TFBertForPreTraining", "TFGPT2DoubleHeadsModel") or name.startswith("Flax"):
            model.save_pretrained(HERE / name)
        model.save_pretrained(HERE / name, safe_serialization=True)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
