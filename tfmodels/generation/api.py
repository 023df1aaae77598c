"""`generate`: the method that causal language models have.

Few calls compile: prompts are padded on the left to a bucketed length, batches to a bucketed size, and the buffers to
a bucketed capacity, so only a new *bucket* compiles. Numbers and token ids (temperature, seed, limits,
end-of-sequence ids) are inputs of the programs; only what changes the program's shape (which processors there are) is
compiled in. `jit_compile=False` runs plain graphs; under `tf.config.run_functions_eagerly(True)` the same code runs
eagerly.

The file is long because the docstring of `generate` describes each argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.combinations import check_combination, check_functions, warn_of_unused
from tfmodels.generation.config import FILE_NAME, GenerationConfig
from tfmodels.generation.contrastive import Contrastive, ContrastiveDecoder
from tfmodels.generation.engine import Engine
from tfmodels.generation.prompt import Prompts, check_room, ids_of, read_prompts, to_buckets, with_negatives
from tfmodels.generation.request import Completion
from tfmodels.generation.results import result_of, transition_scores
from tfmodels.generation.run import Run, sampling_inputs
from tfmodels.generation.speculation import Speculation, SpeculativeDecoder
from tfmodels.generation.step import Decoder, lowering_for
from tfmodels.generation.stopping import Stopping, StopStrings
from tfmodels.generation.strategies import BeamSearch, Drawing, Guided, Sampling, Strategy
from tfmodels.generation.streamers import ending_on_errors
from tfmodels.generation.structured import Grammar, GrammarProcessor, wants_grammar
from tfmodels.runtime.buckets import bucket_batch, bucket_length
from tfmodels.runtime.device import in_turn
from tfmodels.utils.arguments import GENERATING, settle
from tfmodels.utils.files import Staged
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tfmodels.generation.keywords import GenerationKeywords


class GenerationMixin:
    """Adds `generate` and its settings to a causal language model."""

    generation_config: GenerationConfig

    def make_head(self) -> None:
        super().make_head()
        self.generation_config = GenerationConfig.from_model_config(self.config)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "generation_config": self.generation_config.to_dict()}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **kwargs: Any) -> Any:
        if not isinstance(config, Mapping):  # a configuration of a model, as transformers calls it
            return super().from_config(config, custom_objects, **kwargs)
        config = dict(config)
        settings = config.pop("generation_config", None)
        model = super().from_config(config, custom_objects)
        if settings is not None:
            model.generation_config = GenerationConfig.from_dict(settings)
        return model

    def after_loading(self, folder: Any) -> None:
        super().after_loading(folder)
        if (folder / FILE_NAME).is_file():
            stored = GenerationConfig.from_pretrained(folder)
            self.generation_config = stored.with_defaults(self.generation_config)

    def write_files(self, stage: Staged, max_shard_size: str | int = "5GB") -> None:
        super().write_files(stage, max_shard_size)
        self.generation_config.save_pretrained(stage.folder)

    @in_turn
    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        position_ids: Any = None,
        labels: Any = None,
        past_key_values: Any = None,
        logits_processor: Sequence[Callable] | None = None,
        stopping_criteria: Sequence[Callable] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Any], Sequence[int]] | None = None,
        negative_prompt_ids: Any = None,
        negative_prompt_attention_mask: Any = None,
        assistant_model: Any = None,
        response_format: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        streamer: Any = None,
        **kwargs: Unpack[GenerationKeywords],
    ) -> Any:
        """Continue prompts.

        Args:
            inputs: int (batch, length) token ids, also accepted as `input_ids`, or what a tokenizer returned. Prompts
                of different lengths are padded on the left. None starts from the beginning-of-sequence token.
            generation_config: settings that go before the model's own `generation_config`.
            attention_mask: (batch, length), 0 at padding. Left out, it is inferred where the padding token occurs in
                the prompt and does not also end sequences.
            inputs_embeds: (batch, length, hidden_size) instead of ids; the result, and what score processors and
                stopping criteria see, then holds new tokens only.
            position_ids: int (batch, length), positions of the whole prompt; each row's new tokens go on from that of
                its last token. Left out, tokens are counted, padding not.
            labels: not used, so that a batch with labels can be given as it is; a warning says so.
            logits_processor: callables `(input_ids, scores) -> scores` with the tokens so far (batch, length) and
                scores (batch, vocab_size); they may be any Python, so decoding then returns to Python at every token.
            past_key_values: keys and values of the first columns of the prompt, as an earlier call returned them, so
                that only the rest is run. `inputs` and `attention_mask` are of the whole prompt all the same.
            stopping_criteria: callables `(input_ids, scores)` that return a bool, or one per row; a row ends with the
                token for which one says so. `scores` are those of all steps where `output_scores` asks for them.
            prefix_allowed_tokens_fn: `(row of the prompt, ids so far (length,))` to the ids that may come next.
            negative_prompt_ids: int (batch, length), what `guidance_scale` leads away from, with
                `negative_prompt_attention_mask`; left out, it is the last token of each prompt.
            assistant_model: a smaller model with the same vocabulary that drafts tokens for this one to check, for a
                single prompt: the result is the same, and sooner there if many drafts count.
            response_format: what the answer must look like, as servers take it: `{"type": "json_object"}`,
                `{"type": "json_schema", "json_schema": {"schema": {...}}}`, `{"type": "regex", "regex": "..."}`,
                `{"type": "grammar", "grammar": "..."}` (Lark); needs `tokenizer` and the extra `structured`.
            tokenizer: reads the text for `stop_strings` and `response_format`.
            streamer: object with `put(ids)`, called with int32 arrays (batch, new) as tokens arrive, and `end()`. On a
                CPU the first tokens come from plain graphs, while XLA compiles in the background.
            **kwargs: settings of `GenerationConfig` for this call (`max_new_tokens`, `do_sample`, `temperature`, ...).
                With `seed=` sampling repeats itself. Without it, it is new every time, but repeats after
                `tf.random.set_seed` or `keras.utils.set_random_seed`. `jit_compile=False` runs as a plain graph
                instead of compiling by XLA.

        Returns:
            int32 (batch * num_return_sequences, length + new): prompt and continuation, rows that ended early filled
            with the padding token; or, for `return_dict_in_generate=True`, a `GenerateOutput`.

        Raises:
            TypeError: an unknown argument, or a symbolic tensor.
            ValueError: an empty prompt, ids outside the vocabulary, a mask of another shape, contradicting settings,
                no room for a single token, every token banned.
            FloatingPointError: the model's scores are NaN.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.generate([[1, 403, 407, 261, 378]], max_new_tokens=4).numpy().tolist()
            [[1, 403, 407, 261, 378, 432, 383, 286, 261]]
        """
        kwargs = self._without_ignored(kwargs)
        if "input_ids" in kwargs:
            if inputs is not None:
                raise TypeError("generate got the prompt twice: as `inputs` and as `input_ids`.")
            inputs = kwargs.pop("input_ids")
        if labels is not None:
            warn("generate has no use for labels, which change nothing.")
        kwargs = settle(kwargs, GENERATING, "generate")
        if isinstance(inputs, Mapping):
            inputs = settle(self._without_ignored(inputs), GENERATING, "generate")
        check_functions(streamer, logits_processor=logits_processor, stopping_criteria=stopping_criteria)
        config = self.generation_config.for_call(generation_config, kwargs, arguments=_ARGUMENTS)
        if (config.is_contrastive or config.prefill_chunk_size is not None) and kwargs.get("use_cache") is not False:
            config = config.update(use_cache=True)
        if streamer is not None and config.num_beams > 1 and config.is_from_file("num_beams"):
            warn(f"num_beams={config.num_beams} of the model's file does not count with a streamer.")
            config = config.update(num_beams=1, num_return_sequences=1)
        guided = config.guidance_scale not in (None, 1.0)
        check_combination(config, guided, streamer, past_key_values, assistant_model is not None)
        warn_of_unused(
            kwargs,
            {"assistant_model": assistant_model is not None, "guidance_scale": guided},
            negative_prompt_ids=negative_prompt_ids,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
        )
        prompts = read_prompts(
            inputs, attention_mask, inputs_embeds, position_ids, config=config, model_config=self.config
        )
        if prompts.positions is not None and not self.backbone.uses_positions:
            raise ValueError(f"position_ids: {type(self).__name__} has ALiBi or no positions at all; leave them out.")
        new = self._new_tokens(config, prompts)
        # Score processors and stopping criteria do not see embeddings.
        unseen = 0 if prompts.embeds is None else prompts.ids.shape[1]
        if config.num_beams == 1:
            prompts = prompts.repeat(config.num_return_sequences)
        stopping = Stopping(stopping_criteria or (), config.max_time)
        if config.stop_strings is not None:
            stopping.criteria.append(StopStrings(tokenizer, config.stop_strings))
        constraint = None
        if prefix_allowed_tokens_fn is not None:
            constraint = allowed_tokens(prefix_allowed_tokens_fn, config.num_beams)
        if wants_grammar(response_format):
            if constraint is not None:
                raise ValueError("response_format and prefix_allowed_tokens_fn both limit tokens: give one of them.")
            grammar = Grammar(
                response_format,
                tokenizer=tokenizer,
                vocab_size=self.config.vocab_size,
                eos_token_ids=config.eos_token_ids,
            )
            constraint = GrammarProcessor(grammar, prompts.ids.shape[1] - unseen, new)
        processors = proc.build(
            config,
            vocab_size=self.config.vocab_size,
            max_new_tokens=new,
            eos_token_ids=config.eos_token_ids,
            callbacks=logits_processor or (),
            constraint=constraint,
            unseen=unseen,
        )
        options = {
            "use_cache": config.use_cache,
            "keep_scores": config.output_scores and config.return_dict_in_generate,
            "keep_logits": config.output_logits and config.return_dict_in_generate,
            "prefill_chunk": config.prefill_chunk_size,
            "int8_cache": config.quantizes_cache,
            "whole_cache": config.return_dict_in_generate or past_key_values is not None,
            "jit_compile": config.compiles,
            "lowering": lowering_for(config.compiles),
        }
        drawing = None
        speculation = self._speculation(config, prompts, assistant_model, kwargs.get("use_cache") is not False)
        # Drafts change nothing but the time: with functions of the user's at every token there is none to win.
        if speculation is not None and not (logits_processor or constraint):
            options |= {"speculation": speculation, "assistant": assistant_model, "use_cache": True}
            decoder, spare = SpeculativeDecoder(self, strategy_of(config), processors, **options), speculation.tokens
        elif config.is_contrastive:
            decoder, spare = ContrastiveDecoder(self, strategy_of(config), processors, **options), 0
        else:
            strategy, processors, drawing = self._strategy(config, processors, options)
            decoder, spare = Decoder(self, strategy, processors, **options), 0
        run_rows, rows_per_sequence = prompts, 2 if guided else 1
        if guided:
            run_rows = with_negatives(
                prompts, negative_prompt_ids, negative_prompt_attention_mask, vocab_size=self.config.vocab_size
            )
        # Without a cache every step runs all columns, records have a row for each, and beams that read each other's
        # keys read every row's room once for each beam: then no room is left over.
        records = options["keep_scores"] or options["keep_logits"]
        spacious = config.use_cache and not (records or decoder.reads_holders)
        context = self.config.max_position_embeddings if spacious else 0
        shift = run_rows.ids.shape[1] - prompts.ids.shape[1]
        prompt = to_buckets(run_rows, new + spare, past_key_values, context=context, shift=shift)
        steering = sampling_inputs(config, processors, new, drawing)
        # Who sees tokens arrive does not wait for XLA; who waits for all of them gets the fastest programs.
        run = Run(
            decoder,
            self.programs,
            steering,
            len(run_rows.ids),
            new,
            at_once=streamer is not None,
            rows_per_sequence=rows_per_sequence,
        )
        if streamer is not None or logits_processor or constraint or stopping.criteria or config.max_time:
            with ending_on_errors(streamer):
                state = run.in_steps(prompt, stopping, streamer)
        else:
            state = run.whole(prompt)
        if config.return_dict_in_generate:
            state = decoder.with_own_keys(state)
        return result_of(self, state, prompts, config, rows_per_sequence=rows_per_sequence)

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        generation_config: GenerationConfig | None = None,
        *,
        rows: int = 8,
        capacity: int | None = None,
        tokenizer: Any = None,
        logprobs: int | None = None,
        show_progress: bool = False,
        **kwargs: Unpack[GenerationKeywords],
    ) -> list[Completion]:
        """Continue many prompts of different lengths, each in a row of its own (`tfmodels.Engine`).

        Args:
            prompts: lists of token ids, without padding.
            generation_config: settings that go before the model's own.
            rows: prompts that are worked on at a time.
            capacity: most tokens of a prompt and its continuation; default: what the longest one needs.
            tokenizer: gives the answers their `text`, and reads the text for `stop_strings`.
            logprobs: as of `tfmodels.Engine.add`.
            show_progress: draw a bar.
            **kwargs: settings of `GenerationConfig`; those that rows have of their own are allowed.

        Returns:
            The answers in the order of the prompts; each has `tokens`, `finish_reason`, `text` and `logprobs`
            (`tfmodels.generation.request.Completion`).

        Raises:
            ValueError, TypeError: as `tfmodels.Engine.add`.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> answers = model.generate_batch([[1, 403, 407], [1]], max_new_tokens=2, jit_compile=False)
            >>> [answer.tokens for answer in answers]
            [(261, 378), (403, 407)]
        """
        config = self.generation_config.for_call(generation_config, kwargs)
        vocab_size = self.config.vocab_size
        prompts = [ids_of(prompt, vocab_size, f"prompts[{place}]") for place, prompt in enumerate(prompts)]
        if not prompts:
            return []
        if capacity is None:
            limit = self.backbone.position_limit
            capacity = bucket_length(max(len(prompt) + config.new_tokens(len(prompt)) for prompt in prompts))
            capacity = capacity if limit is None else min(capacity, limit)
        for place, prompt in enumerate(prompts):
            check_room(len(prompt), capacity, f"prompts[{place}]")
        engine = Engine(
            self,
            rows=min(rows, bucket_batch(len(prompts))),
            capacity=capacity,
            tokenizer=tokenizer,
            jit_compile=config.compiles,
        )
        ids = [engine.add(prompt, config, logprobs=logprobs) for prompt in prompts]
        answers = engine.run(show_progress=show_progress)
        return [answers[id] for id in ids]

    def compute_transition_scores(
        self, sequences: Any, scores: Sequence[Any], beam_indices: Any = None, normalize_logits: bool = False
    ) -> Any:
        """Look up the scores of the tokens that were generated.

        Args:
            sequences, scores, beam_indices: of what `generate` returned.
            normalize_logits: make log-probabilities of the scores first (those of beam search are already).

        Returns:
            float32 (batch, new); 0 after the end of a sequence that beam search found.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> options = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 3}
            >>> output = model.generate([[1, 403, 407, 261, 378]], **options)
            >>> model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True).shape
            TensorShape([1, 3])
        """
        return transition_scores(sequences, scores, beam_indices, normalize_logits)

    def _speculation(
        self, config: GenerationConfig, prompts: Prompts, assistant: Any, may_cache: bool
    ) -> Speculation | None:
        """The way tokens are drafted, or None for plain decoding."""
        lookup = config.prompt_lookup_num_tokens
        if assistant is None and not lookup:
            return None
        name = "assistant_model" if assistant is not None else "prompt_lookup_num_tokens"
        if assistant is not None and lookup:
            raise ValueError("assistant_model and prompt_lookup_num_tokens both draft tokens: give one of them.")
        if len(prompts.ids) > 1 or config.num_beams > 1 or config.guidance_scale not in (None, 1.0):
            raise ValueError(
                f"{name} is for a single sequence without beams and guidance_scale; got {len(prompts.ids)} rows, "
                f"num_beams={config.num_beams} and guidance_scale={config.guidance_scale}."
            )
        if not may_cache or prompts.embeds is not None:
            raise ValueError(f"{name} needs use_cache=True and the prompt as ids.")
        if assistant is None:
            return Speculation(lookup, ngram=config.max_matching_ngram_size)
        if not isinstance(assistant, GenerationMixin):
            raise TypeError(
                f"assistant_model={quote(assistant)}: a causal language model of this package was expected."
            )
        if assistant.config.vocab_size != self.config.vocab_size:
            raise ValueError(
                f"assistant_model has a vocabulary of {assistant.config.vocab_size} tokens and this model one of "
                f"{self.config.vocab_size}: the two must share a tokenizer."
            )
        heuristic = config.num_assistant_tokens_schedule != "constant"
        tokens = config.num_assistant_tokens * (2 if heuristic else 1)
        return Speculation(tokens, confidence=config.assistant_confidence_threshold, heuristic=heuristic)

    def _strategy(
        self, config: GenerationConfig, processors: tuple[proc.Processor, ...], options: Mapping[str, Any]
    ) -> tuple[Strategy, tuple[proc.Processor, ...], Drawing | None]:
        """The strategy, the processors that come before it, and what it is told as an input.

        On a CPU one program takes the best token or draws one with any temperature, top_k, top_p and min_p. On a GPU a
        branch in the loop costs time, and where scores are returned the processors of sampling are a part of them.
        """
        strategy, parts = strategy_of(config), proc.parted(processors)
        shared = options["lowering"].target == "cpu" and not options["keep_scores"] and type(strategy) is Sampling
        if parts is None or not shared:
            return strategy, processors, None
        rules, warpers = parts
        numbers = keras.tree.map_structure(ops.convert_to_tensor, proc.stack([warpers], proc.WARPERS))
        return Sampling(None), rules, Drawing(ops.convert_to_tensor(config.do_sample), numbers)

    def _new_tokens(self, config: GenerationConfig, prompts: Prompts) -> int:
        """Largest number of tokens to add."""
        context, length = self.config.max_position_embeddings, prompts.ids.shape[1]
        taken, after = length, length
        if prompts.positions is not None:
            taken, after = int(prompts.positions[:, :-1].max()) + 1, int(prompts.positions[:, -1].max())
        new = config.new_tokens(length, context - after + length if after < context else None)
        if (end := max(taken, after + new)) > context:
            said = f"prompt of {length}" if prompts.positions is None else f"prompt up to position {taken - 1}"
            message = f"{said} plus {new} new tokens exceed max_position_embeddings={context}"
            if self.backbone.position_limit is not None and end > self.backbone.position_limit:
                raise ValueError(f"{message}, and this model has no positions beyond; shorten one of the two.")
            warn(f"{message}: text beyond what the model was trained for may be poor.")
        return new


# The names of arguments that `generate` has beside settings, as hints for misspelt ones.
_ARGUMENTS = {"input_ids", *inspect.signature(GenerationMixin.generate).parameters} - {"self", "kwargs"}


def strategy_of(config: GenerationConfig) -> Strategy:
    """The strategy that the settings ask for."""
    if config.guidance_scale not in (None, 1.0):
        return Guided(config.do_sample, scale=config.guidance_scale)
    if config.is_contrastive:
        return Contrastive(False, candidates=config.top_k, alpha=config.penalty_alpha)
    if config.num_beams == 1:
        return Sampling(config.do_sample)
    return BeamSearch(
        rows=config.num_beams,
        ends=len(config.eos_token_ids),
        do_sample=config.do_sample,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
    )


def allowed_tokens(function: Callable[[int, Any], Sequence[int]], num_beams: int) -> Callable[[Any, Any], Any]:
    """A score processor that bans what `prefix_allowed_tokens_fn` does not list."""

    def ban_others(input_ids: Any, scores: Any) -> Any:
        allowed = np.full(scores.shape, -np.inf, "float32")
        for row in range(allowed.shape[0]):
            tokens = list(function(row // num_beams, input_ids[row]))
            if not tokens:
                raise ValueError(
                    f"prefix_allowed_tokens_fn allows no token after row {row // num_beams}: at least one is needed."
                )
            if not all(0 <= token < allowed.shape[1] for token in tokens):
                raise ValueError(
                    f"prefix_allowed_tokens_fn returned {quote(tokens)}: ids below {allowed.shape[1]} were expected."
                )
            allowed[row, tokens] = 0
        return scores + allowed

    return ban_others
