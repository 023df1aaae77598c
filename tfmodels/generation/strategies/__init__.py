"""Ways to choose tokens from scores: frozen data, part of the key of a compiled program."""

from tfmodels.generation.strategies.sampling import Sampling, Strategy

__all__ = ["Sampling", "Strategy"]
