"""Text generation: its settings, score processors, strategies, and the decoding step with its compiled programs."""

from tfmodels.generation.config import GenerationConfig

__all__ = ["GenerationConfig"]
