"""The way a forward pass is lowered: which device and compiler its operations are chosen for."""

from __future__ import annotations

import dataclasses

from tfmodels.utils.text import quote


@dataclasses.dataclass(frozen=True)
class Lowering:
    """The choice of operations for one forward pass; every choice gives the same values.

    Callers hand it on to every layer: `DecoderBackbone.step(..., lowering=...)` and
    `model(..., lowering=...)` take it, blocks find it in their `BlockContext`. `tfmodels.kernels.decoding.for_xla`
    makes the one for programs that XLA compiles here.

    Fields:
        target: the device or format that a decoding program is compiled for. "cpu" and "gpu" take the forms of
            products that XLA makes fast there, "triton" the kernels of this package on an NVIDIA GPU, "litert" the
            operations that LiteRT quantises; None keeps plain operations.
        portable: only operations that every device has, as exports need them: attention by plain products.
        keeps_matrices: for "litert": its converter must not multiply factors, such as a norm's, into matrices.
        reuse: blocks that differ in their weights alone are traced once. For TensorFlow programs without gradients.

    Example:
        >>> Lowering(target="cpu", reuse=True)
        Lowering(target='cpu', portable=False, keeps_matrices=False, reuse=True)
        >>> Lowering(target="tpu")
        Traceback (most recent call last):
            ...
        ValueError: target='tpu' is unknown; it is None or one of cpu, gpu, triton, litert.
    """

    target: str | None = None
    portable: bool = False
    keeps_matrices: bool = False
    reuse: bool = False

    def __post_init__(self) -> None:
        if self.target is not None and self.target not in TARGETS:
            raise ValueError(f"target={quote(self.target)} is unknown; it is None or one of {', '.join(TARGETS)}.")

    @property
    def xla_target(self) -> str | None:
        """The target where XLA compiles the program, else None."""
        return self.target if self.target in XLA_TARGETS else None


XLA_TARGETS = ("cpu", "gpu", "triton")
TARGETS = (*XLA_TARGETS, "litert")

# Ordinary calls: plain operations, in eager code, graphs and programs of the user's own.
PLAIN = Lowering()
# Programs that leave this process.
EXPORT = Lowering(portable=True)
