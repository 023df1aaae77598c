"""Fine-tune a causal language model on a few sentences with `compile` and `fit`, and hear it repeat them.

python examples/fine_tune.py --epochs 60
"""

from __future__ import annotations

import argparse
import math

import tfmodels  # before Keras, so that TensorFlow starts without its log

SENTENCES = [
    "Tom found a red kite in the attic and ran to the hill.",
    "The wind was strong and the kite flew over the old barn.",
    "A small owl sat on the barn and asked Tom for a ride.",
    "So Tom and the owl flew home before the rain came.",
]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories260K", help="folder, hub id, or the bundled stories260K (default)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    options = parser.parse_args(arguments)

    # After the options, so that --help and mistakes in them are told at once.
    import keras
    import tensorflow as tf

    tokenizer = tfmodels.AutoTokenizer.from_pretrained(options.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = tfmodels.TFAutoModelForCausalLM.from_pretrained(options.model)

    batch = tokenizer(SENTENCES, padding=True, return_tensors="tf")
    # The loss is the model's own: labels are the ids themselves, and -100 keeps padding out of it.
    labels = tf.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    data = tf.data.Dataset.from_tensors({**batch, "labels": labels})

    model.compile(keras.optimizers.Adam(options.learning_rate))
    before = model.evaluate(data, verbose=0)
    model.fit(data, epochs=options.epochs, verbose=0)
    after = model.evaluate(data, verbose=0)
    print(f"perplexity before {math.exp(before):.1f}, after {math.exp(after):.2f}")

    prompt = tokenizer(["Tom found a red"], return_tensors="tf")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=30)[0], skip_special_tokens=True)
    print(text)
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
