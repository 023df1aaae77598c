"""Measure the engine, and what `generate` does to need fewer or better steps.

    python -m tools.bench engine throughput --model stories15M --requests 64 --prompts 16,128 --new 64
    python -m tools.bench engine throughput --shape llama-3.2-1b --dtype bfloat16 --requests 256 --prompts 64,1024 \\
        --new 128 --rows 128 --chunk 1024 --batch 32,64
    python -m tools.bench engine lookup --model stories260K
    python -m tools.bench engine beams --model stories15M --peer torch

throughput hands all requests in at once, and runs the same requests in static batches of several sizes, sorted by
length, and one after the other. lookup continues texts with and without repetitions, with and without drafts. beams
searches with four beams, beside transformers. Programs are compiled before anything is timed. Each result is a line
of JSON; --json keeps them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tools.bench.cpu import Row, take_turns
from tools.bench.shapes import DTYPES, SHAPES, numbers, random_ids, some_of, write_random

Prompts = list[list[int]]

# Small models copy it once they have seen it a few times, when its beginning comes again.
_TEXT = "The fox sat on a log. The frog sat on a rock. The fox said hello to the frog. "
_TEXT_TOKENS = 28  # about, in tokens of Llama


class Bench:
    """A model, and how it is measured.

    Args:
        options: of the command line.
        folder: of the model.
    """

    def __init__(self, options: argparse.Namespace, folder: str):
        from tfmodels import AutoTokenizer, GenerationConfig, TFAutoModelForCausalLM

        self.options = options
        self.folder = folder
        self.model = TFAutoModelForCausalLM.from_pretrained(folder, dtype=options.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(folder) if options.model else None
        # No token ends a text: everybody makes exactly --new tokens.
        self.model.generation_config = GenerationConfig(pad_token_id=0)
        self.vocab = self.model.config.vocab_size

    def prompts(self) -> Prompts:
        low, high = self.options.prompts
        draw = np.random.default_rng(0)
        lengths = draw.integers(low, high + 1, self.options.requests)
        return [draw.integers(3, self.vocab, length).tolist() for length in lengths]

    def engine(self, capacity: int, **options: Any) -> Any:
        from tfmodels import Engine

        options = {"rows": self.options.rows, "prefill_chunk": self.options.chunk, "jit_compile": True, **options}
        return Engine(self.model, capacity=capacity, **options)

    def warm(self, engine: Any, prompts: Prompts, **settings: Any) -> None:
        """Compile what requests of these lengths need, by serving some of them."""
        for prompt in (*sorted(prompts, key=len)[:: max(1, len(prompts) // 8)], max(prompts, key=len)):
            engine.add(prompt, max_new_tokens=2, **settings)
        engine.run()

    # What is measured ------------------------------------------------------------------------------------------

    def throughput(self) -> Iterator[Row]:
        prompts, new = self.prompts(), self.options.new
        engine = self.engine(max(map(len, prompts)) + new)
        self.warm(engine, prompts)
        seconds = timed(lambda: serve(engine, prompts, new))
        yield self.speed("engine", seconds, len(prompts))
        ordered = sorted(prompts, key=len)
        best = None
        for size in self.options.batch:
            batches = [padded(ordered[start : start + size]) for start in range(0, len(ordered), size)]
            for ids, mask in {ids.shape: (ids, mask) for ids, mask in batches}.values():
                self.model.generate(ids, attention_mask=mask, max_new_tokens=new)
            static = timed(
                lambda batches=batches: [
                    np.asarray(self.model.generate(ids, attention_mask=mask, max_new_tokens=new))
                    for ids, mask in batches
                ]
            )
            best = min(static, best or static)
            yield self.speed(f"static batches of {size}", static, len(prompts))
        some = ordered[:: max(1, len(ordered) // self.options.singles)]
        for prompt in some:
            self.model.generate([prompt], max_new_tokens=new)
        alone = timed(lambda: [np.asarray(self.model.generate([prompt], max_new_tokens=new)) for prompt in some])
        alone *= len(prompts) / len(some)
        yield self.speed(f"one after the other (from {len(some)})", alone, len(prompts))
        ratio = {"what": "throughput", "how": "engine against one after the other", "ratio": alone / seconds}
        if best:
            ratio["ratio_to_best_static"] = best / seconds
        yield ratio

    def speed(self, how: str, seconds: float, requests: int) -> Row:
        return {
            "what": "throughput",
            "how": how,
            "seconds": seconds,
            "requests_per_s": requests / seconds,
            "new_tokens_per_s": requests * self.options.new / seconds,
        }

    def lookup(self) -> Iterator[Row]:
        """A text said again and again, the model's own text, and random tokens."""
        length, new = self.options.prompts[1], self.options.new
        prompts = {
            "own text": np.asarray(self.model.generate(random_ids(1, 4, self.vocab), max_new_tokens=length // 2))
        }
        prompts["random"] = random_ids(1, length, self.vocab)
        if self.tokenizer is not None:
            text = _TEXT * max(1, length // _TEXT_TOKENS) + _TEXT[:11]
            prompts = {"repeated": np.asarray([self.tokenizer.encode(text)]), **prompts}
        for kind, ids in prompts.items():
            actions = {
                "plain": lambda ids=ids: np.asarray(self.model.generate(ids, max_new_tokens=new)),
                "lookup": lambda ids=ids: np.asarray(
                    self.model.generate(ids, max_new_tokens=new, prompt_lookup_num_tokens=self.options.drafts)
                ),
            }
            plain, (looked_up, passes) = actions["plain"](), counted_passes(actions["lookup"])
            timings, _ = take_turns(actions, self.options.rounds)
            seconds = {name: timing.low for name, timing in timings.items()}
            row = {"what": "lookup", "prompt": kind, **seconds, "faster_by": seconds["plain"] / seconds["lookup"]}
            yield row | {"tokens_per_pass": new / passes, "ids_equal": bool((plain == looked_up).all())}

    def beams(self) -> Iterator[Row]:
        ids, new = random_ids(1, self.options.prompts[0], self.vocab), self.options.new
        settings = {"num_beams": 4, "max_new_tokens": new, "do_sample": False}
        actions: dict[str, Callable[[], Any]] = {
            "tfmodels": lambda: np.asarray(self.model.generate(ids, **settings)),
        }
        if self.options.peer:
            from tools.bench.sides import TorchSide, cores

            TorchSide.prepare()
            side = TorchSide(self.folder, self.options.dtype)
            given = side.torch.from_numpy(ids)
            peer = {**settings, "pad_token_id": 0, "eos_token_id": None}

            def searched(threads: int) -> Any:
                side.torch.set_num_threads(threads)
                with side.torch.inference_mode():
                    return side.model.generate(given, attention_mask=side.torch.ones_like(given), **peer).numpy()

            actions |= {f"torch, {count}": lambda count=count: searched(count) for count in sorted({1, cores()})}
        timings, results = take_turns(actions, self.options.rounds)
        for name, timing in timings.items():
            equal = float((results[name] == results["tfmodels"]).mean())
            ratio = timing.median / timings["tfmodels"].median
            row = {"what": "beams", "side": name, "seconds": timing.median}
            yield row | {"tfmodels_faster_by": ratio, "ids_equal": equal}


# Requests and times ------------------------------------------------------------------------------------------------


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def counted_passes(action: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call of `generate` that drafts, and how many passes of the model it took."""
    from tfmodels.generation.results import result_of

    with mock.patch("tfmodels.generation.api.result_of", wraps=result_of) as result_of:
        result = action()
    return result, int(result_of.call_args.args[1].carry.passes)


def serve(engine: Any, prompts: Prompts, new: int) -> None:
    for prompt in prompts:
        engine.add(prompt, max_new_tokens=new)
    assert len(engine.run()) == len(prompts)


def padded(prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of a batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = np.array([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


# The command -------------------------------------------------------------------------------------------------------

WHAT = ("throughput", "lookup", "beams")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools.bench engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", type=some_of(WHAT), metavar=",".join(WHAT), help="what to measure, separated by commas")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder, hub id or bundled name of a causal language model")
    which.add_argument("--shape", choices=SHAPES, help="random weights of this shape")
    add("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    add("--requests", type=int, default=64, metavar="N", help="(%(default)s)")
    add("--prompts", type=numbers, default=[16, 128], metavar="LEAST,MOST", help="tokens of a prompt (16,128)")
    add("--new", type=int, default=64, metavar="N", help="new tokens of each (%(default)s)")
    add("--rows", type=int, default=8, metavar="N", help="of the engine (%(default)s)")
    add("--chunk", type=int, default=256, metavar="N", help="tokens of a prompt between two steps (%(default)s)")
    add("--batch", type=numbers, default=[4, 8, 16], metavar="N,...", help="sizes of static batches (4,8,16)")
    add("--singles", type=int, default=8, metavar="N", help="requests run one after the other (%(default)s)")
    add("--drafts", type=int, default=5, metavar="N", help="tokens drafted at a time, for lookup (%(default)s)")
    add("--peer", choices=("torch",), help="also measure this one, for beams")
    add("--rounds", type=int, default=5, metavar="N", help="(%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything measured here too")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if options.shape:
            write_random(folder, SHAPES[options.shape], options.dtype)
        bench = Bench(options, options.model or folder)
        for what in options.what:
            for row in getattr(bench, what)():
                rows.append(row)
                print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"command": vars(options) | {"json": None}, "rows": rows}, indent=1) + "\n")
