"""Language modelling: fine-tune on stories (TinyStories), with perplexity before and after, and a sample.

python examples/train_language_model.py
python examples/train_language_model.py --model path/to/gpt2-like --learning-rate 5e-5
"""

from __future__ import annotations

import json

from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=2, batch_size=4, learning_rate=1e-4, max_length=512)

    # After the options, so that --help and mistakes in them are told at once.
    import keras

    from tfmodels import TFAutoModelForCausalLM
    from tfmodels.training.data import batches, pack
    from tfmodels.training.metrics import Perplexity
    from tfmodels.training.optimizers import decay_matrices_only

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    stories = [json.loads(line) for line in read_lines("tinystories.jsonl", options.limit)]
    ids = tokenizer(stories)["input_ids"]
    cut = max(1, len(ids) // 10)
    # Stories side by side fill rows of one length; none sees another, and no row is padding for long.
    train, test = (
        pack(part, options.max_length, pad_token_id=tokenizer.pad_token_id) for part in (ids[cut:], ids[:cut])
    )
    print(f"{len(ids) - cut} stories make {len(train['input_ids'])} rows of {options.max_length} tokens")
    train, test = batches(train, options.batch_size, seed=0), batches(test, options.batch_size)

    # Without a cache, positions that restart mean packed sequences in evaluation too, not in training alone.
    model = TFAutoModelForCausalLM.from_pretrained(options.model, use_cache=False)
    steps = options.epochs * int(train.cardinality())
    rate = warmed_up(options.learning_rate, steps)
    optimizer = decay_matrices_only(keras.optimizers.AdamW(rate, weight_decay=0.1, global_clipnorm=1.0), model)
    model.compile(optimizer, metrics=[Perplexity()], jit_compile=False)
    before = model.evaluate(test, verbose=0, return_dict=True)["perplexity"]
    history = model.fit(train, validation_data=test, epochs=options.epochs)
    plot_losses(history.history, options.plot)

    after = history.history["val_perplexity"][-1]
    print(f"perplexity of stories not learned from: before {before:.2f}, after {after:.2f}")
    prompt = tokenizer(["One day, a little girl"], return_tensors="tf")
    written = model.generate(**prompt, max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95, seed=1)
    print(tokenizer.decode(written[0], skip_special_tokens=True))
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
