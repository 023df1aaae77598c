"""`DecoderConfig`: the configuration that Llama and the decoders built like it share.

What differs between them is data, which `tfmodels.models.rotary_decoder` reads from the configuration: a family
declares fields, constants or properties of the names below.
"""

from __future__ import annotations

from typing import ClassVar

from tfmodels.configs.layer_types import FULL, SLIDING, check_layer_types
from tfmodels.configs.rotary import RotaryConfig


class DecoderConfig(RotaryConfig):
    """Configuration of a decoder with rotary positions, grouped-query attention and a gated feed-forward block.

    Fields: sizes as named; `num_key_value_heads` None means one per query head; `head_dim` None means
    `hidden_size / num_attention_heads`; rotary scaling in `rope_parameters`, see `tfmodels.layers.rotary`.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels.configs.decoder import DecoderConfig
        >>> config = DecoderConfig(hidden_size=64, num_attention_heads=8)
        >>> config.head_dim, config.num_key_value_heads, config.attention_scale
        (8, 8, 0.3535533905932738)
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    attention_dropout: float = 0.0

    # Whether the projections of attention, and of the feed-forward block, have biases.
    attention_bias: ClassVar[bool] = False
    mlp_bias: ClassVar[bool] = False
    # Whether queries and keys are normalised, head by head, before they are turned.
    normalizes_heads: ClassVar[bool] = False
    # Normalisations multiply by their weight plus this.
    norm_offset: ClassVar[float] = 0.0
    # Factors on the rows of the embedding table where they are looked up; on all embeddings, given ones too; and on
    # what a block's two parts add.
    table_scale: ClassVar[float] = 1.0
    embedding_multiplier: ClassVar[float] = 1.0
    residual_multiplier: ClassVar[float] = 1.0

    @property
    def attention_biases(self) -> tuple[bool, bool]:
        """Whether the projections to queries, keys and values have biases, and whether the one after attention has."""
        return self.attention_bias, self.attention_bias

    @property
    def attention_scale(self) -> float:
        """The factor on products of queries and keys."""
        return self.head_dim**-0.5

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer the number of last tokens that a token sees, itself included; None for all.

        A family that has windows has the field `sliding_window`.
        """
        return (None,) * self.num_hidden_layers

    @property
    def rotaries(self) -> tuple[str | None, ...]:
        """For each layer the kind of its rotary positions, a key of `rotary_parameters`; None for no positions."""
        return ("default",) * self.num_hidden_layers

    def finish(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.check_positive("hidden_size", "num_attention_heads")
            self.check_divisible("hidden_size", by="num_attention_heads")
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().finish()

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")
        self.check_positive("num_attention_heads", "num_key_value_heads", "max_position_embeddings")
        self.check_divisible("num_attention_heads", by="num_key_value_heads")
        super().validate()
        if self.rotary_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary positions turn pairs of dimensions.")
        if any(window is not None for window in self.windows):
            self.check_positive("sliding_window")


class WindowedConfig(DecoderConfig):
    """A `DecoderConfig` in which the tokens of every layer see the last `sliding_window` tokens, or all for None.

    Example:
        >>> from tfmodels.configs.decoder import WindowedConfig
        >>> WindowedConfig(num_hidden_layers=2, sliding_window=8).windows
        (8, 8)
    """

    sliding_window: int | None = 4096

    @property
    def windows(self) -> tuple[int | None, ...]:
        return (self.sliding_window,) * self.num_hidden_layers


class LayerTypesConfig(WindowedConfig):
    """A `WindowedConfig` in which `layer_types` says which layers see `sliding_window` tokens and which see all.

    Fields: `layer_types` is "sliding_attention" or "full_attention" for each layer; None takes `usual_layer_type` of
    each layer's number.

    Example:
        >>> from tfmodels.configs.decoder import LayerTypesConfig
        >>> kinds = ["sliding_attention", "full_attention"]
        >>> LayerTypesConfig(num_hidden_layers=2, sliding_window=8, layer_types=kinds).windows
        (8, None)
    """

    layer_types: list[str] | None = None

    def usual_layer_type(self, index: int) -> str:
        """The kind of layer `index` where `layer_types` does not say it."""
        return FULL

    @property
    def windows(self) -> tuple[int | None, ...]:
        return tuple(self.sliding_window if kind == SLIDING else None for kind in self.layer_types)

    def finish(self) -> None:
        super().finish()
        if self.layer_types is None:
            self.check_positive("num_hidden_layers")
            self.check_layers()
            self.layer_types = [self.usual_layer_type(index) for index in range(self.num_hidden_layers)]

    def validate(self) -> None:
        check_layer_types(self)
        super().validate()
        if SLIDING in self.layer_types:
            self.check_positive("sliding_window")


class QwenConfig(LayerTypesConfig):
    """A `LayerTypesConfig` whose later layers are windowed if `use_sliding_window` says so, as in Qwen 2 and 3.

    Fields: layers from number `max_window_layers` on see `sliding_window` tokens, which is None without
    `use_sliding_window`.

    Example:
        >>> from tfmodels.configs.decoder import QwenConfig
        >>> QwenConfig(num_hidden_layers=2, max_window_layers=1, sliding_window=8, use_sliding_window=True).windows
        (None, 8)
        >>> QwenConfig(num_hidden_layers=2, max_window_layers=1, sliding_window=8).sliding_window is None
        True
    """

    use_sliding_window: bool = False
    max_window_layers: int = 28

    def usual_layer_type(self, index: int) -> str:
        if self.sliding_window is None:
            return FULL
        if self.max_window_layers is None:
            raise ValueError(
                f"max_window_layers=None in {type(self).__name__}; an integer was expected beside sliding_window."
            )
        return FULL if index < self.max_window_layers else SLIDING

    def finish(self) -> None:
        if not self.use_sliding_window:
            self.sliding_window = None
        super().finish()
