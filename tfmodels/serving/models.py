"""The models that are served, and how they are loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfmodels.serving.errors import BadRequest
from tfmodels.serving.token_texts import TokenTexts
from tfmodels.utils.text import joined, quote
from tfmodels.utils.warn import warn

DEFAULT_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Spec:
    """A model to be served.

    Args:
        name: what requests call it.
        place: folder or hub id.
        options: of `from_pretrained`, where to find it.
        encoder: whether it is a sentence encoder's folder.
        adapter: folder of a low-rank adapter. It is merged into the weights, and stays beside quantised ones.
        chat_template: source of a template that goes before the tokenizer's own.
    """

    name: str
    place: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    encoder: bool = False
    adapter: str | None = None
    chat_template: str | None = None


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """Settings of the engines.

    Args:
        rows: requests that a model works on at a time.
        capacity: most tokens of a prompt and its answer; None for as many as the model has positions for, up to
            `MOST_POSITIONS`.
        dtype: of the weights.
        jit_compile: whether XLA compiles.
        warm_up: whether programs that serve every request are compiled before the first one.
    """

    rows: int = DEFAULT_ROWS
    capacity: int | None = None
    dtype: str = "float32"
    jit_compile: bool = True
    warm_up: bool = True


MOST_POSITIONS = 4096


class LanguageModel:
    """A model that writes, with its engine.

    Args:
        name: what requests call it.
        model: a causal language model.
        tokenizer: of the model.
        options: for the engine.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, options: EngineOptions):
        from tfmodels.generation.request import of_rows

        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.created = int(time.time())
        # No request could do without what the model's file has.
        self.config, unserved = of_rows(model.generation_config)
        if unserved:
            warn(f"{joined(unserved)} of the generation configuration of {name}: no effect in a server.")
        self.tokens = TokenTexts(tokenizer)
        self._options = options
        limits = (model.backbone.position_limit, model.config.max_position_embeddings, MOST_POSITIONS)
        self.capacity = options.capacity or min(limit for limit in limits if limit)
        self.rows = options.rows
        self.engine: Any = None
        self.restart()
        self.cache_bytes = self.engine.stats["cache_bytes"]

    @property
    def programs(self) -> Any:
        """The model's compiled programs, a `ProgramCache`."""
        return self.model.programs

    @property
    def tasks(self) -> list[str]:
        """The kinds of requests it answers: conversations only where the tokenizer has a template for them."""
        return [*(["chat"] if self.tokenizer.chat_template is not None else []), "completions", "embeddings"]

    def restart(self) -> None:
        """Make the engine anew, with nothing in it."""
        from tfmodels.generation.engine import Engine

        self.engine = None  # its cache goes before the new one comes
        self.engine = Engine(
            self.model,
            rows=self._options.rows,
            capacity=self.capacity,
            tokenizer=self.tokenizer,
            jit_compile=self._options.jit_compile,
            generation_config=self.config,
        )

    def warm_up(self) -> None:
        """Compile what serves every request; on a CPU, what serves most of them faster follows in the background."""
        from tfmodels.generation.row_settings import Kind

        self.engine.warm_up((Kind.SAMPLING, Kind.GREEDY), grammars=False)

    def score(self, ids: Sequence[int], best: int) -> list[Any]:
        """The log probabilities of a text's own tokens, as `scoring.score` gives them."""
        from tfmodels.serving.scoring import score

        return score(self.model, ids, best, self.capacity)

    def grammar(self, response_format: Mapping[str, Any]) -> Any:
        """The grammar of an answer, compiled; None where it may be any text.

        Raises:
            BadRequest: the format is wrong, or cannot be met.
        """
        from tfmodels.generation.structured import Grammar, wants_grammar

        if not wants_grammar(response_format):
            return None
        try:
            return Grammar(
                response_format,
                tokenizer=self.tokenizer,
                vocab_size=self.model.config.vocab_size,
                eos_token_ids=self.config.eos_token_ids,
            )
        except (ValueError, ImportError) as error:
            raise BadRequest(str(error), "response_format") from error

    @functools.cached_property
    def encoder(self) -> Any:
        """Makes embeddings: the mean of the last layer's states over a text's tokens."""
        from tfmodels.serving.pooling import MeanPooling

        return MeanPooling(self.model, self.tokenizer, self.capacity)


class EncoderModel:
    """A sentence encoder.

    Args:
        name: what requests call it.
        encoder: a `SentenceEncoder`.
    """

    engine = None
    rows = cache_bytes = 0
    tasks = ("embeddings",)

    def __init__(self, name: str, encoder: Any):
        from tfmodels.serving.pooling import Encoder

        self.name, self.tokenizer = name, encoder.tokenizer
        self.created = int(time.time())
        self.tokens = TokenTexts(encoder.tokenizer)
        self.encoder = Encoder(encoder)
        self.capacity = self.encoder.longest

    def warm_up(self) -> None:
        """Run a first text."""
        self.encoder.encode([[0]])


def load(
    specs: Sequence[Spec], options: EngineOptions, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Load models; called in the thread that will run them.

    Args:
        specs: of the models, in the order in which clients see them.
        options: for their engines.
        tell: gets lines about what is being done.

    Returns:
        The models by name.

    Raises:
        ValueError, OSError: a model cannot be loaded.
    """
    import tfmodels

    models: dict[str, Any] = {}
    for spec in specs:
        tell(f"loading {spec.name}")
        if spec.encoder:
            encoder = tfmodels.SentenceEncoder.from_pretrained(spec.place, dtype=options.dtype, **spec.options)
            models[spec.name] = EncoderModel(spec.name, encoder)
        else:
            model = tfmodels.TFAutoModelForCausalLM.from_pretrained(spec.place, dtype=options.dtype, **spec.options)
            if spec.adapter is not None:
                _adapt(model, spec.adapter)
            tokenizer = tfmodels.AutoTokenizer.from_pretrained(spec.place, **spec.options)
            if spec.chat_template is not None:
                tokenizer.chat_template = spec.chat_template
            models[spec.name] = LanguageModel(spec.name, model, tokenizer, options)
    if options.warm_up:
        for model in models.values():
            tell(f"compiling {model.name}; requests get 503 until it is ready")
            with _telling_progress(model, tell):
                model.warm_up()
    return models


_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def _telling_progress(model: Any, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell every few seconds, and at the end, how many programs of a model are compiled."""
    started, is_done = time.monotonic(), threading.Event()

    def line() -> str:
        count = f"{model.programs.compilations} programs of " if hasattr(model, "programs") else ""
        return f"{count}{model.name} compiled in {time.monotonic() - started:.0f} s"

    def tell_until_done() -> None:
        while not is_done.wait(_SECONDS_BETWEEN_LINES):
            tell(f"{line()}, more follow")

    thread = threading.Thread(target=tell_until_done, name="tfmodels-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
    tell(line())


def _adapt(model: Any, folder: str) -> None:
    from tfmodels.training.lora import load_adapter, merge_lora

    try:
        load_adapter(model, folder)
        if model.quantization is None:  # rounded kernels cannot take the adapters' part, which stays beside them
            merge_lora(model)
    except (ValueError, OSError) as error:
        raise ValueError(f"the adapter {quote(folder)} does not go with the model: {error}") from error
