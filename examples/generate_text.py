"""Continue prompts with a checkpoint: greedy, sampled, batched and streamed.

python examples/generate_text.py
python examples/generate_text.py --model path/to/llama --prompt "Once upon a time" "The little dog"
"""

from __future__ import annotations

import argparse


def main(arguments: list[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories260K", help="folder, hub id, or the bundled stories260K (default)")
    parser.add_argument("--prompt", nargs="+", default=["Once upon a time", "Lily and her dog went to the park"])
    parser.add_argument("--max-new-tokens", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    # After the options, so that --help and mistakes in them are told at once.
    from tfmodels import AutoTokenizer, TextStreamer, TFAutoModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"  # so that all prompts end where the continuations begin
    model = TFAutoModelForCausalLM.from_pretrained(options.model)

    prompts = tokenizer(options.prompt, padding=True, return_tensors="tf")
    greedy = model.generate(**prompts, max_new_tokens=options.max_new_tokens)
    texts = tokenizer.batch_decode(greedy, skip_special_tokens=True)
    for text in texts:
        print("greedy: ", text, "\n")

    sampled = model.generate(
        **prompts,
        max_new_tokens=options.max_new_tokens,
        do_sample=True,
        temperature=0.9,
        top_p=0.95,
        seed=options.seed,
    )
    for text in tokenizer.batch_decode(sampled, skip_special_tokens=True):
        print("sampled:", text, "\n")

    print("streamed: ", options.prompt[0], end="", flush=True)
    first = tokenizer(options.prompt[:1], return_tensors="tf")
    model.generate(**first, max_new_tokens=options.max_new_tokens, streamer=TextStreamer(tokenizer))
    return texts


if __name__ == "__main__":
    main()
