"""Low-rank adapters (LoRA) beside dense layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.utils.text import quote


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Settings of a model's adapters.

    Fields:
        targets: the adapted layers: a regular expression searched in their names, or the names themselves.
        rank: width of the adapters.
        alpha: the adapters' product is multiplied by alpha / rank.
        dropout: share of an adapter's inputs dropped in training.
        train_fully: the layers trained whole beside, as `targets`; None for none.
        loftq_bits: bits of the packed weights whose rounding the adapters make up for (LoftQ); on float weights such
            adapters are wrong. None for adapters that began at nothing.
    """

    targets: str | tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    train_fully: str | tuple[str, ...] | None = None
    loftq_bits: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank={quote(self.rank)}; a whole number above 0 was expected.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={quote(self.dropout)}; a share from 0 to below 1 was expected.")


class LoraAdapter(keras.layers.Layer):
    """Two low-rank matrices in float32, whose scaled product changes the kernel of the layer beside them.

    Source:
        Hu et al., https://arxiv.org/abs/2106.09685.
    """

    def __init__(self, width: int, units: int, config: LoraConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = config.alpha / config.rank
        self.merged = False
        self.dropout = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="dropout")
        spread = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        self.lora_a = self.add_weight(shape=(width, config.rank), initializer=spread, name="lora_a")
        self.lora_b = self.add_weight(shape=(config.rank, units), initializer="zeros", name="lora_b")
        self.dropout.build((None, width))
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.matmul(ops.matmul(self.dropout(inputs), self.lora_a), self.lora_b) * self.scale

    def change(self) -> Any:
        """The adapter as a change of the kernel, float32 (width, units)."""
        return ops.matmul(ops.cast(self.lora_a, "float32"), ops.cast(self.lora_b, "float32")) * self.scale

    def approximate(self, change: np.ndarray, products: np.ndarray | None = None) -> None:
        """Set the matrices to the product of their rank that comes nearest to a change of the kernel.

        Args:
            change: float (width, units).
            products: float (width, width), positive definite, the sum of x x^T over inputs x of the layer: the outputs
                for these inputs come nearest. None: the kernel does.

        Source:
            Li et al. (LoftQ), https://arxiv.org/abs/2310.08659; by inputs: Deng et al. (CLoQ),
            https://arxiv.org/abs/2501.18475.

        Example:
            >>> adapter = LoraAdapter(3, 2, LoraConfig("q_proj", rank=1))
            >>> adapter.approximate(np.array([[2.0, 4.0], [1.0, 2.0], [0.0, 0.0]]))
            >>> (np.round(ops.convert_to_numpy(adapter.change()), 3) + 0.0).tolist()
            [[2.0, 4.0], [1.0, 2.0], [0.0, 0.0]]
        """
        rank = self.lora_a.shape[1]
        root = None if products is None else np.linalg.cholesky(products).T
        left, sizes, right = np.linalg.svd(change if root is None else root @ change, full_matrices=False)
        factor = left[:, :rank] * sizes[:rank]
        basis, rest = np.linalg.qr(factor if root is None else np.linalg.solve(root, factor))
        # The same product, by factors of equal size, which train alike.
        left, sizes, right = np.linalg.svd(rest @ right[:rank], full_matrices=False)
        sizes, missing = np.sqrt(sizes / self.scale), rank - len(sizes)
        self.lora_a.assign(np.pad(basis @ left * sizes, [(0, 0), (0, missing)]))
        self.lora_b.assign(np.pad(sizes[:, None] * right, [(0, missing), (0, 0)]))
