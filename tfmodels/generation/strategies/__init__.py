"""Ways to choose tokens from scores: frozen data, part of the key of a compiled program."""

from tfmodels.generation.strategies.base import Chosen, Drawing, SamplingInputs, Strategy, Tokens
from tfmodels.generation.strategies.beams import BeamSearch
from tfmodels.generation.strategies.guidance import Guided
from tfmodels.generation.strategies.sampling import Sampling

__all__ = ["BeamSearch", "Chosen", "Drawing", "Guided", "Sampling", "SamplingInputs", "Strategy", "Tokens"]
