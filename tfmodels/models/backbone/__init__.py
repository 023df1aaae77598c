"""The backbones: `base` runs the blocks, `decoder` and `encoder` add what each kind needs around them.

`context` holds the inputs and results of blocks, `inputs` the checks of what callers give.
"""

from tfmodels.layers.tokens import TokenInputs
from tfmodels.models.backbone.base import Backbone
from tfmodels.models.backbone.context import BlockContext, Pass
from tfmodels.models.backbone.decoder import DecoderBackbone
from tfmodels.models.backbone.encoder import EncoderBackbone
from tfmodels.models.backbone.inputs import as_rows

__all__ = ["Backbone", "BlockContext", "DecoderBackbone", "EncoderBackbone", "Pass", "TokenInputs", "as_rows"]
