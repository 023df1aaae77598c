"""Pictures of what models do."""

from tfmodels.visualize.attention_mask import AttentionMaskPicture, AttentionMaskVisualizer

__all__ = ["AttentionMaskPicture", "AttentionMaskVisualizer"]
