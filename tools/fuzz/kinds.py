"""All kinds of files, by name."""

from tools.fuzz import configurations, tokenizers, weights

KINDS = weights.KINDS | tokenizers.KINDS | configurations.KINDS
