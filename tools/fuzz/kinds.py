"""All kinds of files, by name."""

from tools.fuzz import configurations, quantized, tokenizers, weights

KINDS = weights.KINDS | quantized.KINDS | tokenizers.KINDS | configurations.KINDS
