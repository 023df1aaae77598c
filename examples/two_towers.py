"""Retrieval with two towers: find the paragraph that answers a question (XQuAD, English), a Functional model.

python examples/two_towers.py
python examples/two_towers.py --model path/to/all-mpnet-base-v2 --learning-rate 2e-5 --epochs 1
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up


def make_towers(backbone: Any, pad_token_id: int, width: int = 64) -> dict[str, Any]:
    """Questions' and paragraphs' towers, which share the encoder and project its mean their own way."""
    import keras
    from keras import ops

    towers = {}
    for name in ("question", "paragraph"):
        ids = keras.Input((None,), dtype="int32", name=name)
        mask = ops.cast(ops.not_equal(ids, pad_token_id), "int32")
        options = {"use_cache": False} if "use_cache" in backbone.input_names else {}
        hidden = backbone(ids, attention_mask=mask, **options).last_hidden_state
        mean = keras.layers.GlobalAveragePooling1D()(hidden, mask=mask)
        vector = keras.layers.UnitNormalization()(keras.layers.Dense(width, name=f"{name}_projection")(mean))
        towers[name] = keras.Model(ids, vector, name=f"{name}_tower")
    return towers


def in_batch_loss(paragraph_numbers: Any, similarities: Any) -> Any:
    """Cross-entropy of each question's paragraph among those of the batch, some of which may be the same one."""
    from keras import ops

    numbers = ops.reshape(paragraph_numbers, (-1, 1))
    right = ops.cast(ops.equal(numbers, ops.transpose(numbers)), "float32")
    right = right / ops.sum(right, axis=1, keepdims=True)
    return ops.categorical_crossentropy(right, similarities, from_logits=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = options_of(__doc__, arguments, epochs=6, batch_size=32, learning_rate=2e-3, max_length=160)

    # After the options, so that --help and mistakes in them are told at once.
    import keras
    from keras import ops

    from tfmodels import TFAutoModel

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    tokenizer.padding_side = "right"
    paragraphs = [json.loads(line) for line in read_lines("xquad_en.jsonl", options.limit)]
    pairs = [(question, n) for n, one in enumerate(paragraphs) for question, _, _ in one["questions"]]
    cut = {"truncation": True, "padding": "max_length", "return_tensors": "np"}
    texts = tokenizer([one["context"] for one in paragraphs], max_length=options.max_length, **cut)["input_ids"]
    asked = tokenizer([question for question, _ in pairs], max_length=options.max_length // 2, **cut)["input_ids"]
    numbers = np.array([n for _, n in pairs])
    held_out = numbers < len(paragraphs) // 4  # paragraphs that are not trained on

    towers = make_towers(TFAutoModel.from_pretrained(options.model).backbone, tokenizer.pad_token_id)
    vectors = [tower.output for tower in towers.values()]
    similarities = ops.matmul(vectors[0], ops.transpose(vectors[1])) * 20.0
    model = keras.Model([tower.input for tower in towers.values()], similarities, name="two_towers")
    model.summary()

    def recall(most: int = 5) -> float:
        """How often a held-out question has its paragraph among the `most` best of all held-out ones."""
        questions = towers["question"].predict(asked[held_out], verbose=0)
        found = towers["paragraph"].predict(texts[: len(paragraphs) // 4], verbose=0)
        best = np.argsort(-(questions @ found.T), axis=1)[:, :most]
        return float(np.mean(np.any(best == numbers[held_out][:, None], axis=1)))

    before = recall()
    train = ~held_out
    steps = options.epochs * -(-int(train.sum()) // options.batch_size)
    rate = warmed_up(options.learning_rate, steps)
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=1.0), in_batch_loss, jit_compile=False)
    data = [asked[train], texts[numbers[train]]]
    history = model.fit(data, numbers[train], batch_size=options.batch_size, epochs=options.epochs)
    plot_losses(history.history, options.plot)
    after = recall()
    count = len(paragraphs) // 4
    chance = min(1.0, 5 / max(1, count))
    print(f"recall at 5 of {count} paragraphs: before {before:.3f}, after {after:.3f}; by chance {chance:.3f}")
    return {"before": before, "after": after, "chance": chance, "losses": history.history["loss"]}


if __name__ == "__main__":
    main()
