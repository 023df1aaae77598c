"""`EncoderConfig`: the configuration that BERT and the encoders built like it share."""

from __future__ import annotations

from typing import Any

from tfmodels.configs.base import ModelConfig


class EncoderConfig(ModelConfig):
    """Configuration of a post-normalised encoder with learned positions and token types.

    Fields: sizes and dropout shares as named; `type_vocab_size` is the number of token types; `classifier_dropout`
    None means `hidden_dropout_prob`. `use_cache` is kept for the file's sake.

    Raises:
        ValueError: values contradict each other, or ask for what encoders here do not have: decoding, relative
            positions.

    Example:
        >>> from tfmodels.configs.encoder import EncoderConfig
        >>> EncoderConfig(hidden_size=64, num_attention_heads=4).intermediate_size
        3072
    """

    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None

    # fmt: off
    def __init__(
        self, vocab_size: int = 30522, hidden_size: int = 768, num_hidden_layers: int = 12,
        num_attention_heads: int = 12, intermediate_size: int = 3072, hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1, attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512, type_vocab_size: int = 2, initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12, **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "max_position_embeddings", "type_vocab_size")
        self.check_divisible("hidden_size", by="num_attention_heads")
        self.check_known("position_embedding_type", ("absolute",))
        self.check_known("is_decoder", (False,))
        self.check_known("add_cross_attention", (False,))
        super().validate()
