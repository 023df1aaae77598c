"""Sentence similarity: vectors whose cosine says how alike two sentences are (STS benchmark, captions of images).

python examples/sentence_similarity.py
python examples/sentence_similarity.py --model path/to/all-mpnet-base-v2 --learning-rate 2e-5 --epochs 1
"""

from __future__ import annotations

import numpy as np
from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up


def load_pairs(part: str, limit: int | None = None) -> tuple[list[str], list[str], np.ndarray]:
    """Two sentences each, and how alike people found them, from 0 to 1."""
    rows = [line.split("\t") for line in read_lines(f"stsb_captions_{part}.tsv", limit)]
    scores, left, right = zip(*rows, strict=True)
    return list(left), list(right), np.array(scores, "float32") / 5


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of ranks, those of equal values averaged."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts + 1) / 2)[where]

    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=4, batch_size=32, learning_rate=1e-3, max_length=128)

    # After the options, so that --help and mistakes in them are told at once.
    import keras
    import tensorflow as tf

    from tfmodels import SentenceEncoder, TFAutoModel
    from tfmodels.training.data import batches

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    encoder = SentenceEncoder(TFAutoModel.from_pretrained(options.model), tokenizer, tail=["normalize"])

    left, right, scores = load_pairs("train", options.limit)
    # The same seed draws the same rows, so that pairs stay together.
    rows = [
        batches(
            {**tokenizer(texts, truncation=True, max_length=options.max_length), "score": scores},
            options.batch_size,
            pad_token_id=tokenizer.pad_token_id,
            seed=0,
        )
        for texts in (left, right)
    ]

    def pair(*sides: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        named = zip(("left", "right"), sides, strict=True)
        return {f"{side}_{name}": row[name] for side, row in named for name in encoder.input_names}, sides[0]["score"]

    data = tf.data.Dataset.zip(*rows).map(pair)

    # One encoder, called twice in a Functional model; the cosine of unit vectors is their product.
    inputs = {
        side: {name: keras.Input((None,), dtype="int32", name=f"{side}_{name}") for name in encoder.input_names}
        for side in ("left", "right")
    }
    vectors = [encoder(inputs[side]).sentence_embedding for side in ("left", "right")]
    pairs = {tensor.name: tensor for names in inputs.values() for tensor in names.values()}
    model = keras.Model(pairs, keras.layers.Dot(1)(vectors))

    test_left, test_right, test_scores = load_pairs("test", options.limit)

    def judge() -> float:
        one, other = (encoder.encode(texts) for texts in (test_left, test_right))
        return spearman(np.sum(one * other, axis=1), test_scores)

    before = judge()
    steps = options.epochs * int(data.cardinality())
    rate = warmed_up(options.learning_rate, steps)
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=1.0), "mse", jit_compile=False)
    history = model.fit(data, epochs=options.epochs)
    plot_losses(history.history, options.plot)
    after = judge()
    print(f"Spearman correlation with people's scores: before {before:.3f}, after {after:.3f}")
    texts = ["A dog runs through the snow.", "A dog is running in snow.", "Two women sit at a table."]
    for text, likeness in zip(texts, encoder.encode(texts) @ encoder.encode(texts[:1])[0], strict=True):
        print(f"{likeness:.2f} {text}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
