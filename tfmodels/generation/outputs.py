"""`GenerateOutput`, the result of `generate` with what else was asked for."""

from __future__ import annotations

from tfmodels.runtime.outputs import ModelOutput


class GenerateOutput(ModelOutput):
    """Output of `generate`.

    Fields:
        sequences: int32 (batch, length), prompt and continuation.
        sequences_scores: with beams, float32 (batch,): the summed log-probability of a sequence's new tokens, divided
            by their number to the power of `length_penalty`.
        scores: per new token, float32 (batch, vocab_size) after all processors; with beams log-probabilities of
            batch * num_beams rows.
        logits: the same as the model gave them.
        beam_indices: with beams, int32 (batch, new): the row of `scores` in which each token was chosen; -1 after a
            sequence's end.
        attentions, hidden_states: per new token and layer; of the whole prompt at the first token, then of one token.
        past_key_values: the cache of all tokens but the last, to continue with.
    """

    fields = (
        "sequences",
        "sequences_scores",
        "scores",
        "logits",
        "beam_indices",
        "attentions",
        "hidden_states",
        "past_key_values",
    )
