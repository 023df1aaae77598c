"""`tfmodels generate`: continue a text, printing it as it is written."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import time
from pathlib import Path
from typing import Any

from tfmodels.cli.common import (
    DTYPES,
    CommandError,
    Place,
    add_model,
    check_backend,
    check_weights,
    load_backend,
    place_of,
    read_config,
    read_text,
)
from tfmodels.cli.speed import seconds_per_token, steps_of
from tfmodels.utils.text import quote

HELP = "continue a text, printing it as it is written"
_SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "repetition_penalty", "num_beams")
# What --stop understands, so that a line's end can be written in any shell.
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels generate`."""
    add_model(parser)
    parser.add_argument("prompt", nargs="?", default="-", help="text to continue; default and -: of standard input")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="tokens to add at most (%(default)s)"
    )
    parser.add_argument("--do-sample", action="store_true", help="draw tokens at random instead of the likeliest")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="below 1 safer, above 1 wilder, 0 the likeliest; above 0 implies --do-sample",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest; implies --do-sample")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the likeliest that sum to P; implies --do-sample"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampling repeat itself")
    parser.add_argument("--repetition-penalty", type=float, metavar="R", help="above 1 avoids what was said")
    parser.add_argument("--num-beams", type=int, metavar="N", help="search with N beams; the text comes at the end")
    parser.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help=r"end at this text; \n is a new line; may be given several times",
    )
    parser.add_argument(
        "--json-schema",
        metavar="FILE",
        help="write JSON of this schema alone, on one line; a file, or the schema itself",
    )
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")
    parser.add_argument("--no-jit", action="store_true", help="run as a plain graph instead of compiling with XLA")


def run(options: argparse.Namespace) -> None:
    """Check everything that can be wrong without TensorFlow, then load the model and write."""
    from tfmodels.generation.config import GenerationConfig

    settings = {name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None}
    if settings.get("temperature") == 0 and not options.do_sample:  # the likeliest token, as in chat and in requests
        del settings["temperature"]
        settings["do_sample"] = False
    else:
        settings["do_sample"] = options.do_sample or not settings.keys().isdisjoint({"temperature", "top_k", "top_p"})
    GenerationConfig().update(**settings)
    if options.stop:
        if "" in options.stop:
            raise CommandError("--stop '': a text that is not empty was expected.")
        settings["stop_strings"] = [
            re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), stop) for stop in options.stop
        ]
    schema = None if options.json_schema is None else read_schema(options.json_schema)
    if options.prompt == "-" and sys.stdin.isatty():
        print("type the text to continue, then Ctrl-D ...", file=sys.stderr)
    # `echo text |` ends in a newline that is no part of the text.
    prompt = read_text("-").removesuffix("\n").removesuffix("\r") if options.prompt == "-" else options.prompt
    if not prompt:
        print("the prompt is empty: the text begins where the model's texts begin", file=sys.stderr)
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise CommandError(f"prompt {quote(prompt)} is not text in this terminal's encoding ({sys.stdin.encoding}).")
    place = place_of(options)
    tokenizer = check_model(place)
    if sys.stderr.isatty():  # a person waits, no program
        print("loading TensorFlow and the model; the text comes after that ...", file=sys.stderr)
    model = load_model(place, options.dtype)
    if schema is not None:
        settings["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    statistics = write_story(model, tokenizer, prompt, jit_compile=not options.no_jit, **settings)
    print(statistics, file=sys.stderr)


def read_schema(given: str) -> dict[str, Any]:
    """The JSON schema of a file, or that an argument is.

    Raises:
        CommandError: it is no JSON schema, there is no such file, or `llguidance` is missing.
    """
    from tfmodels.utils.json_files import parse_object, read_object

    try:
        if given.lstrip().startswith("{"):
            schema = parse_object(given.encode(), "the argument")
        else:
            schema = read_object(Path(given).expanduser())
    except FileNotFoundError as error:
        raise CommandError(f"--json-schema: {quote(given)} is neither a file nor a JSON object.") from error
    except (OSError, ValueError) as error:
        raise CommandError(f"--json-schema: {error}") from error
    if importlib.util.find_spec("llguidance") is None:
        raise CommandError("--json-schema needs llguidance: pip install 'tfmodels[structured]'.")
    from llguidance import LLMatcher

    if problem := LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema)):
        raise CommandError(f"--json-schema: {problem}")
    return {"x-guidance": {"whitespace_flexible": False}, **schema}  # on one line, as programs that read it expect


def check_model(place: Place) -> Any:
    """Check that there is a causal language model, its weights and a tokenizer. Returns the tokenizer."""
    from tfmodels.auto import family_of
    from tfmodels.tokenization import AutoTokenizer

    check_backend()
    family = family_of(read_config(place))
    if "ForCausalLM" not in family.heads:
        raise CommandError(
            f"{place.name}: {family.stem} models do not generate text; `tfmodels embed` turns texts into vectors."
        )
    check_weights(place)
    return AutoTokenizer.from_pretrained(place.name, **place.options)


def load_model(place: Place, dtype: str = "float32") -> Any:
    """Load TensorFlow, then a causal language model."""
    load_backend()
    from tfmodels import TFAutoModelForCausalLM

    return TFAutoModelForCausalLM.from_pretrained(place.name, dtype=dtype, **place.options)


def write_story(model: Any, tokenizer: Any, prompt: str, **settings: Any) -> str:
    """Write a prompt and its continuation, or JSON alone, as tokens arrive. Returns a line of statistics."""
    import numpy as np

    from tfmodels.generation.streamers import TextStreamer, write_to_stdout

    class Timed(TextStreamer):
        """Notes when how many tokens arrive; the prompt comes with the first of them."""

        def __init__(self, **options: Any):
            super().__init__(tokenizer, **options)
            self.arrivals: list[tuple[float, int]] = []

        def put(self, ids: Any) -> None:
            if not self.arrivals and "response_format" not in settings:  # a program reads the JSON
                write_to_stdout(prompt)
            self.arrivals.append((time.perf_counter(), np.shape(ids)[1]))
            super().put(ids)

    inputs = tokenizer([prompt], return_tensors="np")
    streamer = Timed(prompt_ids=inputs["input_ids"][0].tolist())
    start = time.perf_counter()
    if {"stop_strings", "response_format"} & settings.keys():
        settings["tokenizer"] = tokenizer
    if settings.get("num_beams", 1) == 1:
        model.generate(**inputs, streamer=streamer, **settings)
    else:  # which tokens are first is known at the end
        ids = np.asarray(model.generate(**inputs, **settings))
        streamer.put(ids[:, inputs["input_ids"].shape[1] :])
        streamer.end()
    write_to_stdout("\n")
    return describe_speed(start, streamer.arrivals)


def describe_speed(start: float, arrivals: list[tuple[float, int]]) -> str:
    """A line on how fast tokens came, from (time in s, tokens) of each chunk.

    The speed is the median over the tokens after the first chunk. Any later chunk may wait for the trace or the
    compilation of another program (the loop, a longer cache), which has no part in it and is told beside it.

    Example:
        >>> describe_speed(0.0, [(1.0, 1), (3.0, 4), (3.1, 10), (3.2, 10)])
        '25 tokens in 3.20 s; first after 1.00 s (tracing included), then 100 tokens/s; later traces took 1.96 s'
    """
    total = sum(count for _, count in arrivals)
    if not arrivals:
        return "0 tokens"
    first, last = arrivals[0][0], arrivals[-1][0]
    line = f"{total} tokens in {last - start:.2f} s; first after {first - start:.2f} s (tracing included)"
    typical = seconds_per_token(arrivals)
    if typical is None or first == last:
        return line
    steps = steps_of(arrivals)
    waited = sum(seconds - count * typical for seconds, count in steps if seconds > 0.1 + 2 * count * typical)
    line += f", then {1 / typical:,.0f} tokens/s"
    return f"{line}; later traces took {waited:.2f} s" if waited else line
