"""Sequence classification: tell spam from other text messages (SMS Spam Collection).

python examples/classify_sms.py
python examples/classify_sms.py --model path/to/all-mpnet-base-v2 --epochs 1 --batch-size 16 --learning-rate 3e-5
"""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up

NAMES = ["ham", "spam"]


def load_messages(tokenizer: Any, max_length: int, limit: int | None = None) -> list[dict[str, list]]:
    """Tokenised messages with labels: nine tenths to learn from, one to judge by, no text in both."""
    messages = dict(reversed(line.split("\t", 1)) for line in read_lines("sms_spam.tsv"))  # text -> label, each once
    order = np.random.default_rng(0).permutation(len(messages))[:limit]
    texts = [list(messages)[index] for index in order]
    columns = tokenizer(texts, truncation=True, max_length=max_length)
    columns = {**columns, "labels": [NAMES.index(messages[text]) for text in texts]}
    cut = len(texts) // 10
    return [{name: rows[part] for name, rows in columns.items()} for part in (slice(cut, None), slice(cut))]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=5, batch_size=32, learning_rate=2e-3, max_length=192)

    # After the options, so that --help and mistakes in them are told at once.
    import keras

    from tfmodels import TFAutoModelForSequenceClassification
    from tfmodels.training.data import batches

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    train, test = load_messages(tokenizer, options.max_length, options.limit)
    # Messages of like length go together; what is left to pad stays little.
    settings = {"pad_token_id": tokenizer.pad_token_id, "buckets": [32, 64, 96, 128, max(192, options.max_length)]}
    train = batches(train, options.batch_size, seed=0, **settings)
    test = batches(test, options.batch_size, **settings)

    # A decoder reads the class off each row's last token, which it finds by the padding token.
    model = TFAutoModelForSequenceClassification.from_pretrained(
        options.model, id2label=dict(enumerate(NAMES)), pad_token_id=tokenizer.pad_token_id
    )
    rate = warmed_up(options.learning_rate, options.epochs * int(train.cardinality()))
    # No loss is named: the model's own. XLA would compile anew for each bucket, longer than it saves here.
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.01), metrics=["accuracy"], jit_compile=False)
    history = model.fit(train, validation_data=test, epochs=options.epochs)
    plot_losses(history.history, options.plot)

    accuracy = history.history["val_accuracy"][-1]
    print(f"accuracy on the held-out tenth: {accuracy:.4f}")
    examples = ["Congratulations! You have won a free prize, call 09061 now to claim", "I'll be home at seven, love"]
    logits = model(**tokenizer(examples, padding=True, padding_side="right", return_tensors="tf")).logits
    for text, label in zip(examples, np.argmax(logits, axis=-1), strict=True):
        print(f"{model.config.id2label[int(label)]:5} {text}")
    return {"accuracy": accuracy}


if __name__ == "__main__":
    main()
