"""Text generation: its settings, the score processors and the decoding loops."""

from tfmodels.generation.config import GenerationConfig

__all__ = ["GenerationConfig"]
