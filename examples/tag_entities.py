"""Token classification: find names of people, places, products, ... in social media (WNUT 2017).

python examples/tag_entities.py
python examples/tag_entities.py --model path/to/all-mpnet-base-v2 --learning-rate 5e-5 --epochs 3
"""

from __future__ import annotations

import numpy as np
from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up

KINDS = ["corporation", "creative-work", "group", "location", "person", "product"]
TAGS = ["O", *(f"{side}-{kind}" for kind in KINDS for side in "BI")]


def load_sentences(part: str, limit: int | None = None) -> tuple[list[list[str]], list[list[int]]]:
    """Words of each sentence, and their tags' numbers."""
    sentences, labels = [[]], [[]]
    for line in read_lines(f"wnut17_{part}.tsv"):
        if not line:
            sentences.append([])
            labels.append([])
        else:
            word, tag = line.split("\t")
            sentences[-1].append(word)
            labels[-1].append(TAGS.index(tag))
    return sentences[:limit], labels[:limit]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=8, batch_size=16, learning_rate=3e-3, max_length=192)

    # After the options, so that --help and mistakes in them are told at once.
    import keras

    from tfmodels import TFAutoModelForTokenClassification
    from tfmodels.training.data import batches, tokenize_words
    from tfmodels.training.metrics import EntityF1, MaskedAccuracy

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    buckets = [32, 64, 96, 128, max(192, options.max_length)]
    data = {}
    for part in ("train", "dev"):
        # A word's last token bears its tag: a decoder has read the whole word only there.
        sentences = load_sentences(part, options.limit)
        columns = tokenize_words(tokenizer, *sentences, max_length=options.max_length, labelled="last")
        seed = 0 if part == "train" else None
        data[part] = batches(
            columns, options.batch_size, pad_token_id=tokenizer.pad_token_id, buckets=buckets, seed=seed
        )

    model = TFAutoModelForTokenClassification.from_pretrained(
        options.model, id2label=dict(enumerate(TAGS)), pad_token_id=tokenizer.pad_token_id
    )
    steps = options.epochs * int(data["train"].cardinality())
    model.compile(
        keras.optimizers.AdamW(warmed_up(options.learning_rate, steps), global_clipnorm=1.0),
        metrics=[MaskedAccuracy(), EntityF1(model.config.id2label)],
        jit_compile=False,
    )
    history = model.fit(data["train"], validation_data=data["dev"], epochs=options.epochs)
    plot_losses(history.history, options.plot)

    f1 = history.history["val_entity_f1"][-1]
    print(f"F1 of whole entities in sentences not learned from: {f1:.3f}")
    words = ["Flying", "to", "New", "York", "with", "Justin", "Bieber", "tomorrow"]
    encoded = tokenizer(words, is_split_into_words=True, return_tensors="tf")
    tags = np.argmax(model(**encoded).logits[0], axis=-1)
    spans = [encoded.word_to_tokens(0, number) for number in range(len(words))]
    print(" ".join(f"{word}/{TAGS[tags[span.end - 1]]}" for word, span in zip(words, spans, strict=True)))
    return {"f1": f1}


if __name__ == "__main__":
    main()
