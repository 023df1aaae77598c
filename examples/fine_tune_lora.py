"""LoRA: teach a frozen model to tell spam by small adapters, and keep the adapters alone.

python examples/fine_tune_lora.py
python examples/fine_tune_lora.py --model path/to/llama --learning-rate 2e-4
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from classify_sms import NAMES, load_messages
from helpers import load_tokenizer, options_of, plot_losses, warmed_up


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=3, batch_size=32, learning_rate=5e-3, max_length=96, limit=2500)

    # After the options, so that --help and mistakes in them are told at once.
    import keras

    from tfmodels import TFAutoModelForSequenceClassification
    from tfmodels.training.data import batches
    from tfmodels.training.lora import add_lora, load_adapter, merge_lora, save_adapter

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    train, test = load_messages(tokenizer, options.max_length, options.limit)
    settings = {"pad_token_id": tokenizer.pad_token_id, "buckets": [32, 64, options.max_length]}
    train = batches(train, options.batch_size, seed=0, **settings)
    test = batches(test, options.batch_size, **settings)

    def load() -> Any:
        return TFAutoModelForSequenceClassification.from_pretrained(
            options.model, id2label=dict(enumerate(NAMES)), pad_token_id=tokenizer.pad_token_id
        )

    model = load()
    # Every linear layer of the blocks gets an adapter; the new head has nothing to adapt and is trained whole.
    report = add_lora(model, r"\.(layers?|h|blocks)\.\d+\.", rank=8, alpha=16, train_fully=r"^(score|classifier)")
    print(report)
    rate = warmed_up(options.learning_rate, options.epochs * int(train.cardinality()))
    model.compile(keras.optimizers.AdamW(rate), metrics=["accuracy"], jit_compile=False)
    history = model.fit(train, validation_data=test, epochs=options.epochs)
    plot_losses(history.history, options.plot)
    accuracy = history.history["val_accuracy"][-1]

    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, folder)
        size = sum(os.path.getsize(file) for file in Path(folder).iterdir())
        print(f"accuracy on the held-out tenth: {accuracy:.4f}; the adapters take {size / 1e3:.0f} kB")
        again = load()
        load_adapter(again, folder)
    # Merged, the adapters cost nothing when the model is used.
    merge_lora(again)
    batch = next(iter(test))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    difference = float(np.abs(np.asarray(model(inputs).logits) - np.asarray(again(inputs).logits)).max())
    print(f"loaded into a fresh model and merged, logits differ by at most {difference:.1e}")
    return {"accuracy": accuracy, "difference": difference, "trainable": report.trainable / report.total}


if __name__ == "__main__":
    main()
