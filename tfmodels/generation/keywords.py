"""The settings of `generate` as keyword arguments, for type checkers and editors."""

from __future__ import annotations

from typing import Any, TypedDict


class GenerationKeywords(TypedDict, total=False):
    """Settings that calls of `generate` may give, as `GenerationConfig` documents them, and the prompt."""

    input_ids: Any
    max_length: int | None
    max_new_tokens: int | None
    min_length: int | None
    min_new_tokens: int | None
    stop_strings: list[str] | str | None
    max_time: float | None
    prefill_chunk_size: int | None
    do_sample: bool | None
    num_beams: int | None
    num_return_sequences: int | None
    early_stopping: bool | str | None
    length_penalty: float | None
    penalty_alpha: float | None
    prompt_lookup_num_tokens: int | None
    max_matching_ngram_size: int | None
    num_assistant_tokens: int | None
    num_assistant_tokens_schedule: str | None
    assistant_confidence_threshold: float | None
    seed: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    repetition_penalty: float | None
    encoder_repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    no_repeat_ngram_size: int | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: list[list[int]] | None
    sequence_bias: list[Any] | dict[Any, Any] | None
    logit_bias: dict[int, float] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    exponential_decay_length_penalty: list[Any] | None
    guidance_scale: float | None
    remove_invalid_values: bool | None
    renormalize_logits: bool | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None
    pad_token_id: int | None
    use_cache: bool | None
    cache_implementation: str | None
    cache_config: dict[str, int] | None
    jit_compile: bool | None
    disable_compile: bool | None
    return_dict_in_generate: bool | None
    output_scores: bool | None
    output_logits: bool | None
    output_attentions: bool | None
    output_hidden_states: bool | None
    # Settings of transformers that may be given as what changes nothing.
    assistant_early_exit: Any
    constraints: Any
    diversity_penalty: Any
    dola_layers: Any
    force_words_ids: Any
    low_memory: Any
    num_beam_groups: Any
    speculation_type: Any
    token_healing: Any
    top_h: Any
    use_mtp: Any
    watermarking_config: Any
