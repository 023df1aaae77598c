"""The settings of `generate`: each one's default, check, text and when it counts, stated once.

The settings of transformers that are not implemented here are listed below them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tfmodels.generation import checks
from tfmodels.utils.text import quote


class Condition(NamedTuple):
    """When a setting counts: the words for it, and a test of the whole configuration."""

    text: str
    holds: Callable[[Any], bool]


SAMPLING = Condition("do_sample=True", lambda config: config.do_sample)
BEAMS = Condition("num_beams above 1", lambda config: config.num_beams > 1)
GREEDY = Condition("do_sample=False and num_beams=1", lambda config: not config.do_sample and config.num_beams == 1)
OUTPUT_OBJECT = Condition("return_dict_in_generate=True", lambda config: config.return_dict_in_generate)
LOOKUP = Condition("prompt_lookup_num_tokens", lambda config: bool(config.prompt_lookup_num_tokens))
QUANTIZED_CACHE = Condition('cache_implementation="quantized"', lambda config: config.quantizes_cache)
END = Condition("an eos_token_id", lambda config: config.eos_token_id is not None)


class Setting:
    """One setting, a class attribute of `GenerationConfig`: reading one that was not given gives its default.

    Args:
        default: value of a setting that was not given.
        check: takes (name, value) and returns the value to keep, or raises ValueError.
        text: what the setting does, for the documentation.
        only: when it counts; None for always.
        neutral: values beside the default that change nothing, so that nobody is told when they do not count.
        section: heading that starts here in the documentation.
    """

    def __init__(
        self,
        default: Any,
        check: checks.Check,
        text: str,
        *,
        only: Condition | None = None,
        neutral: tuple[Any, ...] = (),
        section: str = "",
    ):
        self.default, self.check, self.text, self.only, self.section = default, check, text, only, section
        self.neutral = (default, *neutral)

    def __get__(self, instance: Any, owner: type) -> Any:
        # Python asks a descriptor without __set__ only where the instance has no such attribute of its own.
        return self.default


def setting(*args: Any, **kwargs: Any) -> Any:
    """Make a `Setting`, typed as whatever the attribute holds."""
    return Setting(*args, **kwargs)


class Settings:
    """The settings of `generate`, each stated once. `GenerationConfig` documents and holds them."""

    max_length: int = setting(
        20,
        checks.positive_integer,
        "number of tokens, prompt included, at which generation stops. When neither it nor `max_new_tokens` is "
        "given, 20 new tokens are generated.",
        section="Length",
    )
    max_new_tokens: int | None = setting(
        None, checks.positive_integer, "number of tokens to generate; wins over `max_length`."
    )
    min_length: int = setting(
        0,
        checks.natural,
        "number of tokens, prompt included, before which no end-of-sequence token is generated.",
        only=END,
    )
    min_new_tokens: int | None = setting(
        None, checks.natural, "the same, counted without the prompt; wins over `min_length`.", only=END, neutral=(0,)
    )

    stop_strings: list[str] | str | None = setting(
        None, checks.strings, "text, or several, after which a row ends; needs `generate(..., tokenizer=)`."
    )
    max_time: float | None = setting(
        None, checks.positive, "seconds after which generation stops, once there is a new token."
    )

    prefill_chunk_size: int | None = setting(
        None,
        checks.positive_integer,
        "tokens of a prompt that are run at a time: long ones then need less memory, and the result is the same.",
    )

    do_sample: bool = setting(
        False,
        checks.boolean,
        "draw the next token at random instead of taking the most probable one.",
        section="Strategy",
    )
    num_beams: int = setting(1, checks.positive_integer, "number of beams; 1 is no beam search.")
    num_return_sequences: int = setting(
        1, checks.positive_integer, "sequences generated for each prompt; more than one needs sampling or beams."
    )
    early_stopping: bool | str = setting(
        False,
        checks.early_stopping,
        "stop at `num_beams` finished candidates (True), at a heuristic (False) or when no better candidate can come "
        '("never").',
        only=BEAMS,
    )
    length_penalty: float = setting(
        1.0, checks.finite, "exponent of the length by which a beam's score is divided.", only=BEAMS
    )
    penalty_alpha: float | None = setting(
        None,
        checks.fraction,
        "contrastive search: weight of a candidate's likeness to the text before it, against its probability; the "
        "candidates are the `top_k` most probable tokens.",
        only=GREEDY,
        neutral=(0.0,),
    )
    prompt_lookup_num_tokens: int | None = setting(
        None,
        checks.natural,
        "tokens drafted at a time from where the text had the last ones before.",
        neutral=(0,),
    )
    max_matching_ngram_size: int = setting(
        2, checks.positive_integer, "tokens that must match at most for `prompt_lookup_num_tokens`.", only=LOOKUP
    )
    num_assistant_tokens: int = setting(
        5, checks.positive_integer, "tokens that `generate(..., assistant_model=)` drafts at a time."
    )
    num_assistant_tokens_schedule: str = setting(
        "constant",
        checks.schedule,
        '"constant", or "heuristic" or "heuristic_transient" to draft fewer tokens while few of them count.',
    )
    assistant_confidence_threshold: float = setting(
        0.0, checks.fraction, "drafting stops after a token less probable than this."
    )
    seed: int | None = setting(None, checks.integer(), "integer that makes sampling reproducible.")

    temperature: float = setting(
        1.0,
        checks.temperature,
        "divides the scores; above 1 flattens the distribution.",
        only=SAMPLING,
        section="Sampling",
    )
    top_k: int = setting(
        50, checks.natural, "number of most probable tokens kept; 0 keeps all.", only=SAMPLING, neutral=(0,)
    )
    top_p: float = setting(
        1.0,
        checks.fraction,
        "smallest set of most probable tokens whose probability exceeds this is kept; 1 keeps all.",
        only=SAMPLING,
    )
    min_p: float | None = setting(
        None,
        checks.fraction,
        "tokens less probable than this fraction of the most probable one are dropped.",
        only=SAMPLING,
        neutral=(0.0,),
    )
    typical_p: float = setting(
        1.0,
        checks.positive_fraction,
        "probability mass of the locally typical tokens that are kept; 1 keeps all.",
        only=SAMPLING,
    )
    epsilon_cutoff: float = setting(
        0.0, checks.fraction_below_one, "tokens less probable than this are dropped; 0 drops none.", only=SAMPLING
    )
    eta_cutoff: float = setting(
        0.0,
        checks.fraction_below_one,
        "the same with a limit that adapts to the entropy; 0 drops none.",
        only=SAMPLING,
    )

    repetition_penalty: float = setting(
        1.0, checks.positive, "above 1 makes tokens that have occurred less likely.", section="Scores"
    )
    encoder_repetition_penalty: float = setting(
        1.0, checks.positive, "above 1 makes tokens of the prompt more likely, below 1 less."
    )
    presence_penalty: float = setting(
        0.0,
        checks.finite,
        "subtracted from the scores of tokens that were generated before; tokens of the prompt do not count.",
    )
    frequency_penalty: float = setting(0.0, checks.finite, "the same for each time that a token was generated.")
    no_repeat_ngram_size: int = setting(0, checks.natural, "n-grams of this length occur only once; 0 for no limit.")
    encoder_no_repeat_ngram_size: int = setting(
        0, checks.natural, "n-grams of this length that the prompt has do not occur again; 0 for no limit."
    )
    bad_words_ids: list[list[int]] | None = setting(
        None, checks.bad_words, "token sequences that are never generated, a list of lists."
    )
    sequence_bias: list | dict | None = setting(
        None,
        checks.sequence_bias,
        "score added to the last token of a sequence, a list of `[[token ids], bias]` or a dict "
        "`{(token ids): bias}`; minus infinity bans the token there.",
    )
    logit_bias: dict[int, float] | None = setting(
        None, checks.logit_bias, "what is added to the scores of tokens, a dict `{token id: bias}`."
    )
    suppress_tokens: list[int] | None = setting(None, checks.tokens, "token ids that are never generated.")
    begin_suppress_tokens: list[int] | None = setting(None, checks.tokens, "token ids that are not generated first.")
    forced_bos_token_id: int | None = setting(
        None,
        checks.token,
        "token id forced right after a prompt of one token, or after the first new token where the prompt is "
        "embeddings.",
    )
    forced_eos_token_id: int | list[int] | None = setting(
        None, checks.token_or_tokens, "token id, or several, forced as the last token before the length limit."
    )
    exponential_decay_length_penalty: list | None = setting(
        None,
        checks.exponential_decay,
        "`[start, factor]`; from `start` new tokens on, the score of the end-of-sequence tokens grows by `factor` to "
        "the power of the tokens since.",
    )
    guidance_scale: float | None = setting(
        None,
        checks.finite,
        "above 1 pushes scores away from those of `negative_prompt_ids` (classifier-free guidance).",
        neutral=(1.0,),
    )
    remove_invalid_values: bool = setting(False, checks.boolean, "replace NaN and infinities in the scores.")
    renormalize_logits: bool = setting(False, checks.boolean, "normalise the scores after all processors.")

    bos_token_id: int | None = setting(
        None,
        checks.token,
        "token id that starts a text; generation without a prompt starts from it.",
        section="Tokens",
    )
    eos_token_id: int | list[int] | None = setting(
        None, checks.token_or_tokens, "token id that ends a text, or a list of them."
    )
    pad_token_id: int | None = setting(None, checks.token, "token id that fills rows after their end.")

    use_cache: bool = setting(True, checks.boolean, "keep keys and values of past tokens.", section="Run and output")
    cache_implementation: str | None = setting(
        None,
        checks.cache_implementation,
        '"quantized" keeps keys and values as integers of 8 bits, with a scale for each head and position: about a '
        "quarter of float32's memory, half of float16's. None and transformers' names of caches that hold floats "
        "change nothing.",
        neutral=checks.FLOAT_CACHES,
    )
    cache_config: dict | None = setting(
        None,
        checks.cache_config,
        'settings of the quantised cache, {"nbits": 8}; it has no others.',
        only=QUANTIZED_CACHE,
        neutral=({},),
    )
    jit_compile: bool = setting(True, checks.boolean, "compile the decoding loop with XLA.")
    disable_compile: bool = setting(
        False, checks.boolean, "run as a plain graph, whatever `jit_compile` says: transformers' name for it."
    )
    return_dict_in_generate: bool = setting(False, checks.boolean, "return an output object instead of the token ids.")
    output_scores: bool = setting(
        False, checks.boolean, "keep the processed scores of each step in that object.", only=OUTPUT_OBJECT
    )
    output_logits: bool = setting(
        False, checks.boolean, "keep the raw scores of each step in that object.", only=OUTPUT_OBJECT
    )
    output_attentions: bool = setting(
        False, checks.boolean, "give attention weights of each step in that object.", only=OUTPUT_OBJECT
    )
    output_hidden_states: bool = setting(
        False, checks.boolean, "give hidden states of each step in that object.", only=OUTPUT_OBJECT
    )


SETTINGS: dict[str, Setting] = {name: value for name, value in vars(Settings).items() if isinstance(value, Setting)}
FIELDS = frozenset(SETTINGS)


def documented() -> str:
    """The settings as a part of a docstring."""
    lines = []
    for name, one in SETTINGS.items():
        if one.section:
            lines += ["", one.section]
        when = f" Used with {one.only.text} only." if one.only else ""
        lines.append(f"    {name}: {one.text} Default: {quote(one.default)}.{when}")
    return "\n    ".join(lines[1:])


# Settings of transformers that change what is generated and that are not implemented here, with the values that change
# nothing, the default last. Those values pass; others are refused as arguments, and warned about when a file asks for
# them.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (None,),
    "constraints": ([], None),
    "diversity_penalty": (None, 0.0),
    "dola_layers": (None,),
    "force_words_ids": ([], None),
    "low_memory": (None, False),
    "num_beam_groups": (None, 1),
    "speculation_type": (None,),
    "token_healing": (None, False),
    "top_h": (None,),
    "use_mtp": (None, False),
    "watermarking_config": (None,),
}

# Settings of transformers that never change what is generated: how its cache is kept, how it compiles, where a file
# came from. Any value passes.
WITHOUT_EFFECT = frozenset(
    {
        "_commit_hash",
        "_from_model_config",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "compile_config",
        "continuous_batching_config",
        "decoder_start_token_id",
        "is_assistant",
        "max_cache_len",
        "return_legacy_cache",
        "synced_gpus",
        "target_lookbehind",
        "transformers_version",
    }
)


def asks_for_the_unsupported(name: str, value: Any) -> bool:
    """Whether a setting is one that is not implemented here, with a value that would change something."""
    return name in UNSUPPORTED and not any(value == neutral for neutral in UNSUPPORTED[name])


def contradictions(config: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the contradictions between settings: the names to drop where a file is read, and the message."""
    if config.do_sample and config.temperature == 0:
        yield (
            ("temperature", "do_sample"),
            "temperature=0 with do_sample=True: give a temperature above 0, or do_sample=False",
        )
    if config.num_beams == 1:
        if config.num_return_sequences > 1 and not config.do_sample:
            yield (
                ("num_return_sequences",),
                f"num_return_sequences={config.num_return_sequences} with greedy decoding would give the same "
                "sequence several times: set do_sample=True, num_beams, or num_return_sequences=1",
            )
    elif config.num_return_sequences > config.num_beams:
        yield (
            ("num_return_sequences",),
            f"num_return_sequences={config.num_return_sequences} is above num_beams={config.num_beams}: "
            "beam search can return at most one sequence per beam",
        )
    low, high = "min_length", "max_length"
    if config.max_new_tokens is not None and config.min_new_tokens is not None:
        low, high = "min_new_tokens", "max_new_tokens"
    compared = low == "min_new_tokens" or (
        config.max_new_tokens is None and config.min_new_tokens is None and config.is_given("max_length")
    )
    if compared and getattr(config, low) > getattr(config, high):
        yield (
            (low,),
            f"{low}={getattr(config, low)} is above {high}={getattr(config, high)}: lower {low} or raise {high}",
        )
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = as_tuple(getattr(config, name))
        if forced and set(forced) <= set(config.suppress_tokens or ()):
            yield (
                (name,),
                f"{name}={getattr(config, name)} is also in suppress_tokens: no token would be left",
            )


def as_tuple(token_ids: int | list[int] | None) -> tuple[int, ...]:
    """Return one token id, a list of them, or None, as a tuple."""
    if token_ids is None:
        return ()
    return (token_ids,) if isinstance(token_ids, int) else tuple(token_ids)
