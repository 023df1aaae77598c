"""Measure the engine, and what `generate` does to need fewer or better steps.

    python -m tools.bench engine throughput,poisson --model stories15M --requests 64 --prompts 16,128 --new 64
    python -m tools.bench engine throughput --shape llama-3.2-1b --dtype bfloat16 --requests 256 --prompts 64,1024 \\
        --new 128 --rows 128 --chunk 1024 --batch 32,64
    python -m tools.bench engine chat,lookup,schemas --model stories260K
    python -m tools.bench engine beams --model stories15M --peer torch

throughput hands all requests in at once, and runs the same requests in static batches of several sizes, sorted by
length, and one after the other. poisson hands them in at random times, at --share of the requests per second that
the engine was measured to serve; --long adds one long prompt in the middle, and the longest gap between two events of
the others says how much it stops them. chat asks ten turns of a conversation. lookup continues texts with and
without repetitions, with and without drafts. beams searches with four beams, beside transformers. schemas answers
random JSON schemas and checks every answer. Programs are compiled before anything is timed. Each result is a line of
JSON; --json keeps them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from tools.bench.arguments import Row, benchmark, some_of
from tools.bench.cpu import alternate, timed
from tools.bench.shapes import SHAPES, random_ids, write_random

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
        self.eos = self.model.generation_config.eos_token_id
        # No token ends a text: everybody makes exactly --new tokens.
        self.model.generation_config = GenerationConfig(pad_token_id=0)
        self.vocab = self.model.config.vocab_size

    def prompts(self) -> Prompts:
        low, high = self.options.prompts
        draw = np.random.default_rng(0)
        lengths = draw.integers(low, high + 1, self.options.requests)
        return [draw.integers(3, self.vocab, length).tolist() for length in lengths]

    def engine(self, capacity: int, **options: Any) -> Any:
        """An engine with all programs that greedy requests need."""
        from tfmodels import Engine
        from tfmodels.generation.row_settings import Kind

        options = {"rows": self.options.rows, "prefill_chunk": self.options.chunk, "jit_compile": True, **options}
        engine = Engine(self.model, capacity=capacity, **options)
        engine.warm_up([Kind.GREEDY], wait=True)
        return engine

    # What is measured ------------------------------------------------------------------------------------------

    def throughput(self) -> Iterator[Row]:
        prompts, new = self.prompts(), self.options.new
        engine = self.engine(max(map(len, prompts)) + new)
        ordered = sorted(prompts, key=len)
        actions: dict[str, Callable[[], Any]] = {
            "engine": lambda: (engine.forget_prompts(), serve(engine, prompts, new))
        }
        for size in self.options.batch:
            batches = [padded(ordered[start : start + size]) for start in range(0, len(ordered), size)]
            actions[f"static batches of {size}"] = lambda batches=batches: [
                self.generated(*each, new) for each in batches
            ]
        some = ordered[:: max(1, len(ordered) // self.options.singles)]
        alone = f"one after the other (from {len(some)})"
        actions[alone] = lambda: [self.generated([prompt], None, new) for prompt in some]
        for action in [*actions.values()][1:]:
            action()
        seconds = in_turns(actions, self.options.rounds)
        seconds[alone] *= len(prompts) / len(some)
        for how, taken in seconds.items():
            yield self.speed(how, taken, len(prompts))
        own, *static = (seconds[how] for how in seconds if how != alone)
        ratio = {"what": "throughput", "how": "engine against one after the other", "ratio": seconds[alone] / own}
        yield ratio | ({"ratio_to_best_static": min(static) / own} if static else {})

    def generated(self, ids: Any, mask: Any, new: int) -> np.ndarray:
        return np.asarray(self.model.generate(ids, attention_mask=mask, max_new_tokens=new))

    def speed(self, how: str, seconds: float, requests: int) -> Row:
        return {
            "what": "throughput",
            "how": how,
            "seconds": seconds,
            "requests_per_s": requests / seconds,
            "new_tokens_per_s": requests * self.options.new / seconds,
        }

    def poisson(self) -> Iterator[Row]:
        prompts, new, long = self.prompts(), self.options.new, self.options.long
        engine = self.engine(max(*map(len, prompts), long) + new)
        capacity = len(prompts) / timed(lambda: serve(engine, prompts, new))[0]
        rate = self.options.share * capacity
        draw = random.Random(0)
        arrivals, now = [], 0.0
        for prompt in prompts:
            now += draw.expovariate(rate)
            arrivals.append((now, prompt))
        followed = follow(engine, arrivals, new)
        yield {"what": "poisson", "arrivals_per_s": rate, "capacity_per_s": capacity, **told(followed)}
        if long:
            middle = arrivals[len(arrivals) // 2][0]
            with_long = sorted(
                [*arrivals, (middle, draw.choices(range(3, self.vocab), k=long))], key=lambda one: one[0]
            )
            followed = [one for one in follow(engine, with_long, new) if one["prompt"] < long]
            yield {"what": "poisson", "with a prompt of": long, **told(followed)}

    def chat(self) -> Iterator[Row]:
        """Ten turns: every prompt begins with all that was said."""
        answer, turn, system = 24, 16, 48
        draw = np.random.default_rng(1)
        engine = self.engine(system + 10 * (answer + turn) + 1)
        prompt, waits = draw.integers(3, self.vocab, system).tolist(), []
        for _ in range(10):
            prompt += draw.integers(3, self.vocab, turn).tolist()
            (one,) = follow(engine, [(0.0, prompt)], answer)
            waits.append(one["first"])
            prompt = [*prompt, *one["tokens"]]
        yield {
            "what": "chat",
            "first_token_ms_by_turn": [1e3 * wait for wait in waits],
            "turn_10_to_turn_1": waits[-1] / waits[0],
            "reused_share": engine.stats["reused_tokens"] / engine.stats["prompt_tokens"],
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
            seconds = in_turns(actions, self.options.rounds, min)
            row = {"what": "lookup", "prompt": kind, **seconds, "faster_by": seconds["plain"] / seconds["lookup"]}
            yield row | {"tokens_per_pass": new / passes, "ids_equal": bool((plain == looked_up).all())}

    def beams(self) -> Iterator[Row]:
        ids, new = random_ids(1, self.options.prompts[0], self.vocab), self.options.new
        settings = {"num_beams": 4, "max_new_tokens": new, "do_sample": False}
        actions: dict[str, Callable[[], Any]] = {
            "tfmodels": lambda: np.asarray(self.model.generate(ids, **settings)),
        }
        if self.options.peer:
            from tools.bench.sides import TorchSide

            TorchSide.load_libraries()
            peer = {**settings, "pad_token_id": 0, "eos_token_id": None}

            side = TorchSide(self.folder, self.options.dtype)

            def searched() -> Any:
                given = side.torch.from_numpy(ids)
                with side.torch.inference_mode():
                    return side.model.generate(given, attention_mask=side.torch.ones_like(given), **peer).numpy()

            actions |= side.variants(searched)
        results = {name: action() for name, action in actions.items()}
        seconds = in_turns(actions, self.options.rounds)
        for name, value in seconds.items():
            equal = float((results[name] == results["tfmodels"]).mean())
            ratio = value / seconds["tfmodels"]
            yield {"what": "beams", "side": name, "seconds": value, "tfmodels_faster_by": ratio, "ids_equal": equal}

    def schemas(self) -> Iterator[Row]:
        """Answers to random schemas at temperature 1, all checked; and the time that the masks take."""
        if self.tokenizer is None or self.eos is None:
            yield {"what": "schemas", "note": "needs --model with a tokenizer and an end-of-sequence token"}
            return
        draw = random.Random(0)
        wanted = [random_schema(draw) for _ in range(self.options.schemas)]
        prompt = self.tokenizer("Once upon a time")["input_ids"]
        engine = self.engine(len(prompt) + 480, rows=8, tokenizer=self.tokenizer)
        settings = {"max_new_tokens": 480, "do_sample": True, "top_k": 0, "eos_token_id": self.eos}

        def answers(schemas: Sequence[Any], lengths: Sequence[int] | None = None) -> list[Any]:
            ids = []
            for index, schema in enumerate(schemas):
                own = {"seed": index, **settings}
                if lengths is None:
                    form = {"type": "json_schema", "json_schema": {"schema": schema}}
                    ids.append(engine.add(prompt, response_format=form, **own))
                else:
                    own |= {"max_new_tokens": lengths[index], "eos_token_id": None}
                    ids.append(engine.add(prompt, **own))
            found = engine.run()
            return [found[id] for id in ids]

        answers(wanted[:8])
        answers(wanted[:8], [8] * 8)
        found = answers(wanted)
        lengths = [len(answer.tokens) for answer in found]
        actions = {"limited": lambda: answers(wanted), "plain": lambda: answers(wanted, lengths)}
        limited, plain = in_turns(actions, self.options.rounds).values()
        good = sum(meets(answer.text, schema) for answer, schema in zip(found, wanted, strict=True))
        yield {
            "what": "schemas",
            "schemas": len(wanted),
            "valid": good,
            "tokens": sum(lengths),
            "limited_s": limited,
            "plain_s": plain,
            "overhead": limited / plain - 1,
        }


# Requests and times ------------------------------------------------------------------------------------------------


def counted_passes(action: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call of `generate` that drafts, and how many passes of the model it took."""
    from tfmodels.generation.results import result_of

    with mock.patch("tfmodels.generation.api.result_of", wraps=result_of) as result_of:
        result = action()
    return result, int(result_of.call_args.args[1].carry.passes)


def in_turns(
    actions: dict[str, Callable[[], Any]], rounds: int, of: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """The seconds of actions that take turns: the median of all rounds, or another number `of` them."""
    return {name: of(seconds) for name, seconds in alternate(actions, rounds)[0].items()}


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


def follow(engine: Any, arrivals: Sequence[tuple[float, list[int]]], new: int) -> list[Row]:
    """Hand requests in at their times (s), and note when their tokens come."""
    start, waiting, seen = time.perf_counter(), list(arrivals), {}
    while waiting or engine.pending:
        now = time.perf_counter() - start
        while waiting and waiting[0][0] <= now:
            due, prompt = waiting.pop(0)
            id = engine.add(prompt, max_new_tokens=new)
            seen[id] = {"due": due, "prompt": len(prompt), "times": [], "tokens": []}
        if not engine.pending:
            time.sleep(max(0.0, waiting[0][0] - now))
            continue
        for event in engine.step():
            if event.tokens:
                seen[event.id]["times"].append(time.perf_counter() - start)
                seen[event.id]["tokens"] += event.tokens
    for one in seen.values():
        times = one["times"]
        one["first"] = times[0] - one["due"]
        one["per_token"] = (times[-1] - times[0]) / max(1, len(one["tokens"]) - 1)
        one["gap"] = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
    return list(seen.values())


def told(requests: Sequence[Row]) -> Row:
    """Percentiles of what requests met, in milliseconds."""
    row = {}
    for name, key in (("first_token", "first"), ("per_token", "per_token"), ("longest_gap", "gap")):
        values = [1e3 * one[key] for one in requests]
        row |= {f"{name}_ms_p{share}": float(np.percentile(values, share)) for share in (50, 99)}
    return row


# Schemas -----------------------------------------------------------------------------------------------------------


def random_schema(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of the types that JSON schemas have, whose answers are short."""
    kind = draw.choice(("string", "integer", "boolean", "null", "enum", *(("object", "array") if depth < 2 else ())))
    if depth == 0:
        kind = "object"
    if kind == "object":
        names = [f"{draw.choice('abcdefgh')}{number}" for number in range(draw.randint(1, 3))]
        properties = {name: random_schema(draw, depth + 1) for name in names}
        return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
    if kind == "array":
        return {
            "type": "array",
            "items": random_schema(draw, depth + 1),
            "minItems": 1,
            "maxItems": draw.randint(1, 3),
        }
    if kind == "string":
        return {"type": "string", "maxLength": draw.randint(1, 8)}
    if kind == "integer":
        low = draw.randint(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 99)}
    return {"enum": ["red", 7, None]} if kind == "enum" else {"type": kind}


def meets(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that a schema of `random_schema` allows."""
    try:
        return _meets(json.loads(text), schema)
    except ValueError:
        return False


def _meets(value: Any, schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    if kind is None:
        return value in schema["enum"] and not isinstance(value, bool)
    if kind == "object":
        parts = schema["properties"]
        return (
            isinstance(value, dict)
            and value.keys() == parts.keys()
            and all(_meets(value[name], part) for name, part in parts.items())
        )
    if kind == "array":
        fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return fits and all(_meets(one, schema["items"]) for one in value)
    if kind == "string":
        return isinstance(value, str) and len(value) <= schema["maxLength"]
    if kind == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    return isinstance(value, bool) if kind == "boolean" else value is None


# The command -------------------------------------------------------------------------------------------------------

WHAT = ("throughput", "poisson", "chat", "lookup", "beams", "schemas")


@benchmark(
    "engine",
    "model|shape:name dtype=float32 requests=64 rows=8 batch=4,8,16 peer rounds=5 json",
    {
        "what": {"type": some_of(WHAT), "metavar": ",".join(WHAT), "help": "what to measure, separated by commas"},
        "--prompts": ("16,128", "least and most tokens of a prompt"),
        "--new": ("64", "new tokens of each"),
        "--chunk": ("256", "tokens of a prompt between two steps"),
        "--singles": ("8", "requests run one after the other"),
        "--share": ("0.5", "of the capacity, for poisson"),
        "--long": ("0", "tokens of one long prompt among the others, for poisson"),
        "--drafts": ("7", "tokens drafted at a time, for lookup"),
        "--schemas": ("200", "that are answered"),
    },
    tabled=False,
)
def run_engine(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        if options.shape:
            write_random(folder, SHAPES[options.shape], options.dtype)
        bench = Bench(options, options.model or folder)
        for what in options.what:
            yield from getattr(bench, what)()
